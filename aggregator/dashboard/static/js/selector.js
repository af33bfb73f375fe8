// Label selectors as the API reads them: {service="nginx", host=~"web-.*"}. No DOM here.

export const OPERATORS = ["=~", "!~", "!=", "="];
const WORDS = { "=": "is", "!=": "is not", "=~": "matches", "!~": "does not match" };
const NAME = /^[A-Za-z_][A-Za-z0-9_.:/-]*/; // other names are written in quotes
const QUOTED = /^"((?:[^"\\]|\\.)*)"/s;

export class SelectorError extends Error {}

export const wordFor = (op) => WORDS[op];
export const opposite = (op) => ({ "=": "!=", "!=": "=", "=~": "!~", "!~": "=~" })[op];

export function print(matchers) {
  if (!matchers.length) return "";
  const quote = (v) => `"${v.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n")}"`;
  const name = (v) => (NAME.exec(v)?.[0] === v ? v : quote(v));
  return `{${matchers.map((m) => name(m.label) + m.op + quote(m.value)).join(", ")}}`;
}

const ESCAPES = { n: "\n", t: "\t", r: "\r" };
const unescape = (text) => text.replace(/\\(.)/gs, (_, c) => ESCAPES[c] ?? c);

export function parse(text) {
  let rest = text.trim();
  if (!rest) return [];
  if (!rest.startsWith("{") || !rest.endsWith("}")) {
    throw new SelectorError(`A filter looks like {service="nginx"}, not ${text}`);
  }
  rest = rest.slice(1, -1).trim();
  const matchers = [];
  while (rest) {
    const bare = NAME.exec(rest) ?? QUOTED.exec(rest);
    if (!bare) throw new SelectorError(`A label name is missing before: ${rest}`);
    const label = bare[1] === undefined ? bare[0] : unescape(bare[1]);
    rest = rest.slice(bare[0].length).trimStart();
    const op = OPERATORS.find((o) => rest.startsWith(o));
    if (!op) throw new SelectorError(`One of = != =~ !~ must follow ${label}`);
    rest = rest.slice(op.length).trimStart();
    const quoted = QUOTED.exec(rest);
    if (!quoted) throw new SelectorError(`The value of ${label} must be in double quotes`);
    matchers.push({ label, op, value: unescape(quoted[1]) });
    rest = rest.slice(quoted[0].length).trimStart();
    if (rest && !rest.startsWith(",")) throw new SelectorError(`A comma is missing before: ${rest}`);
    rest = rest.slice(1).trimStart();
  }
  return matchers;
}

// What has been typed so far into the filter field: {label, op, value}, the later ones "" if missing.
export function parseTyped(text) {
  const typed = text.trimStart();
  const label = NAME.exec(typed)?.[0] ?? "";
  const rest = typed.slice(label.length).trimStart();
  const op = label && OPERATORS.find((o) => rest.startsWith(o));
  if (!op) return { label: typed.trim(), op: "", value: "" };
  return { label, op, value: rest.slice(op.length).trim().replace(/^"|"$/g, "") };
}
