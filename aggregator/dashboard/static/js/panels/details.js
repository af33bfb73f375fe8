// What is said about one frame: tooltip, line of the selected frame, breadcrumbs.

import { $, copyText, el } from "../dom.js";
import { cores, decimalsFor, percent, plain, shortName } from "../format.js";
import { isOther, KINDS, labelOf, pathTo } from "../model.js";

const KIND_WORDS = { unknown: "no symbols" };
export const kindWord = (kind) => KIND_WORDS[KINDS[kind]] ?? KINDS[kind];

// Share and "± x", the wider side of its interval, with as many decimals: [text, element].
export function shareWithInterval(share, low, high) {
  if (share >= 1) return ["100 %"];
  const half = Math.max(share - low, high - share);
  const decimals = decimalsFor(half);
  return [percent(share, decimals) + " %", el("span", { class: "pm" }, "± " + percent(half, decimals))];
}

// The same of a function's own time (column "fnSelf") or total ("fnTotal").
export function functionShare(m, column, f) {
  const [low, high] = m.bounds[column];
  return shareWithInterval(m[column][f] / m.sum, low[f], high[f]);
}

const OTHER_WORDS = "Frames that are too small to draw, together. A click zooms in and has them drawn.";

// context: {m, coresOf(ns)}
export function tooltipOf({ m, coresOf }, i) {
  const f = m.fn[i];
  const share = m.total[i] / m.sum;
  const [low, high] = [m.low[i], m.high[i]];
  const decimals = decimalsFor(Math.max(share - low, high - share));
  const row = (term, ...text) => [el("dt", {}, term), el("dd", {}, text)];
  const places = m.fnPlaces[f];
  return [
    el("strong", {}, labelOf(m, i)),
    isOther(m, i) && el("p", {}, OTHER_WORDS),
    m.files[f] && el("span", { class: "dim file" }, plain(m.files[f])),
    el("span", { class: "dim" }, [m.modules[f], kindWord(m.kinds[f])].filter(Boolean).join(" · ")),
    m.place(i) ? el("p", { class: "place" }, plain(m.place(i))) : null,
    el(
      "dl",
      {},
      row("Total", shareWithInterval(share, low, high), ` · ${cores(coresOf(m.total[i]))} cores`),
      !isOther(m, i) && row("Self", percent(m.self[i] / m.sum), ` % · ${cores(coresOf(m.self[i]))} cores`),
      m.parent[i] >= 0 && row("Of its caller", percent(m.total[i] / m.total[m.parent[i]], 0), " %"),
      places > 1 &&
        row("Everywhere", percent(m.fnTotal[f] / m.sum), ` % in ${places.toLocaleString("en")} places`),
    ),
    i > 0 &&
      el(
        "p",
        {},
        `95 %: ${percent(low, decimals)} to ${percent(high, decimals)} % (these hosts and minutes)`,
      ),
    el("p", {}, "Click zooms · s shows callers"),
  ];
}

// actions: {callers(f), onlyService(name) or null}
export function showSelected({ m, coresOf }, i, actions) {
  const f = m.fn[i];
  const name = labelOf(m, i);
  const copy = () =>
    copyText(
      pathTo(m, i)
        .map((j) => m.names[m.fn[j]])
        .join(";"),
      "Stack copied.",
    );
  const service = m.level[i] === 1 && KINDS[m.kinds[f]] === "process";
  $("#selected").replaceChildren(
    el("strong", { id: "sel", title: name }, name),
    el("span", {}, shareWithInterval(m.total[i] / m.sum, m.low[i], m.high[i])),
    el("span", { class: "dim" }, `${cores(coresOf(m.total[i]))} cores`),
    !isOther(m, i) && el("span", { class: "dim" }, `self ${percent(m.self[i] / m.sum)} %`),
    m.modules[f] && el("span", { class: "dim module" }, m.modules[f]),
    m.place(i) && el("span", { class: "dim place", title: plain(m.place(i)) }, shortPlace(plain(m.place(i)))),
    el(
      "span",
      { class: "acts" },
      service && el("button", { onclick: () => actions.onlyService(m.names[f]) }, "Only this service"),
      !isOther(m, i) && el("button", { onclick: () => actions.callers(f) }, "Callers"),
      el("button", { onclick: copy }, "Copy stack"),
    ),
  );
}

// The end of a path, for a line that has no room for all of it.
function shortPlace(place) {
  return place.split("/").slice(-2).join("/");
}

const MOST_CRUMBS = 5;

export function showCrumbs(m, i, zoomTo) {
  const path = pathTo(m, i);
  const nameOf = (j) => labelOf(m, j);
  const shown = path.length > MOST_CRUMBS ? [path[0], null, ...path.slice(-3)] : path;
  const whole = path.map(nameOf).join(" › ");
  $("#crumbs").replaceChildren(
    ...shown.flatMap((j, k) => [
      k ? el("span", { "aria-hidden": "true" }, "›") : "",
      j === null
        ? el("span", { title: whole }, "…")
        : el("button", { title: nameOf(j), onclick: () => zoomTo(j) }, shortName(nameOf(j))),
    ]),
  );
}
