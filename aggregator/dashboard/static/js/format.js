// Numbers and times as people read them. No DOM here.

const trim = (text) => text.replace(/\.0$/, "");

export function percent(share, decimals) {
  const value = 100 * share;
  return value.toFixed(decimals ?? (value >= 0.995 || value === 0 ? 1 : 2));
}

// One decimal where the interval is a tenth of a point or more, else two: share and interval agree.
export const decimalsFor = (halfWidth) => (halfWidth >= 0.00095 ? 1 : 2);

// A percentage that may be small keeps two significant digits: 0.0042 % is not 0.00 %.
export function cost(value) {
  return value >= 0.1 || value === 0 ? value.toFixed(2) : String(Number(value.toPrecision(2)));
}

export function cores(value) {
  if (value >= 100) return Math.round(value).toLocaleString("en");
  if (value >= 10) return value.toFixed(1);
  return value >= 0.0995 || value === 0 ? value.toFixed(2) : value.toPrecision(2);
}

export function count(value) {
  if (value >= 1e9) return trim((value / 1e9).toFixed(1)) + " G";
  if (value >= 1e6) return trim((value / 1e6).toFixed(1)) + " M";
  return Math.round(value).toLocaleString("en");
}

export function bytes(value) {
  if (value >= 2 ** 30) return (value / 2 ** 30).toFixed(1) + " GB";
  if (value >= 2 ** 20) return (value / 2 ** 20).toFixed(1) + " MB";
  return Math.round(value / 1024) + " KB";
}

export function plural(n, one, many = one + "s") {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

const UNITS = [
  [86400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

// 5400 → "1.5 h", 300 → "5 min", 45 → "45 s"
export function duration(seconds) {
  for (const [size, unit] of UNITS) {
    if (seconds >= size) return trim((seconds / size).toFixed(1)) + " " + unit;
  }
  return "0 s";
}

const two = (v) => String(v).padStart(2, "0");
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

// Minutes east of UTC of this browser's zone at a time.
export const zoneOffset = (ms) => -new Date(ms).getTimezoneOffset();

// 120 → "UTC+02:00"
export function zoneName(offset) {
  const size = Math.abs(offset);
  return offset ? `UTC${offset < 0 ? "−" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}` : "UTC";
}

// The times that a clock in this zone shows `wallMs` at, as if it were UTC: two in the hour that comes
// twice when summer time ends, none in the one that is left out when it begins.
export function timesOfWall(wallMs) {
  const offsets = new Set([wallMs - 8.64e7, wallMs + 8.64e7].map(zoneOffset));
  return [...offsets].map((o) => [wallMs - o * 6e4, o]).filter(([ms, o]) => zoneOffset(ms) === o).map(([ms]) => ms);
}

// Local time of day; seconds below ten minutes of span, the weekday beyond today's range, and the
// offset where the same time of day comes twice.
export function clock(ms, { spanMs = 3.6e6, day = false } = {}) {
  const t = new Date(ms);
  const time = `${two(t.getHours())}:${two(t.getMinutes())}`;
  const seconds = spanMs < 6e5 ? ":" + two(t.getSeconds()) : "";
  const offset = zoneOffset(ms);
  const zone = timesOfWall(ms + offset * 6e4).length > 1 ? ` ${zoneName(offset)}` : "";
  return (day ? `${DAYS[t.getDay()]} ` : "") + time + seconds + zone;
}

// The last part of a path-like or namespaced name; separators inside brackets belong to arguments
// and type parameters, not to the name.
export function shortName(name) {
  let depth = 0;
  let start = 0;
  for (let i = 0; i < name.length - 1; i++) {
    const c = name[i];
    if (c === "(" || c === "<" || c === "[") depth++;
    else if (c === ")" || c === ">" || c === "]") depth = Math.max(0, depth - 1);
    else if (depth === 0 && c === "/") start = i + 1;
    else if (depth === 0 && c === ":" && name[i + 1] === ":" && i + 2 < name.length) start = i + 2;
  }
  return name.slice(start);
}

// A name could carry characters that turn the reading direction: show them as what they are.
export const plain = (text) => text.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
