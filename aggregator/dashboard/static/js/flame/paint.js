// Draws the visible frames of a level-ordered model onto a canvas. Stateless: everything comes in.

import { firstAt, labelOf } from "../model.js";

const MELT_PX = 0.9; // narrower frames melt into one run, or a wide graph would draw thousands of them
const LABEL_PX = 26;
const LABEL_PADDING = 5;

// One level: filled rectangles; returns the frames that have room for a label.
function paintLevel(g, scene, level, y, labels) {
  const { m, palette, hit, v0, v1, width, rowHeight } = scene;
  const scale = width / (v1 - v0);
  const above = level < m.level[scene.zoomed];
  const height = rowHeight - 1;
  let runFrom = -1;
  let runTo = -1;
  let runColour = "";
  const flush = () => {
    if (runFrom < 0) return;
    g.fillStyle = runColour;
    g.fillRect(runFrom, y, Math.max(runTo - runFrom, 0.5), height);
    runFrom = -1;
  };
  const end = m.start[level + 1];
  for (let i = firstAt(m, level, v0); i < end && m.x[i] < v1; i++) {
    const from = Math.max(0, (m.x[i] - v0) * scale);
    const to = Math.min(width, (m.x[i] + m.total[i] - v0) * scale);
    const faded = above || (hit !== null && !hit[m.fn[i]]);
    const colour = (faded ? palette.pale : palette.colours)[palette.index[m.fn[i]]];
    if (to - from < MELT_PX) {
      if (runFrom >= 0 && from - runTo > 1) flush();
      if (runFrom < 0) {
        runFrom = from;
        runColour = colour;
      }
      runTo = to;
      continue;
    }
    flush();
    g.fillStyle = colour;
    g.fillRect(from, y, to - from > 2 ? to - from - 1 : to - from, height);
    if (to - from > LABEL_PX) labels.push({ i, from, y, width: to - from, faded });
  }
  flush();
}

// scene: {m, palette, tokens, hit, fitter, v0, v1, width, height, rowHeight, zoomed, yOf(level)}
export function paint(g, scene) {
  const { m, tokens, fitter, rowHeight } = scene;
  g.fillStyle = tokens.surface;
  g.fillRect(0, 0, scene.width, scene.height);
  const labels = [];
  for (let level = 0; level < m.depth; level++) {
    const y = scene.yOf(level);
    if (y > -rowHeight && y < scene.height) paintLevel(g, scene, level, y, labels);
  }
  g.font = tokens.font;
  g.textBaseline = "middle";
  for (const { i, from, y, width, faded } of labels) {
    const text = fitter.fit(labelOf(m, i), width - 2 * LABEL_PADDING - 1);
    if (!text) continue;
    g.globalAlpha = faded ? 0.62 : 1;
    g.fillStyle = faded ? tokens.ink : tokens.frameInk;
    g.fillText(text, from + LABEL_PADDING, y + rowHeight / 2);
  }
  g.globalAlpha = 1;
}

export function outline(g, scene, i, colour, lineWidth) {
  const { m, v0, v1, width, rowHeight } = scene;
  const scale = width / (v1 - v0);
  const from = Math.max(0, (m.x[i] - v0) * scale);
  const to = Math.min(width, (m.x[i] + m.total[i] - v0) * scale);
  if (to <= from) return;
  g.strokeStyle = colour;
  g.lineWidth = lineWidth;
  const inset = lineWidth / 2;
  g.strokeRect(
    from + inset,
    scene.yOf(m.level[i]) + inset,
    Math.max(to - from - 1 - lineWidth, 1),
    rowHeight - 1 - lineWidth,
  );
}
