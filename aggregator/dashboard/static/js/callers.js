// Who calls a function and whom it calls, over what is drawn. Recursion counts once. No DOM here.

import { OTHER, rowOf } from "./model.js";

// row: of the table of functions. → {callers, callees: [[row, weight]] heaviest first, untold: the
// weight of the function in frames that are too small to draw, whose callers are not known here}
export function neighbours(m, row) {
  const callers = new Map();
  const callees = new Map();
  const at = (i) => rowOf(m, m.fn[i]);
  const add = (map, g, weight) => map.set(g, (map.get(g) ?? 0) + weight);
  for (let i = 0; i < m.n; i++) {
    const p = m.parent[i];
    if (p < 0) continue;
    const [own, caller] = [at(i), at(p)];
    if (own === row && !above(m, p, (a) => at(a) === row)) add(callers, caller, m.total[i]);
    const isCall = (a) => at(a) === own && m.parent[a] >= 0 && at(m.parent[a]) === row;
    if (caller === row && !above(m, p, isCall)) add(callees, own, m.total[i]);
  }
  const told = [...callers.values()].reduce((a, b) => a + b, 0);
  const isRoot = m.n > 0 && at(0) === row;
  const sorted = (map) => [...map].sort((a, b) => b[1] - a[1]);
  const untold = isRoot || m.kinds[row] === OTHER ? 0 : Math.max(0, m.fnTotal[row] - told);
  return { callers: sorted(callers), callees: sorted(callees), untold };
}

// Does a frame, or one above it, fulfil the test?
function above(m, i, test) {
  for (; i >= 0; i = m.parent[i]) if (test(i)) return true;
  return false;
}
