// The hosts in one line of the app bar (behind it: panels/fleet.js), and what of them must be known where
// the answer is read.

import { $ } from "../dom.js";
import { alertWords, costOf, healthOf, learning } from "../fleet.js";
import { cost, duration, plain, plural } from "../format.js";

export const ageOf = (node, nowMs) => (nowMs - Date.parse(node.last_seen)) / 1000;
const isHeard = (node) => node.state === "reporting" && !node.breaker;

export function showHealth(nodes) {
  const { tone, reporting, words } = healthOf(nodes);
  const all = costOf(nodes);
  const text = nodes.length ? `${reporting} of ${plural(nodes.length, "host")} reporting` : "No hosts yet";
  const news = learning(nodes).length;
  const why = news ? `, learning ${nodes.length === 1 ? "this host" : plural(news, "host")}` : "";
  write(tone, text, words, all ? `\u00a0· profiling costs ${cost(all.percent)} % CPU${why}` : "");
}

// What was last known of the hosts is no longer known to hold.
export function showHealthUnknown() {
  write("idle", "Hosts unknown", [], "");
}

function write(tone, text, words, costWords) {
  const health = $("#health");
  health.className = `health ghost push ${tone}`;
  $(".text", health).textContent = text;
  $(".news", health).textContent = words.join(" · ");
  $(".cost", health).textContent = costWords;
  health.title = [text, ...words, "", "Opens the hosts, and what profiling costs them"].join("\n");
}

// {text, title}: alerts that fire, agents that are detached, and, for a page that follows now, late data;
// null where there is nothing to say.
export function attention(nodes, nowMs, isLive) {
  const firing = nodes.flatMap((n) => n.alerts.map((a) => `${plain(n.name)}: ${alertWords(a)}`));
  const detached = nodes.filter((n) => n.breaker);
  const late = isLive ? lateness(nodes, nowMs) : null;
  const some = (lines) => (lines.length > 2 ? `${lines[0]} and ${lines.length - 1} more` : lines.join(", "));
  const parts = [
    firing.length > 0 && { text: `${plural(firing.length, "alert")}: ${some(firing)}`, title: firing.join("\n") },
    detached.length > 0 && {
      text: `${plural(detached.length, "agent")} detached: ${some(detached.map((n) => plain(n.name)))}`,
      title: detached.map((n) => `${plain(n.name)}: ${plain(n.breaker)}`).join("\n"),
    },
    late,
  ].filter(Boolean);
  if (!parts.length) return null;
  return { text: parts.map((p) => p.text).join(" · "), title: parts.map((p) => p.title).join("\n") };
}

// For a page that follows now: {text, title} when data is late, else null.
function lateness(nodes, nowMs) {
  const seen = nodes.filter((n) => n.last_seen && !n.breaker);
  const late = seen.filter((n) => !isHeard(n));
  if (!late.length) return null;
  const hosts = plural(late.length, "host");
  const title = late.map((n) => n.name).join(", ");
  if (late.length < seen.length) return { text: `${hosts} late`, title };
  const newest = Math.min(...seen.map((n) => ageOf(n, nowMs)));
  return { text: `Newest data is ${duration(newest)} old: ${hosts} late`, title };
}
