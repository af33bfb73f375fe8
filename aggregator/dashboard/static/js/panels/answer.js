// The page's heading is the answer; the line beside it says what the answer rests on.

import { $, el } from "../dom.js";
import { cores, count, duration, percent, plural } from "../format.js";
import { clearWhole, showWhole } from "./whole.js";

// What the answer is about, from its filters and hosts.
export function subject(matchers, coverage) {
  const exact = (label) => matchers.find((m) => m.label === label && m.op === "=")?.value;
  const hosts = coverage.hosts === 1 ? coverage.host_names[0] : plural(coverage.hosts, "host");
  const service = exact("service");
  if (service) return { who: service, where: ` on ${hosts}` };
  const others = matchers.filter((m) => m.label !== "host");
  if (others.length === 1 && others[0].op === "=") return { who: others[0].value, where: ` on ${hosts}` };
  if (others.length) return { who: "The filtered processes", where: ` on ${hosts}` };
  return { who: hosts, where: "" };
}

export function showAnswer({ answer, matchers, nodes }) {
  const { who, where } = subject(matchers, answer.coverage);
  const { cores: mean, cpus } = answer.coverage;
  const wholeHosts = matchers.every((m) => m.label === "host");
  const used = `${cores(mean)} ${cpus && wholeHosts ? `of ${cpus} ` : ""}cores`;
  $("#answer").textContent = `${who} used ${used}${where}`;
  const items = coverageItems(
    answer,
    matchers,
    nodes.map((n) => n.name),
  );
  $("#coverage").replaceChildren(...items);
  showWhole(answer.coverage);
}

export function clearAnswer(title) {
  $("#answer").textContent = title;
  $("#coverage").replaceChildren();
  clearWhole();
}

function coverageItems(answer, matchers, knownHosts) {
  const c = answer.coverage;
  const wanted = (Date.parse(answer.effective_until) - Date.parse(answer.effective_from)) / 1000;
  const covered = c.hosts ? c.host_seconds / c.hosts : 0;
  const lost = c.samples + c.lost_samples ? c.lost_samples / (c.samples + c.lost_samples) : 0;
  const item = (value, text, title) => el("span", { title }, el("b", {}, value), " " + text);
  const missing = knownHosts.filter((name) => !c.host_names.includes(name));
  const all = matchers.length === 0 && c.hosts === c.host_names.length;
  const hosts =
    all && missing.length
      ? item(
          String(c.hosts),
          `of ${plural(knownHosts.length, "host")}`,
          `Nothing in this range from ${missing.join(", ")}`,
        )
      : item(String(c.hosts), c.hosts === 1 ? "host" : "hosts", c.host_names.join(", "));
  const minutes = c.host_seconds / 60;
  return [
    hosts,
    item(minutes < 10 ? minutes.toFixed(1) : count(minutes), "host-minutes"),
    covered < wanted * 0.9 &&
      item(duration(covered), `of ${duration(wanted)} covered`, "CPU is the mean of the covered time"),
    item(count(c.samples), "samples"),
    item(c.effective_rate_hz.toFixed(1) + " Hz", "effective"),
    item(percent(lost, 2) + " %", "lost", `${c.lost_samples.toLocaleString("en")} samples`),
    item(
      percent(c.unsymbolized_share, 1) + " %",
      "without symbols",
      "Share of frames, weighted by CPU, that have no name yet",
    ),
    c.undefined_stacks > 0 &&
      item(
        count(c.undefined_stacks),
        "stacks on their way",
        "Counted, but their frames have not arrived yet",
      ),
    c.refused_stacks > 0 &&
      item(
        count(c.refused_stacks),
        "stacks refused",
        "Counted as “[refused]”: a frame of theirs had something wrong; the host's detail says of what",
      ),
    c.damaged_blobs > 0 && item(count(c.damaged_blobs), "damaged blobs", "Left out: they could not be read"),
    answer.other_nodes > 0 &&
      item(
        percent(answer.other_ns / answer.total_ns) + " %",
        "too small to draw",
        `${plural(answer.other_nodes, "frame")}; zoom into a frame to have what is below it drawn`,
      ),
  ].filter(Boolean);
}
