// Search over function names: plain text (any case) or /regex/. No DOM here.

import { OTHER } from "./model.js";

export function parseQuery(query) {
  const regex = /^\/(.+)\/$/.exec(query);
  if (regex) {
    const compiled = new RegExp(regex[1], "i"); // throws SyntaxError: the caller says so
    return (name) => compiled.test(name);
  }
  const text = query.toLowerCase();
  return (name) => name.toLowerCase().includes(text);
}

// → null for no query, {error} for a bad regex, else
// {hit: one byte a function, share: of all CPU under a drawn match (nested matches once), atLeast: there
// may be more among what is not drawn, frames, functions: rows of their table}
export function match(m, query) {
  if (!query) return null;
  let test;
  try {
    test = parseQuery(query);
  } catch (error) {
    return { error: error.message };
  }
  const hit = Uint8Array.from(m.names, (name, f) => (m.kinds[f] !== OTHER && test(name) ? 1 : 0));
  // A row of addresses matches by its module, and where one of its addresses does.
  m.groups.forEach((row, f) => {
    if (m.members[f]) hit[f] = test(m.labels[f]) ? 1 : 0;
    if (row >= 0 && test(m.labels[row])) hit[f] = 1;
  });
  m.groups.forEach((row, f) => {
    if (row >= 0 && hit[f]) hit[row] = 1;
  });
  return { hit, ...matched(m, hit) };
}

function matched(m, hit) {
  const under = new Uint8Array(m.n);
  let frames = 0;
  let weight = 0;
  for (let i = 0; i < m.n; i++) {
    const p = m.parent[i];
    const inside = p >= 0 && under[p];
    if (hit[m.fn[i]]) {
      frames++;
      if (!inside) weight += m.total[i];
    }
    under[i] = inside || hit[m.fn[i]] ? 1 : 0;
  }
  const functions = hit.reduce((sum, h, f) => sum + (h && m.isRow(f) ? 1 : 0), 0);
  return { share: m.sum ? weight / m.sum : 0, atLeast: m.otherNs > 0, frames, functions };
}

// Next (step 1) or previous (-1) matching frame in drawing order, wrapping round; -1 if none is
// wide enough to be seen (a two-thousandth of the whole).
export function nextMatch(m, hit, from, step) {
  for (let k = 1; k <= m.n; k++) {
    const i = (from + step * k + m.n * 2) % m.n;
    if (hit[m.fn[i]] && m.total[i] > m.sum / 2000) return i;
  }
  return -1;
}
