// Everything that shows one answer: graph, minimap, heading, legend, functions, callers. It keeps
// its place (zoom, selection, search) when the next answer comes.

import { $, $$, tooltip } from "./dom.js";
import { percent } from "./format.js";
import { FlameGraph } from "./flame/graph.js";
import { goToMatch, listen } from "./flame/input.js";
import { createMinimap } from "./flame/minimap.js";
import { decode, frameOfHash, heaviestFrameOf } from "./model.js";
import { meanCores, showAnswer } from "./panels/answer.js";
import { showCallers } from "./panels/callers.js";
import { showCrumbs, showSelected, tooltipOf } from "./panels/details.js";
import { createFunctions } from "./panels/functions.js";
import { hitOfKind, showLegend } from "./panels/legend.js";
import { match } from "./search.js";
import { samplesBehind } from "./statistics.js";

// onZoom(hash), onSearch(text), onService(name)
export function createScreen({ onZoom, onSearch, onService }) {
  const graph = new FlameGraph($("#flame"));
  const minimap = createMinimap(graph, $("#mini"));
  const tip = tooltip();
  const functions = createFunctions($("#functions"), { onPick: pickFunction, onCallers: openCallers });
  let shown = null; // {m, samples, coresOf(ns)}
  let search = "";
  let kind = -1;
  let callersOf = ""; // key of a function, kept over refreshes
  let wantedZoom = null; // hash of a path (0: whole graph) to be shown with the next answer

  const keyOf = (f) => shown.m.modules[f] + "\n" + shown.m.names[f];

  graph.addEventListener("hover", ({ detail: { frame, pointer } }) => {
    if (frame < 0 || !pointer) tip.hide();
    else tip.show(pointer, tooltipOf(shown, frame));
  });
  graph.addEventListener("select", ({ detail: { frame } }) => {
    showSelected(shown, frame, { callers: openCallers, onlyService: onService });
    functions.mark(shown.m.fn[frame]);
  });
  graph.addEventListener("zoom", ({ detail: { frame } }) => {
    showCrumbs(shown.m, frame, zoomTo);
    if (wantedZoom === null) onZoom(graph.zoomPlace.at(-1)?.path ?? 0);
  });
  listen(graph);

  function zoomTo(i) {
    graph.select(i);
    graph.zoom(i);
    graph.box.focus();
  }

  function show(answer, { matchers, nodes }) {
    const m = decode(answer);
    const perCore = answer.total_ns / meanCores(answer);
    const rates = nodes
      .filter((n) => answer.coverage.host_names.includes(n.name) && n.rate_hz > 0)
      .map((n) => n.rate_hz);
    const samples = samplesBehind(answer.total_ns, answer.coverage.samples, Math.min(...rates));
    shown = { m, samples, coresOf: (ns) => ns / perCore };
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

  // Search and kind together decide what is not dimmed.
  function highlight() {
    if (!shown) return;
    const { m } = shown;
    const found = match(m, search);
    const output = $("#hits");
    output.textContent = !found ? "" : found.error ? "not a regex" : percent(found.share) + " %";
    output.title = !found ? "" : (found.error ?? `${found.frames} frames of ${found.functions} functions`);
    const byKind = kind >= 0 ? hitOfKind(m, kind) : null;
    const bySearch = found?.hit ?? null;
    const both = byKind && bySearch ? byKind.map((h, f) => h & bySearch[f]) : (byKind ?? bySearch);
    graph.setHit(both);
    functions.show(shown, both);
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

  function pickFunction(f) {
    setSearch(shown.m.names[f]);
    onSearch(search);
    graph.select(heaviestFrameOf(shown.m, f));
  }

  function openCallers(f) {
    callersOf = keyOf(f);
    showTab("callers");
    refreshCallers();
    functions.mark(f);
  }

  function refreshCallers() {
    const f = shown.m.names.findIndex((_, g) => keyOf(g) === callersOf && shown.m.fnPlaces[g] > 0);
    if (f >= 0) showCallers($("#callers"), shown, f, openCallers);
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
    setSearch(event.target.value);
    graph.box.focus();
    goToMatch(graph, 1);
  });
  $("#tab-functions").addEventListener("click", () => showTab("functions"));
  $("#tab-callers").addEventListener("click", callersOfSelected);

  function callersOfSelected() {
    if (shown) openCallers(shown.m.fn[graph.selected]);
  }

  return {
    show,
    setSearch,
    callersOfSelected,
    canvas: graph.canvas,
    hasAnswer: () => shown !== null,
    setWantedZoom: (hash) => {
      wantedZoom = hash;
    },
    resetZoom: () => shown && zoomTo(0),
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
