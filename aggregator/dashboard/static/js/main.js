// Puts the page together: the view (what is asked for, = the URL), the loader, the screen.

import { fetchLabels, learnTime, serverNow } from "./api.js";
import { $, copyText, icon, toast } from "./dom.js";
import { clock } from "./format.js";
import { listenForKeys, showHelp } from "./keys.js";
import { Loader } from "./loader.js";
import { failed, firstRun, merging, nothing, wordsOf } from "./messages.js";
import { clearAnswer } from "./panels/answer.js";
import { createExport } from "./panels/export.js";
import { createFilters } from "./panels/filters.js";
import { createFleet } from "./panels/fleet.js";
import { attention, showHealth, showHealthUnknown } from "./panels/hosts.js";
import { clearState, showNotice, showState } from "./panels/state.js";
import { createTime } from "./panels/time.js";
import { createTimeline } from "./panels/timeline.js";
import { contextOf, followsNow, isRelative, presetRange, resolve } from "./range.js";
import { createScreen } from "./screen.js";
import { print } from "./selector.js";
import { readView, writeView } from "./view.js";

const NO_SERVICE = "[no service]"; // what the server calls processes without one
const page = document.documentElement;
let view = readView(location.search);
let nodes = [];
let more = false; // the zoomed frame has more below it than is usually drawn
let shownTimes = null; // {from, until} of the shown answer
const began = Date.now();

const screen = createScreen({
  onZoom: showZoom,
  onMore: () => {
    more = true;
    loader.load();
  },
  onSearch: (search) => remember({ search }),
  onPick: (picked) => remember({ picked }),
  onService: (name) => filters.add({ label: "service", op: "=", value: name === NO_SERVICE ? "" : name }),
});
const filters = createFilters($("#filters"), {
  loadLabels: fetchLabels,
  onChange: (matchers) => ask({ matchers }),
});
const onRange = (range) => ask({ range, live: followsNow(range) });
const time = createTime({ onRange, onLive: setLive });
const timeline = createTimeline($("#timeline"), { onRange });
const loader = new Loader(question, {
  answer: showAnswer,
  empty: showEmpty,
  timeline: showTimeline,
  nodes: showNodes,
  noNodes: showNoNodes,
  noTimeline: (error) => timeline.fail(`No timeline. ${wordsOf(error)}`, timelineContext()),
  slow: showSlow,
  failure: showFailure,
});
const fleet = createFleet({ onChoose: onlyHost });
createExport({
  question: () => shownTimes && { ...shownTimes, query: print(view.matchers) },
  canvas: screen.canvas,
});

function question() {
  const now = serverNow();
  const { from, until } = resolve(view.range, now);
  const around = contextOf(view.range, now);
  const iso = (ms) => new Date(ms).toISOString();
  const context = followsNow(view.range)
    ? { from: `now-${Math.round((around.until - around.from) / 1000)}s`, until: "now" }
    : { from: iso(around.from), until: iso(around.until) };
  const { zoom, live, matchers } = view;
  return { ...view.range, query: print(matchers), context, widthMs: until - from, live, zoom, more };
}

// Frames below the zoomed one that were too small to draw are asked for.
function showZoom(zoom, isFolded) {
  if (zoom === view.zoom) return;
  remember({ zoom });
  more = false;
  if (isFolded) loader.load({ quiet: true });
}

// A new question: a new entry in the history.
function ask(change) {
  view = { ...view, ...change, problems: [] };
  history.pushState(null, "", writeView(view) || location.pathname);
  applyView();
  loader.load();
}

// Something that changes how the answer is looked at.
function remember(change) {
  view = { ...view, ...change };
  history.replaceState(null, "", writeView(view) || location.pathname);
}

function applyView() {
  filters.set(view.matchers);
  time.set(view.range, view.live);
}

function setLive(live) {
  if (live && !followsNow(view.range)) return ask({ range: presetRange("15m"), live });
  remember({ live });
  applyView();
  return live ? loader.load({ quiet: true }) : loader.stop();
}

function showAnswer(answer, nextNodes) {
  time.setStalled(false);
  showNodes(nextNodes);
  clearState();
  shownTimes = { from: answer.effective_from, until: answer.effective_until };
  screen.show(answer, { matchers: view.matchers, nodes });
  document.title = `${$("#answer").textContent} · Flamefleet`;
  showNotice(notice());
  page.dataset.answers = Number(page.dataset.answers ?? 0) + 1;
  page.dataset.ready = "true";
  $("#export").disabled = false;
}

function showNodes(next) {
  nodes = next;
  fleet.problem("");
  showHealth(nodes);
  if ($("#hosts").open) fleet.show(nodes, serverNow());
}

function onlyHost(value) {
  $("#hosts").close();
  filters.add({ label: "host", op: "=", value });
}

function showTimeline(answer) {
  const context = {
    from: Date.parse(answer.from),
    until: Date.parse(answer.until),
    endsNow: followsNow(view.range),
  };
  timeline.setContext(context, resolve(view.range, context.endsNow ? context.until : serverNow()));
  timeline.setData(answer);
}

// What the timeline would be about: its axis and brush are of use without its curve.
function timelineContext() {
  const now = serverNow();
  const endsNow = followsNow(view.range);
  return { context: { ...contextOf(view.range, now), endsNow }, chosen: resolve(view.range, now) };
}

// → true to keep asking: the first samples are on their way
function showEmpty(nextNodes) {
  time.setStalled(false);
  showNodes(nextNodes);
  showNotice(notice());
  const seen = nodes.some((n) => n.last_seen);
  clearAnswer(seen ? "No CPU was sampled" : "No host has reported yet");
  if (seen) {
    const removeLast = () => ask({ matchers: view.matchers.slice(0, -1) });
    const lastDay = () => onRange(presetRange("24h"));
    showState("empty", nothing(view.matchers, { removeLast, lastDay }));
  } else {
    showState("first-run", firstRun(nodes.length, Math.round((Date.now() - began) / 1000)));
  }
  return !seen;
}

function showSlow(elapsedS) {
  showState("loading", merging(elapsedS, cancel));
}

function cancel() {
  setLive(false);
  if (screen.hasAnswer()) showLast();
  else showFailure(new Error("Cancelled."), false);
}

const loadAgain = () => loader.load();

function showNoNodes(error) {
  fleet.problem(`These figures may be old. ${wordsOf(error)}`);
  showHealthUnknown();
}

// What must be known beside the answer: what of a link could not be read, and how the hosts are.
function notice() {
  const news = attention(nodes, serverNow(), view.live);
  if (!view.problems.length) return news;
  const left = `${view.problems.join(" ")}. It is left out here.`;
  return { text: [left, news?.text].filter(Boolean).join(" · "), title: news?.title };
}

function showFailure(error, quiet) {
  time.setStalled(true);
  if (quiet && screen.hasAnswer()) {
    const at = clock(Date.parse(shownTimes.until), { spanMs: 0 });
    showNotice({ text: `Showing ${at}. ${wordsOf(error)}`, action: { label: "Try again", run: loadAgain } });
  } else {
    showState("error", failed(error, { again: loadAgain, showLast: screen.hasAnswer() ? showLast : null }));
  }
}

function showLast() {
  clearState();
  const [from, until] = [shownTimes.from, shownTimes.until].map((t) => clock(Date.parse(t), { spanMs: 0 }));
  showNotice({ text: `Still showing ${from} to ${until}`, action: { label: "Try again", run: loadAgain } });
}

function switchTheme() {
  page.dataset.theme = page.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("flamefleet-theme", page.dataset.theme);
  } catch {
    // Without storage the choice lasts until the page is closed.
  }
  screen.retheme();
}

function setLayout(layout) {
  screen.setLayout(layout);
  remember({ layout });
}

const copyLink = () => copyText(location.href, "Link copied. It opens this view.");
const flip = () => setLayout(view.layout === "icicle" ? "flame" : "icicle");

$("#brand-icon").replaceWith(icon("flame"));
$("#theme").append(icon("sun"));
$("#theme").addEventListener("click", switchTheme);
$("#help-open").addEventListener("click", showHelp);
$("#link").addEventListener("click", copyLink);
$("#icicle").addEventListener("click", () => setLayout("icicle"));
$("#flip").addEventListener("click", () => setLayout("flame"));
$("#health").addEventListener("click", () => {
  fleet.show(nodes, serverNow());
  $("#hosts").showModal();
});
$("#hosts").addEventListener("close", fleet.stop);
$("#whole").addEventListener("click", () => $("#ends").showModal());
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog || target.closest("[data-close]")) dialog.close();
  });
}
listenForKeys({
  "/": () => $("#search").focus(),
  "[": time.earlier,
  "]": time.later,
  l: time.toggleLive,
  f: filters.focus,
  i: flip,
  s: screen.callersOfSelected,
  y: copyLink,
  n: () => screen.nextMatch(1),
  N: () => screen.nextMatch(-1),
  Escape: screen.resetZoom,
});
addEventListener("popstate", () => {
  view = readView(location.search);
  start();
});

async function start() {
  view.problems.forEach(toast);
  if (isRelative(view.range).includes(false)) await learnTime();
  applyView();
  screen.setWantedZoom(view.zoom);
  screen.setSearch(view.search);
  screen.setPicked(view.picked);
  screen.setLayout(view.layout);
  loader.load();
}

start();
