// Callers and callees of one function, one level each way; every name leads on.

import { neighbours } from "../callers.js";
import { el, swatch } from "../dom.js";
import { percent, plain, plural } from "../format.js";
import { KINDS } from "../model.js";
import { functionShare } from "./details.js";

const MOST_LINES = 12;

// f: a row of the table of functions
export function showCallers(box, { m }, f, onChoose) {
  const { callers, callees, untold } = neighbours(m, f);
  const whole = m.fnTotal[f] || 1;
  const line = ([g, weight]) =>
    el(
      "div",
      { class: "rowline" },
      el(
        "div",
        { class: "fn" },
        swatch(KINDS[m.kinds[g]]),
        el("button", { class: "link", title: m.modules[g], onclick: () => onChoose(g) }, plain(m.labels[g])),
      ),
      el("span", { class: "v" }, percent(weight / whole, 0) + " %"),
      el("span", { class: "track" }, el("i", { vars: { v: Math.min(100, (100 * weight) / whole) + "%" } })),
    );
  const lines = (list) => [
    ...list.slice(0, MOST_LINES).map(line),
    list.length > MOST_LINES && el("p", { class: "dim" }, `and ${plural(list.length - MOST_LINES, "other")}`),
  ];
  const facts = [` · in ${plural(m.fnPlaces[f], "place")}`, m.modules[f] && ` · ${m.modules[f]}`];
  box.replaceChildren(
    ...[
      el("h3", {}, `Called by ${callers.length}`),
      lines(callers),
      untold > 0 &&
        el("p", { class: "dim untold" }, `${percent(untold / whole)} % in frames that are too small to draw`),
      el(
        "div",
        { class: "me" },
        el("b", {}, plain(m.labels[f])),
        el("div", { class: "dim" }, [
          "total ",
          functionShare(m, "fnTotal", f),
          " · self ",
          functionShare(m, "fnSelf", f),
          facts,
        ]),
      ),
      el("h3", {}, `Calls ${callees.length}`),
      lines(callees),
    ]
      .flat(9)
      .filter(Boolean),
  );
}
