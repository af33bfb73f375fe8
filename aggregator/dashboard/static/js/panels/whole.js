// How many stacks are whole, at the end of the coverage line; behind it how the others ended.

import { $, el } from "../dom.js";
import { percent, plural } from "../format.js";

const WORDS = {
  complete: ["Whole", "Walked to where the thread begins."],
  truncated: ["Truncated", "Deeper than 127 frames: the outermost are missing."],
  no_mapping: ["No mapping", "The agent did not know the process or its code yet, as when it just started."],
  no_rows: ["No rows", "The file has no unwind tables, or they are still being read."],
  no_room: ["No room", "Busier processes took the agent’s room for unwind tables: raise its unwind_limit_bytes."],
  unsupported_rule: ["Unsupported rule", "The unwind tables ask for something that the agent cannot do."],
  read_fault: ["Read fault", "The stack’s memory could not be read."],
  other: ["Other", "A reason that this aggregator has no words for: its agent is newer."],
};

// Of Python programs: how the Python part of their stacks ended.
const PYTHON_WORDS = {
  complete: ["Python: whole", "Read to the thread’s first Python frame."],
  truncated: ["Python: truncated", "Deeper than 192 frames: the outermost are missing."],
  no_thread_state: ["Python: no thread state", "The interpreter’s own record of the thread was not found."],
  read_fault: ["Python: read fault", "The interpreter’s memory could not be read."],
  off: ["Python: off", "The agent left Python frames out for a while, to stay in its budget."],
  other: ["Python: other", WORDS.other[1]],
};

// Whole ones first, then the commonest reason: [{name, meaning, samples, share}]. Pure.
export function endsOf(samplesByReason, words = WORDS) {
  const total = Object.values(samplesByReason).reduce((a, b) => a + b, 0);
  const rank = ([reason, samples]) => (reason === "complete" ? Infinity : samples);
  return Object.entries({ complete: 0, ...samplesByReason })
    .sort((a, b) => rank(b) - rank(a))
    .map(([reason, samples]) => {
      const [name, meaning] = words[reason] ?? [reason, ""];
      return { name, meaning, samples, share: total ? samples / total : 0 };
    });
}

const share = (end) => percent(end.share, 2) + " %";

export function showWhole(coverage) {
  if (coverage.complete_share == null) return clearWhole();
  const ends = endsOf(coverage.stack_ends);
  const [whole, ...broken] = ends;
  const button = $("#whole");
  $("b", button).textContent = share(whole);
  const reasons = broken.map((end) => `${end.name} ${share(end)}`).join("\n");
  button.title = reasons || "Every stack was walked to its end";
  button.hidden = false;
  const told = ends.reduce((sum, end) => sum + end.samples, 0);
  const samples = plural(told, "sample");
  const all = told === coverage.samples;
  $("#ends-of").textContent = all
    ? `Of ${samples}, by how the user part of the stack ended.`
    : `Of ${samples}, by how the user part of the stack ended. ` +
      `${plural(coverage.samples - told, "more sample")} ran in the kernel alone, or came from agents ` +
      "that don’t tell.";
  const hasPython = coverage.python_complete_share != null;
  const python = hasPython ? endsOf(coverage.python_ends, PYTHON_WORDS) : [];
  $("#ends-table tbody").replaceChildren(...ends.map(row), ...python.map(row));
}

export function clearWhole() {
  $("#whole").hidden = true;
  if ($("#ends").open) $("#ends").close();
}

function row(end) {
  return el(
    "tr",
    {},
    el("td", {}, end.name),
    el("td", { class: "num" }, share(end)),
    el("td", { class: "num" }, end.samples.toLocaleString("en")),
    el("td", { class: "dim meaning" }, end.meaning),
  );
}
