// What a host's row opens to: the parts of its cost, what it gave up since when, its last events,
// and its profiles on demand.

import { el } from "../dom.js";
import * as fleet from "../fleet.js";
import { bytes, cost, duration, plain, plural } from "../format.js";
import { createEvents, timeOf } from "./events.js";
import { createProfiles } from "./profiles.js";

const micros = (ns) => (ns / 1000).toFixed(1);
const ofHost = (value) => (value == null ? "–" : `${cost(value)} %`);

function partsBar(parts) {
  const total = parts.reduce((sum, [, value]) => sum + (value ?? 0), 0);
  if (!total) return null;
  return el(
    "div",
    { class: "stack", "aria-hidden": "true" },
    parts.map(([, value], i) => el("i", { class: `part-${i}`, vars: { v: (value ?? 0) / total } })),
  );
}

const partsList = (parts, format) =>
  el(
    "div",
    { class: "parts" },
    parts.map(([words, value], i) => {
      const key = el("i", { class: `sw part-${i}`, "aria-hidden": "true" });
      return el("span", {}, key, words, el("b", {}, format(value)));
    }),
  );

function costs(node) {
  const o = node.overhead;
  if (!o) return [["Cost", node.last_seen ? "unknown: its agent has measured nothing lately" : "Not measured yet"]];
  const { cpu_percent: cpu, user_percent_of_core: user } = node.budget;
  const of = (budget, unit) => budget != null && el("span", { class: "dim" }, ` of ${budget}${unit}`);
  const cpuParts = fleet.cpuParts(o);
  const memoryParts = fleet.memoryParts(o);
  const calibration =
    o.interrupt_ns != null &&
    `One interrupt ${micros(o.interrupt_ns)} µs ± ${micros(o.interrupt_spread_ns)}, calibrated`;
  return [
    [
      "CPU of host",
      el("b", {}, ofHost(o.cpu_percent)),
      of(cpu == null ? null : cost(cpu), " %"),
      partsBar(cpuParts),
      partsList(cpuParts, ofHost),
    ],
    ["User space", el("b", {}, ofHost(o.user_percent_of_core)), of(user, " % of one core")],
    [
      "Memory",
      el("b", {}, bytes(o.memory_bytes)),
      of(fleet.MEMORY_BUDGET_BYTES >> 20, " MB"),
      memoryParts.length > 1 && partsList(memoryParts, bytes),
    ],
    o.event_latency_us != null && [
      "Delay a sample",
      el("b", {}, `${o.event_latency_us.toFixed(1)} µs`),
      calibration && el("div", { class: "dim" }, calibration),
    ],
  ];
}

const ago = (ms, nowMs) => duration(Math.max(0, Math.floor((nowMs - ms) / 1000)));

function learns({ facts: { learning } }) {
  if (!/^\d+$/.test(learning ?? "")) return null;
  const files = plural(Number(learning), "file");
  return ["Learning", `${files} of its programs still to be read, each once; until then it costs more`];
}

function facts(node, nowMs) {
  const rates = [
    node.asked_rate_hz != null && `asked ${node.asked_rate_hz} Hz`,
    node.rate_hz != null && (fleet.isPaused(node) ? "paused" : `allowed ${node.rate_hz} Hz`),
    node.effective_rate_hz != null && `effective ${node.effective_rate_hz} Hz`,
  ].filter(Boolean);
  const isHeard = node.state === "reporting" && !node.breaker;
  const lost = Object.entries(node.lost).map(
    ([reason, n]) => `${n.toLocaleString("en")} ${plain(reason).replaceAll("_", " ")}`,
  );
  const refused = Object.entries(node.refused)
    .sort(([, a], [, b]) => b.count - a.count)
    .map(([reason, { count, last_at }]) => {
      const last = ago(Date.parse(last_at), nowMs);
      return `${count.toLocaleString("en")} ${plain(reason).replaceAll("_", " ")} (last ${last} ago)`;
    });
  const nothingLost = isHeard && node.overhead ? "no samples" : "unknown";
  const since = Date.parse(node.shed_since);
  const shed = node.shed.length > 0 && [
    "Given up",
    el("b", {}, plain(node.shed.join(", "))),
    !Number.isNaN(since) && [" since ", timeOf(since, nowMs), ` (${ago(since, nowMs)})`],
  ];
  const about = [node.agent_version && `agent ${node.agent_version}`, node.facts.kernel, node.facts.preset];
  const nothingShed = isHeard ? "nothing" : "unknown";
  return [
    node.breaker
      ? ["Detached", el("b", {}, plain(node.breaker)), el("div", { class: "dim" }, "It samples nothing.")]
      : shed || ["Given up", nothingShed],
    node.alerts.length > 0 && ["Alerts", node.alerts.map((alert) => alertLine(alert, nowMs))],
    learns(node),
    node.breaker ? ["Rate", "none"] : rates.length > 0 && ["Rate", rates.join(" · ")],
    ["Lost, last minute", lost.length ? lost.join(" · ") : nothingLost],
    refused.length > 0 && ["Refused by the centre", refused.join(" · ")],
    ["Lost ever", node.last_seen ? lostEver(node) : "unknown"],
    ["Clock", fleet.clockWords(node) ?? "unknown"],
    ["Host", plain(about.filter(Boolean).join(" · ")) || "has not reported yet"],
  ];
}

const lostEver = ({ lost_samples: samples, lost_batches: batches }) =>
  `${plural(samples, "sample")} · ${plural(batches, "batch", "batches")}`;

function alertLine(alert, nowMs) {
  const at = Date.parse(alert.started_at);
  return el("div", {}, el("b", {}, fleet.alertWords(alert)), " since ", timeOf(at, nowMs), ` (${ago(at, nowMs)})`);
}

export function createDetail(name) {
  const list = el("dl", { class: "costs" });
  const events = createEvents(name);
  const profiles = createProfiles(name);
  const label = `${plain(name)}: cost, events and profiles`;
  const parts = [list, events.box, profiles.box];
  const box = el("div", { class: "host-detail", role: "group", "aria-label": label }, parts);
  return {
    box,
    show(node, nowMs) {
      const [shed, ...rest] = facts(node, nowMs);
      const lines = [shed, ...costs(node), ...rest];
      list.replaceChildren(
        ...lines.filter(Boolean).flatMap(([term, ...what]) => [el("dt", {}, term), el("dd", {}, what)]),
      );
      events.refresh(nowMs);
      profiles.refresh(node, nowMs);
    },
    stop() {
      events.stop();
      profiles.stop();
    },
  };
}
