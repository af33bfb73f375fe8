// Pointer and keyboard of the flamegraph. Arrows move by sight: deeper is down in icicle, up in flame.

import { heaviestChild, isOther, sibling } from "../model.js";
import { nextMatch } from "../search.js";

export function listen(graph) {
  const { box } = graph;
  box.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "touch") graph.hover({ clientX: event.clientX, clientY: event.clientY });
  });
  box.addEventListener("pointerleave", () => graph.hover(null));
  box.addEventListener("click", (event) => {
    const i = graph.frameAt(event);
    if (i < 0) return;
    open(graph, i);
  });
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !graph.m?.n) return;
    if (act(graph, event.key)) event.preventDefault();
  });
}

// Zooms into a frame. What stands for frames that are not drawn is none: it asks for them.
function open(graph, i) {
  graph.select(i);
  if (isOther(graph.m, i)) graph.emit("other", i);
  else graph.zoom(i);
}

// → true where the key meant something here.
export function act(graph, key) {
  const { m, selected } = graph;
  const deeper = graph.icicle ? "ArrowDown" : "ArrowUp";
  const outer = graph.icicle ? "ArrowUp" : "ArrowDown";
  switch (key) {
    case deeper:
      return go(graph, heaviestChild(m, selected));
    case outer:
      return go(graph, m.parent[selected]);
    case "ArrowRight":
      return go(graph, sibling(m, selected, 1));
    case "ArrowLeft":
      return go(graph, sibling(m, selected, -1));
    case "Home":
      return go(graph, 0);
    case "Enter":
    case " ":
      open(graph, selected);
      return true;
    case "Backspace":
      graph.back();
      return true;
    case "Escape":
      graph.zoom(0);
      graph.select(0);
      return true;
    case "n":
    case "N":
      return goToMatch(graph, key === "n" ? 1 : -1);
    default:
      return false;
  }
}

export function goToMatch(graph, step) {
  return graph.hit !== null && go(graph, nextMatch(graph.m, graph.hit, graph.selected, step));
}

// Selects a frame; where it lies outside the window, zooms out to its nearest caller that shows it.
function go(graph, i) {
  if (i < 0) return true;
  const { m } = graph;
  const slack = m.sum * 1e-9;
  const hidden = m.x[i] < graph.v0 - slack || m.x[i] + m.total[i] > graph.v1 + slack;
  const ancestor = m.level[i] < m.level[graph.zoomed];
  if (hidden && !ancestor) graph.zoom(Math.max(0, m.parent[i]));
  graph.select(i);
  return true;
}
