// The hosts in one line of the app bar, and behind it the list with what profiling costs on each.

import { $, el } from "../dom.js";
import { bytes, duration, plural } from "../format.js";

export const ageOf = (node, nowMs) => (nowMs - Date.parse(node.last_seen)) / 1000;
const reporting = (node) => node.state === "reporting";

// Mean over hosts that report; null where none has measured itself yet.
function meanOverhead(nodes) {
  const values = nodes.map((n) => n.overhead?.cpu_percent).filter((v) => v != null);
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
}

// Small costs keep two significant digits: 0.0042 % is not 0.00 %.
function cost(value) {
  return value >= 0.1 || value === 0 ? value.toFixed(2) : String(Number(value.toPrecision(2)));
}

export function showHealth(nodes) {
  const now = nodes.filter(reporting);
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
  const late = seen.filter((n) => !reporting(n));
  if (!late.length) return null;
  const hosts = plural(late.length, "host");
  const title = late.map((n) => n.name).join(", ");
  if (late.length < seen.length) return { text: `${hosts} late`, title };
  const newest = Math.min(...seen.map((n) => ageOf(n, nowMs)));
  return { text: `Newest data is ${duration(newest)} old: ${hosts} late`, title };
}

const STATES = {
  new: ["", "Waiting"],
  reporting: ["calm", "Reporting"],
  late: ["warn", "Late"],
  offline: ["bad", "Offline"],
};

// What the cost is made of, as percent of one core.
function parts(overhead) {
  const named = {
    sampler: "sampler",
    shipper: "shipper",
    kernel: "in the kernel",
    interrupt: "timer interrupts",
  };
  return Object.entries(named)
    .filter(([key]) => overhead[`${key}_percent_of_core`] != null)
    .map(([key, words]) => `${words} ${cost(overhead[`${key}_percent_of_core`])} % of one core`)
    .join("\n");
}

function hostRow(node, nowMs, onChoose) {
  const o = node.overhead ?? {};
  const [tone, word] = STATES[node.state] ?? ["", node.state];
  const age = Math.max(0, Math.floor(ageOf(node, nowMs)));
  const cell = (value, unit, title) =>
    el("td", { class: "num", title }, value == null ? "–" : `${value}${unit}`);
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
    cell(o.cpu_percent == null ? null : cost(o.cpu_percent), " %", parts(o)),
    cell(o.memory_bytes == null ? null : bytes(o.memory_bytes), ""),
    cell(node.lost_samples?.toLocaleString("en"), ""),
    cell(node.last_seen ? duration(age) : null, " ago"),
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
