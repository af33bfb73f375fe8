// The time range: presets, a custom range, ‹ › and Live.

import { $, el } from "../dom.js";
import { absoluteRange, label, presetOf, PRESETS, presetRange, resolve, step } from "../range.js";

const WORDS = { "5m": "5 m", "15m": "15 m", "1h": "1 h", "6h": "6 h", "24h": "24 h" };

// <input type=datetime-local> wants local time without a zone.
function localInput(ms) {
  const t = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return t.toISOString().slice(0, 19);
}

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
    custom.textContent = preset ? "Custom…" : label(range, Date.now());
    live.setAttribute("aria-pressed", String(isLive));
    live.title = isLive ? "Stop following now (l)" : "Follow now (l)";
    $(".dot", live).classList.toggle("off", !isLive);
  }

  function openCustom() {
    const { from, until } = resolve(range, Date.now());
    $("#custom-from").value = localInput(from);
    $("#custom-until").value = localInput(until);
    $("#custom-problem").textContent = "";
    dialog.showModal();
  }

  function applyCustom() {
    const from = Date.parse($("#custom-from").value);
    const until = Date.parse($("#custom-until").value);
    const problem = $("#custom-problem");
    if (Number.isNaN(from) || Number.isNaN(until)) problem.textContent = "Both times are needed.";
    else if (until <= from) problem.textContent = "The range ends before it begins.";
    else {
      dialog.close();
      onRange(absoluteRange(from, until));
    }
  }

  const move = (direction) => onRange(step(range, direction, Date.now()));
  $("#earlier").addEventListener("click", () => move(-1));
  $("#later").addEventListener("click", () => move(1));
  custom.addEventListener("click", openCustom);
  $("#custom-apply").addEventListener("click", applyCustom);
  $("#custom-cancel").addEventListener("click", () => dialog.close());
  live.addEventListener("click", () => onLive(live.getAttribute("aria-pressed") !== "true"));
  box.setAttribute("role", "group");
  return { set, earlier: () => move(-1), later: () => move(1), toggleLive: () => live.click() };
}
