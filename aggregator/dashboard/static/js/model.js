// The columnar answer of /api/v1/flamegraph, made ready to draw: positions, level index, sums a
// function. No DOM here. Weights are CPU nanoseconds; a frame is its index in breadth-first order.

export const KINDS = ["process", "kernel", "native", "python", "go", "jit", "unknown"];

export class AnswerError extends Error {}

// Two 32-bit multiplicative hashes (FNV-1a and a variant) joined to 52 bits, so that a path keeps
// its identity between answers although frame indexes change.
function hashText(seed, text) {
  let h = seed;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
  return h >>> 0;
}

function mixPath(parentHash, functionHash) {
  const high = Math.imul((parentHash / 2 ** 32) ^ (functionHash >>> 7), 2654435761) >>> 12;
  const low = Math.imul((parentHash >>> 0) ^ functionHash, 2246822519) >>> 0;
  return high * 2 ** 32 + ((low ^ (low >>> 15)) >>> 0);
}

// What was cut to keep the answer small is no function: neutral, and in no list of functions.
function kindOf(kind, name, module) {
  if (name === "(other)" && module === "") return KINDS.indexOf("process");
  const known = KINDS.indexOf(kind);
  return known < 0 ? KINDS.indexOf("unknown") : known;
}

export function decode(answer) {
  if (answer?.version !== 1) {
    throw new AnswerError("This page is older than the server. Reload it.");
  }
  const { strings, functions, nodes } = answer;
  const level = Uint16Array.from(nodes.level);
  const n = level.length;
  const depth = n ? level[n - 1] + 1 : 0;
  const start = new Uint32Array(depth + 1); // frames of level l: start[l] … start[l + 1] - 1
  for (let i = 0; i < n; i++) start[level[i] + 1] = i + 1;

  const names = functions.name.map((i) => strings[i]);
  const modules = functions.module.map((i) => strings[i]);
  const kinds = functions.kind.map((i, f) => kindOf(answer.kinds[i], names[f], modules[f]));
  const functionHash = names.map((name, i) => hashText(hashText(2166136261, modules[i]), name));

  const fn = Uint32Array.from(nodes.function);
  const parent = Int32Array.from(nodes.parent);
  const total = Float64Array.from(nodes.total);
  const self = Float64Array.from(nodes.self);
  const x = new Float64Array(n);
  const pathHash = new Float64Array(n);
  const filled = new Float64Array(n); // how much of a frame its earlier children cover
  if (n) {
    parent[0] = -1;
    pathHash[0] = 1;
  }
  for (let i = 1; i < n; i++) {
    const p = parent[i];
    x[i] = x[p] + filled[p];
    filled[p] += total[i];
    pathHash[i] = mixPath(pathHash[p], functionHash[fn[i]]);
  }
  const sums = sumFunctions({ n, fn, parent, total, self, count: names.length });
  const model = { n, depth, start, level, parent, fn, total, self, x, pathHash, functionHash };
  // "path:line" of a frame's heaviest line, empty where no debug information tells it.
  const place = (i) => {
    if (!(nodes.file?.[i] >= 0)) return "";
    return strings[nodes.file[i]] + (nodes.line[i] ? `:${nodes.line[i]}` : "");
  };
  return { ...model, ...sums, names, modules, kinds, place, sum: n ? total[0] : 0 };
}

// Self, total and number of places of each function; recursion counts once.
function sumFunctions({ n, fn, parent, total, self, count }) {
  const fnSelf = new Float64Array(count);
  const fnTotal = new Float64Array(count);
  const fnPlaces = new Uint32Array(count);
  for (let i = 0; i < n; i++) {
    const f = fn[i];
    fnSelf[f] += self[i];
    fnPlaces[f]++;
    let p = parent[i];
    while (p >= 0 && fn[p] !== f) p = parent[p];
    if (p < 0) fnTotal[f] += total[i];
  }
  return { fnSelf, fnTotal, fnPlaces };
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

export function heaviestFrameOf(m, f) {
  let best = -1;
  for (let i = 0; i < m.n; i++) if (m.fn[i] === f && (best < 0 || m.total[i] > m.total[best])) best = i;
  return best;
}

export function selfByKind(m) {
  const out = new Float64Array(KINDS.length);
  for (let f = 0; f < m.names.length; f++) out[m.kinds[f]] += m.fnSelf[f];
  return out;
}
