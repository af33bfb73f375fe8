// Who calls a function and whom it calls, over the whole graph. Recursion counts once. No DOM here.

// → {callers, callees: [[function, weight]] heaviest first}; callers add up to the function's total.
export function neighbours(m, f) {
  const callers = new Map();
  const callees = new Map();
  const add = (map, g, weight) => map.set(g, (map.get(g) ?? 0) + weight);
  for (let i = 0; i < m.n; i++) {
    const p = m.parent[i];
    if (p < 0) continue;
    if (m.fn[i] === f && !above(m, p, (a) => m.fn[a] === f)) add(callers, m.fn[p], m.total[i]);
    if (m.fn[p] === f && !above(m, p, (a) => isCall(m, a, f, m.fn[i]))) add(callees, m.fn[i], m.total[i]);
  }
  const sorted = (map) => [...map].sort((a, b) => b[1] - a[1]);
  return { callers: sorted(callers), callees: sorted(callees) };
}

const isCall = (m, i, caller, callee) =>
  m.fn[i] === callee && m.parent[i] >= 0 && m.fn[m.parent[i]] === caller;

// Does a frame, or one above it, fulfil the test?
function above(m, i, test) {
  for (; i >= 0; i = m.parent[i]) if (test(i)) return true;
  return false;
}
