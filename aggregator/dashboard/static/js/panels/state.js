// The card over the graph: waiting, nothing found, no answer, first run. The old view stays beneath.

import { $, el } from "../dom.js";

let shown = "";

// content: {title, text, command?, actions?: [{label, primary?, run}], waiting?: boolean}
// The same card with another text keeps its buttons, and with them the focus.
export function showState(name, content) {
  const page = document.documentElement;
  const same = [name, content.title, ...(content.actions ?? []).map((a) => a.label)].join("\n");
  if (page.dataset.state === name && shown === same) {
    const line = $("#state .state-text");
    if (line.textContent !== content.text) line.textContent = content.text;
    return;
  }
  shown = same;
  page.dataset.state = name;
  const card = $("#state");
  const buttons = (content.actions ?? []).map(({ label, primary, run }) =>
    el("button", { class: primary ? "primary" : null, onclick: run }, label),
  );
  card.replaceChildren(
    el("h2", {}, content.title),
    el("p", { class: "state-text" }, content.text),
    ...(content.command ? [el("div", { class: "cmd" }, el("code", {}, content.command))] : []),
    ...(content.waiting ? [el("div", { class: "progress wait" }, el("i"))] : []),
    ...(buttons.length ? [el("div", { class: "acts" }, buttons)] : []),
  );
  card.hidden = false;
  $("#main").classList.add("busy");
}

export function clearState() {
  document.documentElement.dataset.state = "ok";
  $("#state").hidden = true;
  $("#main").classList.remove("busy");
}

// One quiet line above the graph; null takes it away. action: {label, run}
export function showNotice(notice) {
  const box = $("#notice");
  box.hidden = !notice;
  if (!notice) return box.replaceChildren();
  const { text, title, action } = notice;
  return box.replaceChildren(
    el("span", { class: "pill warn", title }, text),
    action ? el("button", { class: "link", onclick: action.run }, action.label) : "",
  );
}
