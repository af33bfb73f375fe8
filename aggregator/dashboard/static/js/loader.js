// Asks the server: once for a new question, and again and again while the page follows now. One
// question at a time; a newer one replaces an older one. What to do with the answers is the caller's.

import { fetchFlamegraph, fetchNodes, fetchTimeline, REFRESH_TIMEOUT_MS } from "./api.js";

const SLOW_MS = 400; // below this a "loading" card would only flicker
const FIRST_RUN_MS = 2000;
const TIMELINE_POINTS = 240;
const PATIENCE = 3; // a refresh may take this many times what the last answer took

// A refresh costs the server more the longer the range is, and changes less.
export function refreshMs(widthMs) {
  if (widthMs <= 9e5) return 5000;
  return widthMs <= 3.6e6 ? 10_000 : 60_000;
}

// question() → {from, until, query, context: {from, until}, widthMs, live}
// on: {answer(flamegraph, nodes), empty(nodes) → true to keep asking, timeline(answer),
//      noTimeline(error), nodes(nodes), noNodes(error), slow(elapsedS), failure(error, quiet)}
export class Loader {
  constructor(question, on) {
    this.question = question;
    this.on = on;
    this.running = null;
    this.timer = 0;
    this.tookMs = 0; // the last answer
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.timer) this.load({ quiet: true });
    });
  }

  // quiet: a refresh; no loading card, and a failure leaves the shown view alone.
  async load({ quiet = false } = {}) {
    this.stop();
    const asked = this.question();
    const run = new AbortController();
    this.running = run;
    const slow = quiet ? 0 : this.watchSlow();
    const timeoutMs = quiet ? Math.max(REFRESH_TIMEOUT_MS, PATIENCE * this.tookMs) : undefined;
    const began = performance.now();
    const timeline = this.loadTimeline(asked, run.signal, timeoutMs);
    let keepAsking = false;
    try {
      const [answer, nodes] = await Promise.all([
        fetchFlamegraph(asked, run.signal, timeoutMs),
        this.loadNodes(run.signal, timeoutMs),
      ]);
      this.tookMs = performance.now() - began;
      clearInterval(slow);
      if (run.signal.aborted) return;
      if (answer.total_ns > 0) this.on.answer(answer, nodes);
      else keepAsking = this.on.empty(nodes);
    } catch (error) {
      if (run.signal.aborted) return;
      this.on.failure(error, quiet);
    } finally {
      clearInterval(slow);
      await timeline;
      if (this.running === run) {
        this.running = null;
        if (asked.live || keepAsking) this.again(keepAsking ? FIRST_RUN_MS : refreshMs(asked.widthMs));
      }
    }
  }

  // How the hosts are is told whatever becomes of the question.
  async loadNodes(signal, timeoutMs) {
    try {
      const nodes = await fetchNodes(signal, timeoutMs);
      if (!signal.aborted) this.on.nodes(nodes);
      return nodes;
    } catch (error) {
      if (!signal.aborted) this.on.noNodes(error);
      throw error;
    }
  }

  // A timeline that fails, or takes long, must not take the flamegraph with it.
  async loadTimeline({ query, context }, signal, timeoutMs) {
    try {
      const asked = { ...context, query, points: TIMELINE_POINTS };
      const answer = await fetchTimeline(asked, signal, timeoutMs);
      if (!signal.aborted) this.on.timeline(answer);
    } catch (error) {
      if (!signal.aborted) this.on.noTimeline(error);
    }
  }

  watchSlow() {
    const began = performance.now();
    return setInterval(() => this.on.slow((performance.now() - began) / 1000), SLOW_MS);
  }

  again(ms) {
    this.timer = setTimeout(() => {
      if (!document.hidden) this.load({ quiet: true });
    }, ms);
  }

  // No more asking until the next load().
  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.running?.abort();
    this.running = null;
  }
}
