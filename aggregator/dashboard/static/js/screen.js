// Everything that shows one answer: graph, minimap, heading, legend, functions, callers. It keeps
// its place (zoom, selection, search) when the next answer comes.

import { $, $$, toast, tooltip } from "./dom.js";
import { percent, plain } from "./format.js";
import { FlameGraph } from "./flame/graph.js";
import { goToMatch, listen } from "./flame/input.js";
import { createMinimap } from "./flame/minimap.js";
import { decode, frameOfHash, heaviestFrameOf, isFolded, isOther, rowOf } from "./model.js";
import { showAnswer } from "./panels/answer.js";
import { showCallers } from "./panels/callers.js";
import { showCrumbs, showSelected, tooltipOf } from "./panels/details.js";
import { createFunctions } from "./panels/functions.js";
import { hitOfKind, showLegend } from "./panels/legend.js";
import { match } from "./search.js";

// onZoom(hash, isFolded: something below is not drawn), onSearch(text), onService(name), onPick(function id
// or 0), onMore(): more than usual should be drawn below the zoomed frame
export function createScreen({ onZoom, onSearch, onService, onPick, onMore }) {
  const graph = new FlameGraph($("#flame"));
  const minimap = createMinimap(graph, $("#mini"));
  const tip = tooltip();
  const functions = createFunctions($("#functions"), { onPick: pickFunction, onCallers: openCallers });
  let shown = null; // {m, coresOf(ns)}
  let search = "";
  let kind = -1;
  let picked = 0; // id of the function whose row was clicked: it alone is not dimmed
  let callersOf = 0; // id of a function, kept over refreshes
  let wantedZoom = null; // hash of a path (0: whole graph) to be shown with the next answer

  graph.addEventListener("hover", ({ detail: { frame, pointer } }) => {
    if (frame < 0 || !pointer) tip.hide();
    else tip.show(pointer, tooltipOf(shown, frame));
  });
  graph.addEventListener("select", ({ detail: { frame } }) => {
    showSelected(shown, frame, { callers: openCallers, onlyService: onService });
    functions.mark(rowOf(shown.m, shown.m.fn[frame]));
  });
  graph.addEventListener("zoom", ({ detail: { frame } }) => {
    showCrumbs(shown.m, frame, zoomTo);
    if (wantedZoom === null) onZoom(graph.zoomPlace.at(-1)?.path ?? 0, isFolded(shown.m, frame));
  });
  listen(graph);

  graph.addEventListener("other", ({ detail: { frame } }) => {
    const parent = shown.m.parent[frame];
    if (parent === graph.zoomed) onMore();
    else zoomTo(parent);
  });

  function zoomTo(i) {
    graph.select(i);
    graph.zoom(i);
    graph.box.focus();
  }

  function show(answer, { matchers, nodes }) {
    const m = decode(answer);
    shown = { m, coresOf: (ns) => (ns / answer.total_ns) * answer.coverage.cores };
    speak(false);
    graph.setModel(m);
    if (wantedZoom !== null) restoreZoom();
    showAnswer({ answer, matchers, nodes });
    highlight();
    refreshCallers();
    setTimeout(speak, 0, true);
    Object.assign(document.documentElement.dataset, { frames: m.n, totalNs: answer.total_ns });
  }

  // A refresh changes all numbers every few seconds: screen readers must not read them out each time.
  function speak(aloud) {
    for (const region of [$("#selected"), $("#hits")])
      region.setAttribute("aria-live", aloud ? "polite" : "off");
  }

  function restoreZoom() {
    const i = Math.max(0, wantedZoom ? frameOfHash(shown.m, wantedZoom) : 0);
    wantedZoom = null;
    graph.select(i);
    graph.zoom(i, { remember: false, animate: false });
  }

  // A row that was clicked, else search and kind together decide what is not dimmed. The search stays.
  function highlight() {
    if (!shown) return;
    const { m } = shown;
    const found = match(m, search);
    const output = $("#hits");
    const share = found && !found.error && `${found.atLeast ? "≥ " : ""}${percent(found.share)} %`;
    output.textContent = !found ? "" : found.error ? "not a regex" : share;
    const atLeast = found?.atLeast ? ", of the frames that are drawn" : "";
    output.title = !found ? "" : (found.error ?? `${found.frames} frames of ${found.functions} functions${atLeast}`);
    const byKind = kind >= 0 ? hitOfKind(m, kind) : null;
    const bySearch = found?.hit ?? null;
    const both = byKind && bySearch ? byKind.map((h, f) => h & bySearch[f]) : (byKind ?? bySearch);
    const row = picked ? m.ids.indexOf(picked) : -1;
    graph.setHit(row >= 0 ? hitOfRow(m, row) : both);
    functions.show(shown, both, row);
    showLegend(m, kind, (next) => {
      kind = next;
      highlight();
    });
  }

  function setSearch(text) {
    search = text;
    const input = $("#search");
    if (input.value !== text) input.value = text;
    highlight();
  }

  const hitOfRow = (m, row) => Uint8Array.from(m.ids, (_, f) => (rowOf(m, f) === row ? 1 : 0));

  // A click on a row means that function and no other; the same row again lets go of it.
  function pickFunction(row) {
    const { m } = shown;
    setPicked(picked === m.ids[row] ? 0 : m.ids[row]);
    onPick(picked);
    if (!picked) return;
    const frame = heaviestFrameOf(m, row);
    if (frame >= 0) graph.select(frame);
    else toast(`${plain(m.labels[row])} is too small to draw in each of its places. Zoom in to see them.`);
  }

  function letGo() {
    if (!picked) return;
    setPicked(0);
    onPick(0);
  }

  function setPicked(id) {
    picked = id;
    highlight();
  }

  function openCallers(f) {
    const row = rowOf(shown.m, f);
    callersOf = shown.m.ids[row];
    showTab("callers");
    refreshCallers();
    functions.mark(row);
  }

  function refreshCallers() {
    const row = callersOf ? shown.m.ids.indexOf(callersOf) : -1;
    if (row >= 0) showCallers($("#callers"), shown, row, openCallers);
  }

  function showTab(name) {
    $("#functions").hidden = name !== "functions";
    $("#callers").hidden = name !== "callers";
    for (const tab of $$("[role=tab]")) tab.setAttribute("aria-selected", String(tab.dataset.tab === name));
  }

  let wait = 0;
  $("#search").addEventListener("input", ({ target }) => {
    clearTimeout(wait);
    wait = setTimeout(() => {
      setSearch(target.value);
      onSearch(search);
    }, 60);
  });
  $("#search").addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.target.blur();
    if (event.key !== "Enter" || !shown) return;
    clearTimeout(wait);
    letGo();
    setSearch(event.target.value);
    graph.box.focus();
    goToMatch(graph, 1);
  });
  $("#tab-functions").addEventListener("click", () => showTab("functions"));
  $("#tab-callers").addEventListener("click", callersOfSelected);

  function callersOfSelected() {
    if (shown && !isOther(shown.m, graph.selected)) openCallers(shown.m.fn[graph.selected]);
  }

  return {
    show,
    setSearch,
    setPicked,
    callersOfSelected,
    canvas: graph.canvas,
    hasAnswer: () => shown !== null,
    setWantedZoom: (hash) => {
      wantedZoom = hash;
    },
    resetZoom() {
      if (!shown) return;
      letGo();
      zoomTo(0);
    },
    nextMatch: (step) => shown && goToMatch(graph, step),
    setLayout(layout) {
      graph.setIcicle(layout === "icicle");
      $("#icicle").setAttribute("aria-pressed", String(layout === "icicle"));
      $("#flip").setAttribute("aria-pressed", String(layout === "flame"));
    },
    retheme() {
      graph.setTheme();
      minimap.draw();
    },
  };
}
