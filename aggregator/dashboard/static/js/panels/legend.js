// Kinds of frames with their share of self time; pressing one dims all others.

import { $, el, swatch } from "../dom.js";
import { percent } from "../format.js";
import { KINDS, selfByKind } from "../model.js";
import { kindWord } from "./details.js";

// chosen: a kind or -1; onChoose(kind or -1)
export function showLegend(m, chosen, onChoose) {
  const shares = selfByKind(m);
  const buttons = KINDS.map((kind, k) => {
    if (!(shares[k] > 0)) return null;
    return el(
      "button",
      {
        "data-kind": kind,
        "aria-pressed": String(k === chosen),
        onclick: () => onChoose(k === chosen ? -1 : k),
      },
      swatch(kind),
      `${kindWord(k)} ${percent(shares[k] / m.sum)} %`,
    );
  });
  $("#legend").replaceChildren(...buttons.filter(Boolean));
}

export const hitOfKind = (m, kind) => Uint8Array.from(m.kinds, (k) => (k === kind ? 1 : 0));
