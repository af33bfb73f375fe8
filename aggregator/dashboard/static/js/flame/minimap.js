// The whole graph in small, with the shown window; drag chooses another window, a click centres it.

import { setVars } from "../dom.js";

const MIN_DEPTH = 8;
const WORTH_SHOWING = 0.02; // levels with less of the CPU than this are left out below
const CLICK = 0.005;

export function createMinimap(graph, box) {
  const canvas = box.querySelector("canvas");
  const shown = box.querySelector(".win");

  function depthWorthShowing(m) {
    for (let level = MIN_DEPTH; level < m.depth; level++) {
      let weight = 0;
      for (let i = m.start[level]; i < m.start[level + 1]; i++) weight += m.total[i];
      if (weight < m.sum * WORTH_SHOWING) return level;
    }
    return m.depth;
  }

  function draw() {
    const { m, palette, hit } = graph;
    if (!m?.n || !palette) return;
    const ratio = devicePixelRatio || 1;
    const width = box.clientWidth;
    const height = box.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    const depth = depthWorthShowing(m);
    const row = height / depth;
    const scale = width / m.sum;
    for (let i = 0; i < m.start[depth]; i++) {
      const w = m.total[i] * scale;
      if (w < 0.35) continue;
      const faded = hit !== null && !hit[m.fn[i]];
      g.fillStyle = (faded ? palette.pale : palette.colours)[palette.index[m.fn[i]]];
      const y = graph.icicle ? m.level[i] * row : height - (m.level[i] + 1) * row;
      g.fillRect(m.x[i] * scale, y, w, Math.max(row, 1));
    }
  }

  function moveWindow() {
    const { m, v0, v1 } = graph;
    if (!m?.sum) return;
    const left = (100 * v0) / m.sum;
    const width = Math.max((100 * (v1 - v0)) / m.sum, 0.4);
    setVars(shown, { x: left + "%", w: width + "%" });
    shown.hidden = width > 99.9;
  }

  const at = (event) => {
    const rect = box.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - rect.left) / rect.width));
  };
  let from = null;
  box.addEventListener("pointerdown", (event) => {
    from = at(event);
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointerup", (event) => {
    if (from === null || !graph.m?.sum) return;
    let [low, high] = [from, at(event)].sort((a, b) => a - b);
    from = null;
    if (high - low < CLICK) {
      const half = (graph.v1 - graph.v0) / graph.m.sum / 2;
      low = Math.min(Math.max(0, low - half), 1 - 2 * half);
      high = low + 2 * half;
    }
    graph.showWindow(low * graph.m.sum, high * graph.m.sum);
  });
  box.addEventListener("pointercancel", () => (from = null));

  graph.addEventListener("draw", moveWindow);
  graph.addEventListener("hit", draw);
  new ResizeObserver(draw).observe(box);
  return { draw };
}
