// The time range: presets, a custom range, ‹ › and Live.

import { serverNow } from "../api.js";
import { $, el } from "../dom.js";
import { timesOfWall, zoneName, zoneOffset } from "../format.js";
import * as ranges from "../range.js";

const { absoluteRange, followsNow, label, presetOf, PRESETS, presetRange, resolve, step } = ranges;

const WORDS = { "5m": "5 m", "15m": "15 m", "1h": "1 h", "6h": "6 h", "24h": "24 h" };

// <input type=datetime-local> wants a time of day without a zone.
const wallInput = (ms, offset) => new Date(ms + offset * 60_000).toISOString().slice(0, 19);
const isAmbiguous = (ms) => timesOfWall(ms + zoneOffset(ms) * 60_000).length > 1;

// onRange(range), onLive(boolean)
export function createTime({ onRange, onLive }) {
  const box = $("#range");
  const live = $("#live");
  const custom = $("#custom");
  const dialog = $("#custom-dialog");
  let range = presetRange("15m");

  const presets = PRESETS.map((p) =>
    el("button", { "data-preset": p, onclick: () => onRange(presetRange(p)) }, WORDS[p]),
  );
  custom.before(...presets);

  function set(next, isLive) {
    range = next;
    const preset = presetOf(range);
    for (const b of presets) b.setAttribute("aria-pressed", String(b.dataset.preset === preset));
    custom.setAttribute("aria-pressed", String(!preset));
    custom.textContent = preset ? "Custom…" : label(range, serverNow());
    const { from, until } = resolve(range, serverNow());
    const iso = [from, until].map((ms) => new Date(ms).toISOString().replace(/\.\d+/, ""));
    custom.title = followsNow(range) ? "" : `${iso.join(" to ")}, shown in ${zoneName(zoneOffset(from))}`;
    live.setAttribute("aria-pressed", String(isLive));
    showLive();
  }

  // The page wants to follow now, and can't: the last question got no answer.
  let isStalled = false;
  function setStalled(next) {
    isStalled = next;
    showLive();
  }

  function showLive() {
    const isOn = live.getAttribute("aria-pressed") === "true";
    const stalls = isOn && isStalled;
    live.title = stalls ? "No answer: this is not live" : isOn ? "Stop following now (l)" : "Follow now (l)";
    $(".text", live).textContent = stalls ? "Not live" : "Live";
    $(".dot", live).classList.toggle("off", !isOn || stalls);
  }

  function openCustom() {
    const { from, until } = resolve(range, serverNow());
    const offset = zoneOffset(from);
    const zone = $("#custom-zone");
    const explicit = [...new Set([from, until].flatMap(ranges.zonesAround))];
    zone.replaceChildren(
      el("option", { value: "local" }, "The zone of this browser"),
      ...explicit.map((o) => el("option", { value: o }, zoneName(o))),
    );
    // A time that comes twice is shown with its offset.
    const isSure = !isAmbiguous(from) && !isAmbiguous(until);
    zone.value = isSure ? "local" : String(offset);
    $("#custom-from").value = wallInput(from, offset);
    $("#custom-until").value = wallInput(until, isSure ? zoneOffset(until) : offset);
    $("#custom-problem").textContent = "";
    dialog.showModal();
  }

  function applyCustom() {
    const chosen = $("#custom-zone").value;
    const zone = chosen === "local" ? chosen : Number(chosen);
    const problem = $("#custom-problem");
    try {
      const [from, until] = ["#custom-from", "#custom-until"].map((id) => ranges.wallTime($(id).value, zone));
      if (until <= from) throw new ranges.TimeRangeError("The range ends before it begins.");
      dialog.close();
      onRange(absoluteRange(from, until));
    } catch (error) {
      if (!(error instanceof ranges.TimeRangeError)) throw error;
      problem.textContent = error.message;
    }
  }

  const move = (direction) => onRange(step(range, direction, serverNow()));
  $("#earlier").addEventListener("click", () => move(-1));
  $("#later").addEventListener("click", () => move(1));
  custom.addEventListener("click", openCustom);
  $("#custom-apply").addEventListener("click", applyCustom);
  $("#custom-cancel").addEventListener("click", () => dialog.close());
  live.addEventListener("click", () => onLive(live.getAttribute("aria-pressed") !== "true"));
  box.setAttribute("role", "group");
  return { set, setStalled, earlier: () => move(-1), later: () => move(1), toggleLive: () => live.click() };
}
