// Colours of frames: hue by kind, three lightness steps by module, so that neighbours from different
// modules part. All colours come from the tokens in css/tokens.css.

import { KINDS } from "../model.js";

const rgb = (colour) => {
  const v = parseInt(colour.slice(1), 16);
  return [v >> 16, (v >> 8) & 255, v & 255];
};

export function mix(a, b, share) {
  const to = rgb(b);
  const parts = rgb(a).map((v, i) => Math.round(v + (to[i] - v) * share));
  return "#" + parts.map((v) => v.toString(16).padStart(2, "0")).join("");
}

export function readTokens() {
  const css = getComputedStyle(document.documentElement);
  const get = (name) => css.getPropertyValue(name).trim();
  return {
    surface: get("--surface"),
    frameInk: get("--k-ink"),
    ink: get("--ink"),
    accent: get("--accent"),
    kinds: KINDS.map((kind) => get("--k-" + kind)),
    font: `12px ${get("--font")}`,
    rowHeight: parseFloat(get("--frame")),
    zoomMs: parseFloat(get("--zoom")) || 0,
  };
}

function stepOf(module) {
  let h = 7;
  for (let i = 0; i < module.length; i++) h = (h * 33 + module.charCodeAt(i)) >>> 0;
  return h % 3;
}

// {colours, pale: three steps a kind; index: into them, one a function}
export function paletteOf(m, tokens) {
  const colours = tokens.kinds.flatMap((c) => [
    c,
    mix(c, tokens.surface, 0.16),
    mix(c, tokens.frameInk, 0.06),
  ]);
  const steps = m.modules.map(stepOf);
  return {
    colours,
    pale: colours.map((c) => mix(c, tokens.surface, 0.74)),
    index: Uint8Array.from(m.kinds, (kind, f) => kind * 3 + steps[f]),
  };
}
