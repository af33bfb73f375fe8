// Export menu: pprof and collapsed stacks from the API, the picture from the canvas.

import { $, el } from "../dom.js";
import { exportUrl } from "../api.js";

const FORMATS = [
  ["pprof", "pprof", "flamefleet.pb.gz", "opens in go tool pprof"],
  ["folded", "Collapsed stacks", "flamefleet.folded", "one stack a line"],
];

function download(href, name) {
  const link = el("a", { href, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

// question() → {from, until, query} with the times of the shown answer, or null
export function createExport({ question, canvas }) {
  const button = $("#export");
  const menu = $("#export-menu");

  function savePicture() {
    canvas.toBlob((blob) => {
      const url = URL.createObjectURL(blob);
      download(url, "flamefleet.png");
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    });
  }

  const items = [
    ...FORMATS.map(([format, text, name, note]) => [
      text,
      note,
      () => download(exportUrl(question(), format), name),
    ]),
    ["PNG", "as drawn now", savePicture],
  ].map(([text, note, run]) =>
    el(
      "button",
      { role: "menuitem", tabindex: -1, onclick: () => choose(run) },
      text,
      el("span", { class: "dim" }, note),
    ),
  );
  menu.replaceChildren(...items);

  function choose(run) {
    close();
    if (question()) run();
  }

  function open() {
    menu.hidden = false;
    button.setAttribute("aria-expanded", "true");
    items[0].focus();
  }

  function close() {
    menu.hidden = true;
    button.setAttribute("aria-expanded", "false");
  }

  button.addEventListener("click", () => (menu.hidden ? open() : close()));
  menu.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") {
      close();
      button.focus();
    } else if (step) items.at((items.indexOf(document.activeElement) + step) % items.length).focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".menu-box")) close();
  });
}
