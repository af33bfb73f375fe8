// A place in the graph, kept over answers: a path of frames, root first, the root left out. Indexes
// change between answers, and names too: a frame reads "module+0xoffset" until its symbols have come.
// No DOM here.

import { children, pathTo } from "./model.js";

const hashOf = (m, i) => m.ids[m.fn[i]];
const moduleOf = (m, i) => m.modules[m.fn[i]];
const isUnnamed = (m, i) => m.builds[m.fn[i]] !== "";
const hashesIn = (m, i) => new Set(children(m, i).map((j) => hashOf(m, j)));

export function placeOf(m, i) {
  return pathTo(m, i)
    .slice(1)
    .map((j) => ({
      path: m.pathHash[j],
      hash: hashOf(m, j),
      module: moduleOf(m, j),
      total: m.total[j],
      unnamed: isUnnamed(m, j),
      beside: hashesIn(m, m.parent[j]),
      calls: hashesIn(m, j),
    }));
}

// The deepest frame of a place that this answer still has, and the place by its names of today. A
// place that is gone in part is kept as it was, since it may come back.
export function follow(m, place) {
  const { frame, missing } = descend(m, 0, place);
  return { frame, place: missing ? place : placeOf(m, frame) };
}

function descend(m, at, [step, ...rest]) {
  if (!step) return { frame: at, missing: 0 };
  const here = { frame: at, missing: rest.length + 1 };
  const inside = children(m, at);
  const same = inside.find((i) => hashOf(m, i) === step.hash);
  if (same !== undefined) return descend(m, same, rest);
  if (!step.unnamed) return here;
  const named = inside.filter((i) => moduleOf(m, i) === step.module && !isUnnamed(m, i));
  if (!rest.length) {
    const frame = renamed(m, named, step);
    return frame < 0 ? here : { frame, missing: 0 };
  }
  // Which one it is tells the rest of the place: at least one more frame must be found.
  const found = named.map((i) => descend(m, i, rest)).filter(({ missing }) => missing < rest.length);
  return found.sort((a, b) => a.missing - b.missing)[0] ?? here;
}

// Which of these an unnamed frame is called now, or -1 where that can't be told: one that was not
// there before and is not much smaller; of several the one that calls what it called.
function renamed(m, named, { total, beside, calls }) {
  const fits = named.filter((i) => !beside.has(hashOf(m, i)) && m.total[i] >= total / 2);
  const alike = fits.filter((i) => children(m, i).some((j) => calls.has(hashOf(m, j))));
  const left = alike.length ? alike : fits;
  return left.length === 1 ? left[0] : -1;
}
