// The last events of one host, newest first, page by page.

import { fetchEvents, serverNow } from "../api.js";
import { el } from "../dom.js";
import { clock, plain } from "../format.js";
import { wordsOf } from "../messages.js";

const PAGE = 20;
const FRESH_MS = 5000;
const DAY_MS = 8.64e7;
const KINDS = { governor: "", unit_limit: "Unit limit", profile: "Profile" };

// Local time of day, with the weekday once it is no longer today's; the title has all of it.
export function timeOf(ms, nowMs) {
  const text = clock(ms, { spanMs: 0, day: nowMs - ms > DAY_MS / 2 });
  return el("time", { datetime: new Date(ms).toISOString(), title: new Date(ms).toLocaleString() }, text);
}

const key = (event) => [event.at, event.kind, event.reason, event.words].join("\n");

function line(event, nowMs) {
  const kind = KINDS[event.kind] ?? plain(event.kind);
  const tone = event.kind === "unit_limit" ? "warn" : "";
  return el(
    "li",
    {},
    timeOf(Date.parse(event.at), nowMs),
    el(
      "span",
      {},
      kind && [el("span", { class: `pill ${tone}` }, kind), " "],
      plain(event.words || event.reason),
    ),
  );
}

export function createEvents(name) {
  const list = el("ol", { class: "events" });
  const status = el("p", { class: "dim", role: "status" }, "Loading events…");
  const more = el("button", { hidden: true }, "Show older");
  const box = el("section", { class: "host-events" }, el("h3", {}, "Last events"), list, status, more);
  let newest = null; // key of the first line; null before any answer
  let older = null;
  let asking = null;
  let askedAt = -Infinity;

  function say(...words) {
    status.hidden = !words.length;
    status.replaceChildren(...words);
  }

  async function ask(options, nowMs, show) {
    asking?.abort();
    const run = new AbortController();
    asking = run;
    askedAt = performance.now();
    try {
      const page = await fetchEvents(name, { limit: PAGE, ...options }, run.signal);
      if (!run.signal.aborted) show(page, nowMs);
    } catch (error) {
      if (run.signal.aborted) return;
      const again = el("button", { class: "link", onclick: () => ask(options, nowMs, show) }, "Try again");
      say(`${wordsOf(error)} `, again);
    } finally {
      if (asking === run) asking = null;
    }
  }

  function follow(page) {
    older = page.older;
    more.hidden = older === null;
  }

  // What has been read stays as it is until there is something new.
  function showNewest(page, nowMs) {
    const first = page.events.length ? key(page.events[0]) : "";
    if (first === newest) return page.events.length ? say() : sayNone();
    newest = first;
    list.replaceChildren(...page.events.map((event) => line(event, nowMs)));
    follow(page);
    if (page.events.length) say();
    else sayNone();
  }

  function sayNone() {
    say("No events in the last 7 days.");
  }

  function showOlder(page, nowMs) {
    const lines = page.events.map((event) => line(event, nowMs));
    list.append(...lines);
    follow(page);
    say();
    if (more.hidden && lines.length) {
      // The button that had the focus is gone.
      lines[0].tabIndex = -1;
      lines[0].focus();
    }
  }

  more.addEventListener("click", () => ask({ olderThan: older }, serverNow(), showOlder));
  return {
    box,
    refresh(nowMs) {
      if (!asking && performance.now() - askedAt > FRESH_MS) ask({}, nowMs, showNewest);
    },
    stop() {
      asking?.abort();
      askedAt = -Infinity;
    },
  };
}
