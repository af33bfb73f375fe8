// Label selectors by the API's own grammar (aggregator/profiles/selector.py): what it takes in a link,
// the page takes. {service="nginx", host=~"web-.*"}. No DOM here.

export const OPERATORS = ["=~", "!~", "!=", "="];
const WORDS = { "=": "is", "!=": "is not", "=~": "matches", "!~": "does not match" };
const SPACE = /[ \t\r\n]*/y;
const NAME = /[A-Za-z_][A-Za-z0-9_.:/-]*/y; // other names are written in quotes
const OPERATOR = /=~|!~|!=|=/y;
const QUOTED = /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`/suy;
const ESCAPE = /\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)/gsu;
const ESCAPES = { n: "\n", t: "\t", r: "\r", "\\": "\\", '"': '"', "'": "'" };

export class SelectorError extends Error {}

export const wordFor = (op) => WORDS[op];
export const opposite = (op) => ({ "=": "!=", "!=": "=", "=~": "!~", "!~": "=~" })[op];

export function print(matchers) {
  if (!matchers.length) return "";
  const quote = (v) => `"${v.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n")}"`;
  const name = (v) => (matchAt(NAME, v, 0) === v ? v : quote(v));
  return `{${matchers.map((m) => name(m.label) + m.op + quote(m.value)).join(", ")}}`;
}

// What a sticky expression finds at a place, or null.
function matchAt(expression, text, at) {
  expression.lastIndex = at;
  return expression.exec(text)?.[0] ?? null;
}

const skip = (text, at) => at + matchAt(SPACE, text, at).length;

function fail(text, at, expected) {
  const found = at < text.length ? `“${text.slice(at, at + 12)}”` : "the end";
  return new SelectorError(`The filter “${text}” can’t be read: expected ${expected} at ${found}`);
}

export function parse(text) {
  const matchers = [];
  let at = skip(text, 0);
  if (at === text.length) return matchers;
  if (text[at] !== "{") throw fail(text, at, "{");
  at = skip(text, at + 1);
  while (text[at] !== "}") {
    const [matcher, end] = parseMatcher(text, at);
    matchers.push(matcher);
    at = skip(text, end);
    if (text[at] === ",") at = skip(text, at + 1);
    else if (text[at] !== "}") throw fail(text, at, "a comma or }");
  }
  at = skip(text, at + 1);
  if (at < text.length) throw fail(text, at, "nothing more");
  return matchers;
}

function parseMatcher(text, at) {
  let label = matchAt(NAME, text, at);
  if (label === null) [label, at] = parseQuoted(text, at, "a label name");
  else at += label.length;
  at = skip(text, at);
  const op = matchAt(OPERATOR, text, at);
  if (op === null) throw fail(text, at, "=, !=, =~ or !~");
  const [value, end] = parseQuoted(text, skip(text, at + op.length), "a quoted value");
  return [{ label, op, value }, end];
}

function parseQuoted(text, at, expected) {
  const quoted = matchAt(QUOTED, text, at);
  if (quoted === null) throw fail(text, at, expected);
  const body = quoted.slice(1, -1);
  const end = at + quoted.length;
  if (quoted[0] === "`") return [body, end];
  const value = body.replace(ESCAPE, (_, code) => {
    if (code.length > 1 && /^[xu]/.test(code)) return String.fromCharCode(parseInt(code.slice(1), 16));
    if (!(code in ESCAPES)) throw fail(text, at, "a known escape (a backslash is \\\\)");
    return ESCAPES[code];
  });
  return [value, end];
}

// What has been typed so far into the filter field: {label, op, value}, the later ones "" if missing,
// and whether it is all that a filter needs: a value, or an empty one in quotes.
export function parseTyped(text) {
  const typed = text.trim();
  const label = matchAt(NAME, typed, 0) ?? "";
  const at = skip(typed, label.length);
  const op = label && matchAt(OPERATOR, typed, at);
  if (!op) return { label: typed, op: "", value: "", isWhole: false };
  const rest = typed.slice(skip(typed, at + op.length));
  if (matchAt(QUOTED, rest, 0) === rest) {
    try {
      return { label, op, value: parseQuoted(rest, 0, "a value")[0], isWhole: true };
    } catch {
      // no known escape: taken as it stands
    }
  }
  return { label, op, value: rest.replace(/^["'`]/, ""), isWhole: rest !== "" };
}
