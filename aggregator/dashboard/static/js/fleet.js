// What the fleet's answer means: states, budgets, parts of the cost. No DOM here.

import { bytes, cores, cost, plural } from "./format.js";

export const MEMORY_BUDGET_BYTES = 50 * 2 ** 20;
const PAUSED = "sampling (paused)";
const STATES = {
  offline: { rank: 0, tone: "bad", word: "Offline" },
  paused: { rank: 1, tone: "warn", word: "Paused" },
  reduced: { rank: 2, tone: "warn", word: "Reduced" },
  late: { rank: 3, tone: "warn", word: "Late" },
  reporting: { rank: 4, tone: "calm", word: "Reporting" },
  new: { rank: 5, tone: "", word: "Waiting" },
};

export const isPaused = (node) => node.shed.includes(PAUSED);

// {rank, tone, word}: what a node's pill says. Silence is more than a lower rate.
export function stateOf(node) {
  const name =
    node.state !== "reporting" || !node.shed.length ? node.state : isPaused(node) ? "paused" : "reduced";
  return STATES[name] ?? { rank: 4, tone: "", word: node.state };
}

// Those that need somebody first; otherwise by name, so that rows stay where they are.
export function worstFirst(nodes) {
  const names = new Intl.Collator("en", { numeric: true });
  return [...nodes].sort((a, b) => stateOf(a).rank - stateOf(b).rank || names.compare(a.name, b.name));
}

// What a part is of its budget: {share, tone}. Neutral below 85 %, as there is nothing to do then.
export function gauge(value, budget) {
  if (value == null || !budget) return null;
  const share = value / budget;
  return { share, tone: share > 1 ? "bad" : share > 0.85 ? "warn" : "" };
}

// The parts of the CPU of the host: [words, percent].
export const cpuParts = (overhead) => [
  ["User space", overhead.user_percent],
  ["BPF programs", overhead.kernel_percent],
  ["Interrupts", overhead.interrupt_percent],
];

export const memoryParts = (overhead) =>
  [
    ["Sampler", overhead.sampler_memory_bytes],
    ["Shipper", overhead.shipper_memory_bytes],
    ["BPF maps", overhead.map_bytes],
  ].filter(([, value]) => value != null);

const listed = (parts, format) => parts.map(([words, value]) => `${words} ${format(value)}`).join("\n");
export const cpuWords = (overhead) => listed(cpuParts(overhead), (v) => `${cost(v)} % of the host`);
export const memoryWords = (overhead) => listed(memoryParts(overhead), bytes);

// "19 of 99 Hz", "Paused", "99 Hz"; null where a node has not told.
export function rateWords(node) {
  if (node.rate_hz == null) return null;
  if (isPaused(node)) return "Paused";
  const reduced = node.asked_rate_hz != null && node.rate_hz < node.asked_rate_hz;
  return reduced ? `${node.rate_hz} of ${node.asked_rate_hz} Hz` : `${node.rate_hz} Hz`;
}

// What profiling costs the hosts that report, weighed by their CPUs: {hosts, cores, cpus, percent};
// null where none has measured itself yet.
export function costOf(nodes) {
  const hosts = nodes.filter((n) => n.state === "reporting" && n.overhead && n.online_cpus);
  if (!hosts.length) return null;
  const cpus = hosts.reduce((sum, n) => sum + n.online_cpus, 0);
  const used = hosts.reduce((sum, n) => sum + (n.online_cpus * n.overhead.cpu_percent) / 100, 0);
  return { hosts, cores: used, cpus, percent: (100 * used) / cpus };
}

// Hosts whose agent still reads their programs' files, each once, and costs more than its budget.
export const learning = (nodes) =>
  nodes.filter(({ state, facts, overhead, budget }) => {
    const isOver = overhead && budget.cpu_percent && overhead.cpu_percent > budget.cpu_percent;
    return state === "reporting" && facts.learning && isOver;
  });

// The heading of the list.
export function answer(nodes) {
  const all = costOf(nodes);
  if (!all) return "No host has told yet what profiling costs";
  const who = all.hosts.length === 1 ? all.hosts[0].name : plural(all.hosts.length, "host");
  return `Profiling costs ${cost(all.percent)} % of ${who} = ${cores(all.cores)} of ${plural(all.cpus, "core")}`;
}

// One sentence on those that do less; empty where none does.
export function reducedWords(nodes) {
  const n = nodes.filter((node) => node.state === "reporting" && node.shed.length).length;
  if (!n) return "";
  return n === 1
    ? "1 host does less to stay inside its budget: its shares are still correct, its intervals wider."
    : `${n} hosts do less to stay inside their budget: their shares are still correct, their intervals wider.`;
}
