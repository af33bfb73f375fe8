// A time range as the API reads it: {from, until}, each "now", "now-15m" or RFC 3339. No DOM here.

import { clock, duration, timesOfWall, zoneName, zoneOffset } from "./format.js";

export const PRESETS = ["5m", "15m", "1h", "6h", "24h"];
export const DEFAULT_RANGE = { from: "now-15m", until: "now" };

const SIZE_MS = { s: 1e3, m: 6e4, h: 3.6e6, d: 8.64e7, w: 6.048e8 };

// As aggregator/profiles/times.py reads them.
const RELATIVE = /^now(?:\s*-\s*(\d{1,9})([smhdw]))?$/;
const NUMBER = /^\d{1,12}(?:\.\d{1,9})?$/;
const RFC3339 = /^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/;

export class TimeRangeError extends Error {}

export function presetRange(preset) {
  return { from: `now-${preset}`, until: "now" };
}

// Milliseconds since the epoch.
export function timeMs(text, nowMs) {
  text = text.trim();
  const relative = RELATIVE.exec(text);
  if (relative) return nowMs - (relative[1] ? relative[1] * SIZE_MS[relative[2]] : 0);
  const parts = RFC3339.exec(text);
  const [, date, time, fraction = "", zone] = parts ?? [];
  const iso = `${date}T${time}${fraction.slice(0, 4)}${zone?.toUpperCase()}`;
  const ms = NUMBER.test(text) ? Number(text) * 1000 : parts ? Date.parse(iso) : NaN;
  if (Number.isNaN(ms)) throw new TimeRangeError(`“${text}” is not a time`);
  return ms;
}

export function resolve(range, nowMs) {
  const from = timeMs(range.from, nowMs);
  const until = timeMs(range.until, nowMs);
  if (until <= from) throw new TimeRangeError("The range ends before it begins");
  return { from, until };
}

// Do the times depend on what now is?
export const isRelative = ({ from, until }) => [from, until].map((text) => RELATIVE.test(text.trim()));

// Throws for a range that can't be; whether "now" is after a fixed time is not known without a clock.
export function check(range) {
  const [from, until] = isRelative(range);
  for (const text of [range.from, range.until]) timeMs(text, 0);
  if (from === until) resolve(range, 0);
}

export const followsNow = (range) => range.until.trim() === "now";

// What a field for local time without a zone means, in the zone of this browser ("local") or at an
// offset in minutes.
export function wallTime(text, zone) {
  const wallMs = Date.parse(text + "Z");
  if (Number.isNaN(wallMs)) throw new TimeRangeError("Both times are needed.");
  if (zone !== "local") return wallMs - zone * 6e4;
  const times = timesOfWall(wallMs);
  const shown = text.replace("T", " ");
  if (times.length === 1) return times[0];
  if (!times.length) throw new TimeRangeError(`${shown} is left out when summer time begins: choose another.`);
  const zones = times.map((ms) => zoneName(zoneOffset(ms)));
  throw new TimeRangeError(`${shown} comes twice when summer time ends: choose ${zones.join(" or ")}.`);
}

// The offsets that this browser's zone has around a time, its own first, then UTC.
export function zonesAround(ms) {
  return [...new Set([ms, ms - 8.64e7, ms + 8.64e7].map(zoneOffset)), 0].filter((o, i, all) => all.indexOf(o) === i);
}

export function absoluteRange(fromMs, untilMs) {
  const at = (ms) => new Date(Math.round(ms / 1000) * 1000).toISOString().replace(".000Z", "Z");
  return { from: at(fromMs), until: at(untilMs) };
}

// The same width, one width earlier (-1) or later (1); at now it follows now again.
export function step(range, direction, nowMs) {
  const { from, until } = resolve(range, nowMs);
  const width = until - from;
  const end = until + direction * width;
  if (end >= nowMs - 1000) return { from: `now-${Math.max(1, Math.round(width / 1000))}s`, until: "now" };
  return absoluteRange(end - width, end);
}

// The preset that equals this range, or "".
export function presetOf(range) {
  if (!followsNow(range) || isRelative(range).includes(false)) return "";
  const width = resolve(range, 0);
  return PRESETS.find((p) => resolve(presetRange(p), 0).from === width.from) ?? "";
}

export function label(range, nowMs) {
  const { from, until } = resolve(range, nowMs);
  const width = until - from;
  if (followsNow(range)) return `last ${duration(width / 1000)}`;
  const day = from < nowMs - 8.64e7 || width > 8.64e7;
  const text = `${clock(from, { spanMs: width, day })} – ${clock(until, { spanMs: width, day })}`;
  return `${text} · ${duration(width / 1000)}`;
}

const CONTEXT_MS = [1.8e6, 3.6e6, 7.2e6, 2.16e7, 8.64e7, 2.592e8, 6.048e8];

// The wider time that the timeline shows around a range; it ends now, or a little after the range.
export function contextOf(range, nowMs) {
  const { from, until } = resolve(range, nowMs);
  const width = until - from;
  const span = CONTEXT_MS.find((s) => s >= width * 2.5) ?? width * 1.25;
  const after = Math.min(nowMs, until + (span - width) / 2);
  const end = followsNow(range) ? until : Math.max(until, after);
  return { from: Math.min(end - span, from), until: end };
}

const TICKS_MS = [6e4, 3e5, 6e5, 9e5, 1.8e6, 3.6e6, 7.2e6, 1.44e7, 2.16e7, 4.32e7, 8.64e7];

// Round local times between from and until, at most `most` of them.
export function ticks(fromMs, untilMs, most) {
  const stepMs = TICKS_MS.find((s) => (untilMs - fromMs) / s <= most) ?? (untilMs - fromMs) / most;
  const zone = -zoneOffset(fromMs) * 6e4;
  const out = [];
  for (let t = Math.ceil((fromMs - zone) / stepMs) * stepMs + zone; t < untilMs; t += stepMs) out.push(t);
  return out;
}
