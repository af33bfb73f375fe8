// The columnar answer of /api/v1/flamegraph, made ready to draw: positions, level index, labels. No
// DOM here. Weights are CPU nanoseconds; a frame is its index in breadth-first order. What functions
// used comes from the server, which has every frame; the drawn ones are the heaviest.

import { percent, plain, plural } from "./format.js";

export const KINDS = ["process", "kernel", "native", "python", "go", "jit", "unknown", "other"];
export const OTHER = KINDS.indexOf("other"); // what was folded to keep the answer small: no function
const PROCESS = KINDS.indexOf("process");

export class AnswerError extends Error {}

const ROOT_PATH = 1n;
const FACTOR = 0x9e3779b97f4a7n;
const BITS = 52;

// A path keeps its number between answers although frame indexes change: aggregator/flamegraph/identity.py
function extendPath(path, functionId) {
  const mixed = BigInt.asUintN(BITS, (path ^ functionId) * FACTOR);
  return mixed ^ (mixed >> 26n);
}

function kindOf(kind) {
  const known = KINDS.indexOf(kind);
  return known < 0 ? KINDS.indexOf("unknown") : known;
}

export function decode(answer) {
  if (answer?.version !== 2) {
    throw new AnswerError("This page is older than the server. Reload it.");
  }
  const { strings, functions, nodes } = answer;
  const level = Uint16Array.from(nodes.level);
  const n = level.length;
  const depth = n ? level[n - 1] + 1 : 0;
  const start = new Uint32Array(depth + 1); // frames of level l: start[l] … start[l + 1] - 1
  for (let i = 0; i < n; i++) start[level[i] + 1] = i + 1;

  const fn = Uint32Array.from(nodes.function);
  const parent = Int32Array.from(nodes.parent);
  const total = Float64Array.from(nodes.total);
  const self = Float64Array.from(nodes.self);
  const bigIds = functions.id.map(BigInt);
  const paths = new Array(n);
  const x = new Float64Array(n);
  const filled = new Float64Array(n); // how much of a frame its earlier children cover
  const drawn = new Uint32Array(functions.id.length); // frames of each function
  for (let i = 0; i < n; i++) {
    const p = parent[i];
    drawn[fn[i]]++;
    paths[i] = p < 0 ? ROOT_PATH : extendPath(paths[p], bigIds[fn[i]]);
    if (p < 0) continue;
    x[i] = x[p] + filled[p];
    filled[p] += total[i];
  }
  const named = describe(answer);
  const millionths = (column) => Float64Array.from(column, (v) => v / 1e6);
  return {
    ...{ n, depth, start, level, parent, fn, total, self, x, drawn, ...named },
    pathHash: Float64Array.from(paths, Number),
    low: millionths(nodes.low),
    high: millionths(nodes.high),
    sum: n ? total[0] : 0,
    otherNs: answer.other_ns,
    functionsFound: answer.functions_found,
    kindShares: answer.kind_shares,
    fnSelf: functions.self,
    fnTotal: functions.total,
    fnPlaces: functions.places,
    bounds: {
      fnSelf: [millionths(functions.self_low), millionths(functions.self_high)],
      fnTotal: [millionths(functions.total_low), millionths(functions.total_high)],
    },
    // "path:line" of a frame's heaviest line, empty where no debug information tells it.
    place: (i) => {
      if (!(nodes.file[i] >= 0)) return "";
      return strings[nodes.file[i]] + (nodes.line[i] ? `:${nodes.line[i]}` : "");
    },
  };
}

// The functions of an answer: names, modules, files, kinds; `groups` has the row that a function
// without a name belongs to, or -1; `apart` tells functions of one name apart, `labels` have both.
function describe({ strings, functions, kinds: kindNames }) {
  const text = (column) => column.map((i) => strings[i]);
  const [names, modules, files, builds] = ["name", "module", "file", "build"].map((c) => text(functions[c]));
  const kinds = functions.kind.map((i) => kindOf(kindNames[i]));
  const { id: ids, group: groups, members } = functions;
  const isRow = (f) => kinds[f] !== PROCESS && kinds[f] !== OTHER && groups[f] < 0;
  const apart = tellApart({ names, modules, files, builds, kinds, members });
  const labels = names.map((name, f) => {
    if (members[f]) return `${modules[f] || "?"}: ${plural(members[f], "address", "addresses")} without a name`;
    return apart[f] ? `${name} (${apart[f]})` : name;
  });
  return { names, modules, files, builds, kinds, ids, groups, members, apart, labels, isRow };
}

const baseName = (path) => path.slice(path.lastIndexOf("/") + 1);

function tellApart({ names, modules, files, builds, kinds, members }) {
  const alike = new Map();
  names.forEach((name, f) => {
    if (kinds[f] === PROCESS || kinds[f] === OTHER || members[f]) return;
    if (alike.has(name)) alike.get(name).push(f);
    else alike.set(name, [f]);
  });
  const apart = names.map(() => "");
  const several = (fs, column) => new Set(fs.map((f) => column[f])).size > 1;
  for (const fs of alike.values()) {
    if (fs.length < 2) continue;
    const shortFiles = files.map(baseName);
    const file = new Set(fs.map((f) => files[f])).size === new Set(fs.map((f) => shortFiles[f])).size;
    const build = fs.some((f) => fs.some((g) => g !== f && sameBut(f, g)));
    for (const f of fs) {
      const parts = [
        several(fs, modules) && modules[f],
        several(fs, files) && (file ? shortFiles[f] : files[f]),
        build && builds[f] && `build ${builds[f].slice(0, 8)}`,
      ];
      apart[f] = parts.filter(Boolean).join(", ");
    }
  }
  return apart;

  function sameBut(f, g) {
    return modules[f] === modules[g] && files[f] === files[g];
  }
}

// The row of the table of functions that a function is in.
export const rowOf = (m, f) => (m.groups[f] >= 0 ? m.groups[f] : f);

// What a frame is called where it is drawn.
export function labelOf(m, i) {
  const f = m.fn[i];
  return m.kinds[f] === OTHER ? `other, ${percent(m.total[i] / m.sum)} %: too small to draw` : plain(m.labels[f]);
}

export const isOther = (m, i) => m.kinds[m.fn[i]] === OTHER;

// Is there anything below a frame that is not drawn?
export function isFolded(m, i) {
  for (let j = m.start[m.level[i] + 1] ?? m.n; j < m.n; j++) {
    if (isOther(m, j) && m.x[j] >= m.x[i] && m.x[j] + m.total[j] <= m.x[i] + m.total[i]) return true;
  }
  return false;
}

// First frame of a level that ends after x.
export function firstAt(m, level, x) {
  let low = m.start[level];
  let high = m.start[level + 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (m.x[middle] + m.total[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function children(m, i) {
  const level = m.level[i] + 1;
  if (level >= m.depth) return [];
  const out = [];
  for (let j = firstAt(m, level, m.x[i]); j < m.start[level + 1]; j++) {
    if (m.parent[j] !== i) break;
    out.push(j);
  }
  return out;
}

export function heaviestChild(m, i) {
  let best = -1;
  for (const j of children(m, i)) if (best < 0 || m.total[j] > m.total[best]) best = j;
  return best;
}

// The neighbour by sight on the same level: step is 1 or -1.
export function sibling(m, i, step) {
  const j = i + step;
  const level = m.level[i];
  return j >= m.start[level] && j < m.start[level + 1] ? j : -1;
}

export function pathTo(m, i) {
  const out = [];
  for (; i >= 0; i = m.parent[i]) out.unshift(i);
  return out;
}

export function frameOfHash(m, hash) {
  return m.pathHash.indexOf(hash);
}

// The heaviest frame in a row of the table of functions, -1 where none is drawn.
export function heaviestFrameOf(m, row) {
  let best = -1;
  for (let i = 0; i < m.n; i++) {
    if (rowOf(m, m.fn[i]) === row && (best < 0 || m.total[i] > m.total[best])) best = i;
  }
  return best;
}
