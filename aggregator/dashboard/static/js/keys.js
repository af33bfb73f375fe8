// Keys that work anywhere on the page, and the help that lists all of them.

import { $, el } from "./dom.js";

const HELP = [
  ["/", "search functions: text or /regex/"],
  ["← ↑ → ↓", "move between frames"],
  ["Enter", "zoom into the frame"],
  ["Backspace", "undo the last zoom"],
  ["Esc", "whole graph"],
  ["n  N", "next, previous match"],
  ["s", "callers and callees of the frame"],
  ["i", "icicle or flame"],
  ["[  ]", "earlier, later"],
  ["l", "follow now, or stop"],
  ["f", "add a filter"],
  ["y", "copy a link to this view"],
  ["?", "this help"],
];

export function showHelp() {
  $("#help-keys").replaceChildren(
    ...HELP.flatMap(([keys, text]) => [
      el(
        "dt",
        {},
        keys.split("  ").map((k) => el("kbd", {}, k)),
      ),
      el("dd", {}, text),
    ]),
  );
  $("#help").showModal();
}

// actions: {key: function}; keys typed into fields and open dialogs are left alone
export function listenForKeys(actions) {
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (typing || $("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = event.key === "?" ? showHelp : actions[event.key];
    if (!action || event.defaultPrevented) return;
    event.preventDefault();
    action();
  });
}
