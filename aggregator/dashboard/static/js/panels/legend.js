// Kinds of frames with their share of self time, of everything; pressing one dims all others. At the
// end how much is too small to draw.

import { $, el, swatch } from "../dom.js";
import { percent } from "../format.js";
import { KINDS } from "../model.js";
import { kindWord } from "./details.js";

// chosen: a kind or -1; onChoose(kind or -1)
export function showLegend(m, chosen, onChoose) {
  const buttons = m.kindShares.map(({ kind, self, low, high }) => {
    const k = KINDS.indexOf(kind);
    return el(
      "button",
      {
        "data-kind": kind,
        "aria-pressed": String(k === chosen),
        title: `95 %: ${percent(low / 1e6)} to ${percent(high / 1e6)} % (these hosts and minutes)`,
        onclick: () => onChoose(k === chosen ? -1 : k),
      },
      swatch(kind),
      `${kindWord(k)} ${percent(self / m.sum)} %`,
    );
  });
  const folded =
    m.otherNs > 0 &&
    el(
      "span",
      { class: "folded", title: "Zoom into a frame to have what is below it drawn" },
      swatch("other"),
      `other, ${percent(m.otherNs / m.sum)} %: too small to draw`,
    );
  $("#legend").replaceChildren(...[...buttons, folded].filter(Boolean));
}

export const hitOfKind = (m, kind) => Uint8Array.from(m.kinds, (k) => (k === kind ? 1 : 0));
