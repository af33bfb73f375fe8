// The top functions: the graph's readable twin. Sorted by self or total, filtered by the search.

import { $, el, setVars, swatch } from "../dom.js";
import { plain, plural } from "../format.js";
import { KINDS } from "../model.js";
import { functionShare } from "./details.js";

const MOST_ROWS = 150;
const NOTE =
  "± is the 95 % interval from sampling: these hosts and minutes. Other minutes and other hosts differ by more.";

// Rows are functions; addresses without a name are one row a module. onPick(row), onCallers(row)
const titleOf = (m, f) => [m.names[f], m.files[f], m.modules[f]].filter(Boolean).map(plain).join("\n");

// The name, and what tells it from others of that name.
function nameOf(m, f) {
  if (m.members[f]) return el("span", {}, plain(m.labels[f]));
  const apart = m.apart[f] && el("small", { class: "dim" }, ` ${plain(m.apart[f])}`);
  return [el("span", {}, plain(m.names[f])), apart];
}

export function createFunctions(box, { onPick, onCallers }) {
  let sort = "fnSelf";
  let context = null;
  let hit = null;
  let marked = -1;
  let picked = -1; // the row that alone is not dimmed
  let rows = new Map();

  function render() {
    const { m } = context;
    const functions = m.names.map((_, f) => f).filter((f) => m.isRow(f) && m.fnPlaces[f]);
    const matching = hit ? functions.filter((f) => hit[f]) : functions;
    const shown = matching.sort((a, b) => m[sort][b] - m[sort][a]).slice(0, MOST_ROWS);
    const widest = { fnSelf: 0, fnTotal: 0 };
    for (const f of shown) {
      for (const key of Object.keys(widest)) widest[key] = Math.max(widest[key], m[key][f]);
    }
    const focused = focusedKey();
    rows = new Map(shown.map((f, n) => [f, row(f, n === 0, widest)]));
    box.replaceChildren(
      table([...rows.values()]),
      el("p", { class: "foot" }, shown.length ? NOTE : "No function matches."),
    );
    const all = plural(m.functionsFound, "function");
    const note = $("#function-count");
    note.textContent = hit ? `${matching.length.toLocaleString("en")} of ${all}` : all;
    const left = m.functionsFound - functions.length;
    note.title = left > 0 ? `The ${plural(left, "smallest one")} can’t be searched here` : "";
    mark(marked);
    if (focused) [...rows.values()].find((tr) => tr.dataset.key === focused)?.focus();
  }

  // A refresh must not take the keyboard's place away.
  const focusedKey = () => (box.contains(document.activeElement) ? document.activeElement.dataset.key : "");

  function table(body) {
    const head = (text, key) =>
      el(
        "th",
        { class: "num", "aria-sort": sort === key ? "descending" : null },
        el("button", { onclick: () => sortBy(key) }, text),
      );
    return el(
      "table",
      { "aria-label": "Functions by CPU" },
      el(
        "thead",
        {},
        el("tr", {}, el("th", {}, "Function"), head("Self", "fnSelf"), head("Total", "fnTotal")),
      ),
      el("tbody", {}, body),
    );
  }

  function row(f, first, widest) {
    const { m } = context;
    const cell = (key) => {
      const td = el("td", { class: "num bar" }, functionShare(m, key, f));
      setVars(td, { v: (widest[key] ? (100 * m[key][f]) / widest[key] : 0) + "%" });
      return td;
    };
    return el(
      "tr",
      {
        ...{ class: "row", tabindex: first ? 0 : -1, "data-key": m.ids[f] },
        ...{ title: titleOf(m, f), onclick: () => onPick(f) },
        onkeydown: (event) => key(event, f),
      },
      el("td", {}, el("div", { class: "fn" }, swatch(KINDS[m.kinds[f]]), nameOf(m, f))),
      cell("fnSelf"),
      cell("fnTotal"),
    );
  }

  function key(event, f) {
    const to = { ArrowDown: event.currentTarget.nextSibling, ArrowUp: event.currentTarget.previousSibling }[
      event.key
    ];
    if (to) {
      event.currentTarget.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    } else if (event.key === "Enter") onPick(f);
    else if (event.key === "s") onCallers(f);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function sortBy(next) {
    sort = next;
    render();
  }

  function mark(f) {
    rows.get(marked)?.classList.remove("on");
    marked = f;
    rows.get(f)?.classList.add("on");
    for (const [g, tr] of rows) tr.setAttribute("aria-selected", String(g === picked));
  }

  return {
    mark,
    // nextHit: one byte a function; nextPicked: a row or -1
    show(nextContext, nextHit, nextPicked) {
      context = nextContext;
      hit = nextHit;
      picked = nextPicked;
      render();
    },
  };
}
