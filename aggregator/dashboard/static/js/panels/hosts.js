// The hosts in one line of the app bar (behind it: panels/fleet.js), and how late they are.

import { $ } from "../dom.js";
import { costOf, learning } from "../fleet.js";
import { cost, duration, plural } from "../format.js";

export const ageOf = (node, nowMs) => (nowMs - Date.parse(node.last_seen)) / 1000;
const reporting = (node) => node.state === "reporting";

export function showHealth(nodes) {
  const now = nodes.filter(reporting);
  const all = costOf(nodes);
  const health = $("#health");
  const state = !nodes.length || !now.length ? "idle" : now.length < nodes.length ? "warn" : "ok";
  health.className = `health ghost push ${state}`;
  $(".text", health).textContent = !nodes.length
    ? "No hosts yet"
    : `${now.length} of ${plural(nodes.length, "host")} reporting`;
  const news = learning(now).length;
  const why = news ? `, learning ${nodes.length === 1 ? "this host" : plural(news, "host")}` : "";
  $(".cost", health).textContent = all ? `\u00a0· profiling costs ${cost(all.percent)} % CPU${why}` : "";
}

// For a page that follows now: {text, title} when data is late, else null.
export function lateness(nodes, nowMs) {
  const seen = nodes.filter((n) => n.last_seen);
  const late = seen.filter((n) => !reporting(n));
  if (!late.length) return null;
  const hosts = plural(late.length, "host");
  const title = late.map((n) => n.name).join(", ");
  if (late.length < seen.length) return { text: `${hosts} late`, title };
  const newest = Math.min(...seen.map((n) => ageOf(n, nowMs)));
  return { text: `Newest data is ${duration(newest)} old: ${hosts} late`, title };
}
