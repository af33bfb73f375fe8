// What the fleet's answer means: states, budgets, parts of the cost. No DOM here.

import { bytes, cores, cost, duration, plural } from "./format.js";

export const MEMORY_BUDGET_BYTES = 50 * 2 ** 20;
export const CLOCK_OFF_S = 10; // beyond it an alert fires, too
const PAUSED = "sampling (paused)";
const STATES = {
  detached: { rank: 0, tone: "bad", word: "Detached" },
  offline: { rank: 1, tone: "bad", word: "Offline" },
  paused: { rank: 3, tone: "warn", word: "Paused" },
  reduced: { rank: 4, tone: "warn", word: "Reduced" },
  late: { rank: 5, tone: "warn", word: "Late" },
  over: { rank: 6, tone: "warn", word: "Over budget" },
  learning: { rank: 7, tone: "warn", word: "Learning" },
  clock: { rank: 8, tone: "warn", word: "Wrong clock" },
  reporting: { rank: 9, tone: "calm", word: "Reporting" },
  new: { rank: 10, tone: "", word: "Waiting" },
};
const ALERT_WORDS = {
  agent_overhead: "its agent costs too much",
  cloned_node: "two hosts use its name",
  clock_offset: "its clock is wrong",
  agent_paused: "sampling was paused",
  agent_limited: "its agent met a limit of its unit",
};

export const isPaused = (node) => node.shed.includes(PAUSED);
export const alertWords = ({ rule }) => ALERT_WORDS[rule] ?? rule;

// The centre's clock minus the node's, in seconds; null where it was not read.
const clockOffset = (node) => (node.clock_offset_ms == null ? null : node.clock_offset_ms / 1000);

// "12 s behind", "right", or null where it is not known.
export function clockWords(node) {
  const offset = clockOffset(node);
  if (offset === null) return null;
  if (Math.abs(offset) < 1) return "right";
  return `${duration(Math.abs(offset))} ${offset > 0 ? "behind" : "ahead"}`;
}

// What its agent costs beyond its budget: ["CPU"], ["user CPU", "memory"], …
export function overBudget({ overhead, budget }) {
  if (!overhead) return [];
  const isOver = (value, most) => value != null && most != null && value > most;
  return [
    isOver(overhead.cpu_percent, budget.cpu_percent) && "CPU",
    isOver(overhead.user_percent_of_core, budget.user_percent_of_core) && "user CPU",
    isOver(overhead.memory_bytes, MEMORY_BUDGET_BYTES) && "memory",
  ].filter(Boolean);
}

// What needs somebody on this host, or changes what its figures mean: names of STATES, worst first.
export function stateNames(node) {
  if (node.breaker) return ["detached"];
  if (node.state !== "reporting") return [node.state];
  const offset = clockOffset(node);
  const over = overBudget(node).length > 0;
  const names = [
    node.shed.length > 0 && (isPaused(node) ? "paused" : "reduced"),
    over && (node.facts.learning ? "learning" : "over"),
    offset !== null && Math.abs(offset) > CLOCK_OFF_S && "clock",
  ].filter(Boolean);
  return names.length ? names : ["reporting"];
}

// {rank, tone, word}: what a node's pill says. A firing alert is red, whatever the state.
export function stateOf(node) {
  const [name] = stateNames(node);
  const state = STATES[name] ?? { rank: 9, tone: "", word: node.state };
  if (!node.alerts.length || state.tone === "bad") return state;
  return { ...state, rank: Math.min(2, state.rank), tone: "bad" };
}

// How all hosts are: {tone: "ok" | "warn" | "bad" | "idle", reporting, words: ["1 detached", …]}
export function healthOf(nodes) {
  const counts = new Map();
  const count = (word, n = 1) => counts.set(word, (counts.get(word) ?? 0) + n);
  const byRank = [...nodes].sort((a, b) => stateOf(a).rank - stateOf(b).rank);
  for (const node of byRank) {
    for (const name of stateNames(node)) {
      if (name !== "reporting") count(STATES[name]?.word.toLowerCase() ?? name);
    }
  }
  const alerts = nodes.reduce((sum, n) => sum + n.alerts.length, 0);
  const words = [...counts].map(([word, n]) => `${n} ${word}`);
  if (alerts) words.unshift(plural(alerts, "alert"));
  const tones = nodes.map((n) => stateOf(n).tone);
  const rest = nodes.length && !words.length ? "ok" : nodes.length ? "warn" : "idle";
  const reporting = nodes.filter((n) => n.state === "reporting" && !n.breaker).length;
  return { tone: tones.includes("bad") ? "bad" : rest, reporting, words };
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

const listed = (parts, format) =>
  parts.map(([words, value]) => `${words} ${value == null ? "–" : format(value)}`).join("\n");
export const cpuWords = (overhead) => listed(cpuParts(overhead), (v) => `${cost(v)} % of the host`);
export const memoryWords = (overhead) => listed(memoryParts(overhead), bytes);

// "19 of 99 Hz", "Paused", "99 Hz"; null where a node has not told, or samples nothing.
export function rateWords(node) {
  if (node.rate_hz == null || node.breaker) return null;
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
export const learning = (nodes) => nodes.filter((node) => stateNames(node).includes("learning"));

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
