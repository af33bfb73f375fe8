// CPU over a wider time than the chosen one, with the chosen range as a brush that can be dragged.

import { serverNow } from "../api.js";
import { el, setVars } from "../dom.js";
import { clock, cores } from "../format.js";
import { absoluteRange, ticks } from "../range.js";

const W = 1000;
const H = 100;
const SMALLEST_MS = 10_000;
const TICK_PX = 150;
const NOW_PX = 60; // the end of the axis belongs to "now"

// A round number at or above v, so that the scale doesn't change with every refresh.
function roundUp(v) {
  if (!(v > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(v));
  return [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((k) => k * size).find((k) => k >= v);
}

// Runs of steps with data: [{from, until}], indexes, until excluded. Zero is idle, null a gap.
export function runsOf(values) {
  const runs = [];
  values.forEach((v, k) => {
    if (v == null) return;
    if (runs.at(-1)?.until === k) runs.at(-1).until++;
    else runs.push({ from: k, until: k + 1 });
  });
  return runs;
}

// onRange(range) when a range has been chosen here; endsNow: its end follows now
export function createTimeline(box, { onRange }) {
  const area = el("path", { class: "tl-area" });
  const line = el("path", { class: "tl-line" });
  const svg = el(
    "svg",
    { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    area,
    line,
  );
  const top = el("span", { class: "tl-max" });
  const failure = el("p", { class: "tl-failure", role: "status", hidden: true });
  const handles = ["start", "end"].map((side) =>
    el("span", {
      ...{ class: `handle ${side}`, role: "slider", tabindex: 0 },
      ...{ "aria-label": `Range ${side}`, "aria-valuemin": 0, "aria-valuemax": 100 },
      onkeydown: (event) => nudge(event, side),
    }),
  );
  const brush = el("div", { class: "tl-brush", hidden: true }, handles);
  const plot = el("div", { class: "tl-plot" }, svg, top, failure, brush);
  const axis = el("div", { class: "tl-axis", "aria-hidden": "true" });
  box.append(plot, axis);

  let context = { from: 0, until: 1 };
  let chosen = { from: 0, until: 1 };
  let drag = null;
  let settle = 0;

  const fraction = (ms) => (ms - context.from) / (context.until - context.from);
  const timeAt = (event) => {
    const rect = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - rect.left) / rect.width));
    return context.from + share * (context.until - context.from);
  };

  function placeBrush() {
    const from = Math.max(0, fraction(chosen.from));
    const until = Math.min(1, fraction(chosen.until));
    brush.hidden = until <= 0 || from >= 1;
    setVars(brush, { x: 100 * from + "%", w: 100 * Math.max(0, until - from) + "%" });
    handles[0].setAttribute("aria-valuenow", Math.round(100 * from));
    handles[1].setAttribute("aria-valuenow", Math.round(100 * until));
    handles[0].setAttribute("aria-valuetext", clock(chosen.from, { spanMs: 0 }));
    handles[1].setAttribute("aria-valuetext", clock(chosen.until, { spanMs: 0 }));
  }

  function choose() {
    const end = context.until - chosen.until < (context.until - context.from) / 200;
    const seconds = Math.round((chosen.until - chosen.from) / 1000);
    if (end && context.endsNow) onRange({ from: `now-${seconds}s`, until: "now" });
    else onRange(absoluteRange(chosen.from, chosen.until));
  }

  function between(a, b) {
    let [from, until] = [Math.min(a, b), Math.max(a, b)];
    if (until - from < SMALLEST_MS) until = Math.min(context.until, from + SMALLEST_MS);
    if (until - from < SMALLEST_MS) from = until - SMALLEST_MS;
    chosen = { from, until };
    placeBrush();
  }

  plot.addEventListener("pointerdown", (event) => {
    const side = event.target.closest?.(".handle")?.classList;
    const fixed = side ? (side.contains("start") ? chosen.until : chosen.from) : timeAt(event);
    drag = { fixed, x: event.clientX, moved: false, handle: Boolean(side) };
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!drag || (!drag.moved && Math.abs(event.clientX - drag.x) < 4)) return;
    drag.moved = true;
    between(drag.fixed, timeAt(event));
  });
  plot.addEventListener("pointerup", (event) => {
    if (!drag) return;
    if (!drag.moved && !drag.handle) {
      const half = (chosen.until - chosen.from) / 2; // a click moves the range there
      const middle = Math.max(context.from + half, Math.min(context.until - half, timeAt(event)));
      between(middle - half, middle + half);
    }
    const use = drag.moved || !drag.handle;
    drag = null;
    if (use) choose();
  });
  plot.addEventListener("pointercancel", () => (drag = null));

  function nudge(event, side) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    event.stopPropagation();
    const by = (direction * (context.until - context.from)) / 100;
    const inside = (ms) => Math.min(context.until, Math.max(context.from, ms));
    if (side === "start") between(Math.min(inside(chosen.from + by), chosen.until - 1), chosen.until);
    else between(chosen.from, Math.max(inside(chosen.until + by), chosen.from + 1));
    clearTimeout(settle);
    settle = setTimeout(choose, 400);
  }

  // answer: {from, until, step_s, cores}. Where no host was observed there are none: a gap, no zero.
  function setData(answer) {
    const values = answer.cores;
    failure.hidden = true;
    const from = Date.parse(answer.from);
    const max = roundUp(Math.max(...values, 0) * 1.05);
    const x = (k) => (W * fraction(from + k * answer.step_s * 1000)).toFixed(1);
    const y = (v) => (H - (v / max) * H).toFixed(1);
    const runs = runsOf(values);
    const stairs = ({ from: first, until }) =>
      values
        .slice(first, until)
        .map((v, k) => `V${y(v)}H${x(first + k + 1)}`)
        .join("");
    area.setAttribute("d", runs.map((run) => `M${x(run.from)},${H}${stairs(run)}V${H}Z`).join(""));
    line.setAttribute(
      "d",
      runs.map((run) => `M${x(run.from)},${y(values[run.from])}${stairs(run)}`).join(""),
    );
    top.textContent = `${cores(max).replace(/\.?0+$/, "")} ${max === 1 ? "core" : "cores"}`;
  }

  function setContext(nextContext, nextChosen) {
    if (drag) return;
    context = nextContext;
    chosen = nextChosen;
    placeBrush();
    const span = context.until - context.from;
    const day = context.from < serverNow() - 8.64e7;
    const room = NOW_PX / Math.max(1, box.clientWidth);
    const times = ticks(context.from, context.until, Math.max(2, box.clientWidth / TICK_PX));
    const end = context.endsNow ? 1 - room : 1 - room / 3;
    const shown = times.filter((ms) => fraction(ms) > room / 3 && fraction(ms) < end);
    const options = { spanMs: Math.max(span, 6e5), day };
    axis.replaceChildren(
      ...shown.map((ms) => el("span", { vars: { x: 100 * fraction(ms) + "%" } }, clock(ms, options))),
      context.endsNow ? el("span", { class: "now" }, "now") : "",
    );
  }

  // No curve is better than one of another question or of before.
  function fail(words, { context: nextContext, chosen: nextChosen }) {
    setContext(nextContext, nextChosen);
    for (const path of [area, line]) path.removeAttribute("d");
    top.textContent = "";
    failure.textContent = words;
    failure.hidden = false;
  }

  return { setData, setContext, fail, dragging: () => drag !== null };
}
