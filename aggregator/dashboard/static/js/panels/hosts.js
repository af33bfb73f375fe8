// The hosts in one line of the app bar, and behind it the list with what profiling costs on each.

import { $, el } from "../dom.js";
import { bytes, duration, plural } from "../format.js";

const LATE_S = 60;

export const ageOf = (node, nowMs) =>
  node.last_seen ? (nowMs - Date.parse(node.last_seen)) / 1000 : Infinity;
export const reporting = (node, nowMs) => ageOf(node, nowMs) < LATE_S;

// Mean over hosts that report; null where none has measured itself yet.
function meanOverhead(nodes) {
  const values = nodes.map((n) => n.overhead?.cpu_percent).filter((v) => v != null);
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
}

// Small costs keep two significant digits: 0.0042 % is not 0.00 %.
function cost(value) {
  return value >= 0.1 || value === 0 ? value.toFixed(2) : String(Number(value.toPrecision(2)));
}

export function showHealth(nodes, nowMs) {
  const now = nodes.filter((n) => reporting(n, nowMs));
  const overhead = meanOverhead(now);
  const health = $("#health");
  const state = !nodes.length || !now.length ? "idle" : now.length < nodes.length ? "warn" : "ok";
  health.className = `health ghost push ${state}`;
  $(".text", health).textContent = !nodes.length
    ? "No hosts yet"
    : `${now.length} of ${plural(nodes.length, "host")} reporting`;
  $(".cost", health).textContent = overhead === null ? "" : `\u00a0· profiling costs ${cost(overhead)} % CPU`;
}

// For a page that follows now: {text, title} when data is late, else null.
export function lateness(nodes, nowMs) {
  const seen = nodes.filter((n) => n.last_seen);
  const late = seen.filter((n) => !reporting(n, nowMs));
  if (!late.length) return null;
  const names = late.map((n) => n.name).join(", ");
  const newest = Math.min(...seen.map((n) => ageOf(n, nowMs)));
  if (newest < LATE_S) return { text: `${plural(late.length, "host")} late`, title: names };
  return {
    text: `Newest data is ${duration(newest)} old: ${plural(late.length, "host")} late`,
    title: names,
  };
}

function stateOf(node, nowMs) {
  const age = ageOf(node, nowMs);
  if (age === Infinity) return ["", "Waiting"];
  if (age < LATE_S) return ["calm", "Reporting"];
  return age < 600 ? ["warn", "Late"] : ["bad", "Offline"];
}

function hostRow(node, nowMs, onChoose) {
  const o = node.overhead ?? {};
  const [tone, word] = stateOf(node, nowMs);
  const age = ageOf(node, nowMs);
  const cell = (value, unit) => el("td", { class: "num" }, value == null ? "–" : `${value}${unit}`);
  return el(
    "tr",
    {},
    el(
      "td",
      {},
      el(
        "button",
        { class: "link", title: "Show only this host", onclick: () => onChoose(node.name) },
        node.name,
      ),
    ),
    el("td", {}, el("span", { class: `pill ${tone}` }, word)),
    cell(node.rate_hz, " Hz"),
    cell(o.cpu_percent == null ? null : cost(o.cpu_percent), " %"),
    cell(o.memory_bytes == null ? null : bytes(o.memory_bytes), ""),
    cell(node.lost_samples?.toLocaleString("en"), ""),
    cell(age === Infinity ? null : duration(Math.max(0, Math.floor(age))), " ago"),
    el("td", { class: "dim" }, node.agent_version ?? ""),
  );
}

export function showHosts(nodes, nowMs, onChoose) {
  const heads = ["Host", "State", "Rate", "CPU of host", "Memory", "Lost samples", "Last seen", "Agent"];
  const numeric = new Set(heads.slice(2, 7));
  $("#hosts-table").replaceChildren(
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        heads.map((h) => el("th", { class: numeric.has(h) ? "num" : null }, h)),
      ),
    ),
    el(
      "tbody",
      {},
      nodes.map((n) => hostRow(n, nowMs, onChoose)),
    ),
  );
  $("#hosts-none").hidden = nodes.length > 0;
}
