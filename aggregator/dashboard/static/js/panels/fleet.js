// The list of hosts: what profiling costs on each, beside its budget; a row opens to its details.

import { $, el } from "../dom.js";
import * as fleet from "../fleet.js";
import { bytes, cost, duration, plain, plural } from "../format.js";
import { createDetail } from "./host.js";
import { ageOf } from "./hosts.js";

const HEADS = ["Host", "State", "Rate", "CPU of host", "Memory", "Lost", "Last seen", "Agent"];
const TICK = 75; // where a gauge has its budget, percent of its width

const gaugeOf = (value, budget) => {
  const found = fleet.gauge(value, budget);
  if (!found) return null;
  const width = Math.min(100, TICK * found.share);
  return el("span", { class: `gauge ${found.tone}`, vars: { v: `${width}%` }, "aria-hidden": "true" }, el("i"));
};

function cells(node, nowMs) {
  const o = node.overhead ?? {};
  const { tone, word } = fleet.stateOf(node);
  const age = Math.max(0, Math.floor(ageOf(node, nowMs)));
  const cell = (name, title, ...content) => el("td", { class: `num ${name}`, title }, ...content);
  const { cpu_percent: budget } = node.budget;
  const clock = fleet.clockWords(node);
  const isClockOff = clock !== null && clock !== "right";
  const over = budget != null && o.cpu_percent > budget;
  return [
    el(
      "td",
      { class: "c-state" },
      el("span", { class: `pill ${tone}`, title: node.breaker ?? node.shed.join("\n") }, word),
      node.alerts.map((alert) => el("div", { class: "alert" }, `Alert: ${fleet.alertWords(alert)}`)),
    ),
    cell("c-rate", null, fleet.rateWords(node) ?? "–"),
    cell(
      "c-cpu",
      node.overhead ? fleet.cpuWords(o) : null,
      gaugeOf(o.cpu_percent, budget),
      o.cpu_percent == null ? "–" : `${cost(o.cpu_percent)} %`,
      o.cpu_percent != null && budget != null && el("span", { class: "dim" }, ` of ${cost(budget)} %`),
      over && el("span", { class: "sr-only" }, ", over its budget"),
    ),
    cell(
      "opt",
      node.overhead ? fleet.memoryWords(o) : null,
      o.memory_bytes == null ? "–" : bytes(o.memory_bytes),
    ),
    cell(
      "opt c-lost",
      null,
      node.last_seen ? node.lost_samples.toLocaleString("en") : "–",
      node.lost_batches > 0 && el("div", { class: "warn" }, plural(node.lost_batches, "batch", "batches")),
    ),
    cell(
      "opt c-seen",
      null,
      node.last_seen ? `${duration(age)} ago` : "–",
      isClockOff && el("div", { class: "warn" }, `clock ${clock}`),
    ),
    el("td", { class: "dim opt" }, plain(node.agent_version ?? "")),
  ];
}

let made = 0; // rows, for ids

// One host: a body of a row and, opened, a second one below it.
function createRow(name, { onChoose }) {
  const id = `host-${++made}`;
  const detail = createDetail(name);
  const toggle = el("button", {
    class: "disclose",
    "aria-expanded": "false",
    "aria-controls": id,
    "aria-label": `Details of ${plain(name)}`,
  });
  const only = el(
    "button",
    { class: "link", title: "Show only this host", onclick: () => onChoose(name) },
    plain(name),
  );
  const head = el("td", { class: "c-host" }, el("span", { class: "fn" }, toggle, only));
  const row = el("tr", { class: "host" }, head);
  const content = el("td", { colspan: HEADS.length }, detail.box);
  const below = el("tr", { class: "detail", id, hidden: true }, content);
  const body = el("tbody", {}, row, below);
  let latest = null;

  function setOpen(open) {
    below.hidden = !open;
    toggle.setAttribute("aria-expanded", String(open));
    if (open) detail.show(latest.node, latest.nowMs);
    else detail.stop();
  }
  row.addEventListener("click", ({ target }) => {
    if (target.closest(".link")) return;
    setOpen(below.hidden);
  });

  return {
    body,
    toggle,
    update(node, nowMs) {
      latest = { node, nowMs };
      row.replaceChildren(head, ...cells(node, nowMs));
      if (!below.hidden) detail.show(node, nowMs);
    },
    stop: () => setOpen(false),
  };
}

// onChoose(name): show only this host. → {show(nodes, nowMs), problem(words or ""), stop()}
export function createFleet({ onChoose }) {
  const table = $("#hosts-table");
  const rows = new Map();
  const numeric = new Set(HEADS.slice(2, 7));
  const head = (text) => el("th", { scope: "col", class: numeric.has(text) ? "num" : null }, text);
  table.append(el("thead", {}, el("tr", {}, HEADS.map(head))));

  // ↑ and ↓ go from host to host: with many of them Tab is a long way.
  table.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const toggles = [...table.querySelectorAll(".disclose")];
    const at = toggles.indexOf(event.target);
    if (!step || at < 0) return;
    event.preventDefault();
    toggles[Math.min(Math.max(at + step, 0), toggles.length - 1)].focus();
  });

  return {
    show(nodes, nowMs) {
      $("#hosts-answer").textContent = plain(nodes.length ? fleet.answer(nodes) : "Hosts");
      $("#hosts-reduced").textContent = fleet.reducedWords(nodes);
      $("#hosts-none").hidden = nodes.length > 0 || $("#hosts-problem").textContent !== "";
      table.hidden = !nodes.length;
      for (const name of rows.keys()) {
        if (!nodes.some((n) => n.name === name)) {
          rows.get(name).stop();
          rows.get(name).body.remove();
          rows.delete(name);
        }
      }
      const focused = document.activeElement;
      fleet.worstFirst(nodes).forEach((node, place) => {
        if (!rows.has(node.name)) rows.set(node.name, createRow(node.name, { onChoose }));
        const row = rows.get(node.name);
        row.update(node, nowMs);
        if (table.tBodies[place] !== row.body) table.insertBefore(row.body, table.tBodies[place] ?? null);
      });
      if (table.contains(focused)) focused.focus(); // a row that moved has lost it
    },
    problem(words) {
      $("#hosts-problem").textContent = words;
    },
    stop() {
      for (const row of rows.values()) row.stop();
    },
  };
}
