// The flamegraph: what is zoomed, selected and hovered, and the canvas that shows it. Zoom and
// selection are kept as places, so a new answer (refresh) shows the same ones although its frames
// have other indexes and names. Emits "hover", "select" and "zoom" (detail: frame, pointer).

import { firstAt, labelOf } from "../model.js";
import { follow, placeOf } from "../place.js";
import { LabelFitter } from "./labels.js";
import { outline, paint } from "./paint.js";
import { paletteOf, readTokens } from "./palette.js";

const PADDING = 4;
const ease = (t) => 1 - (1 - t) ** 3;

export class FlameGraph extends EventTarget {
  constructor(box) {
    super();
    this.box = box;
    this.m = null;
    this.hit = null;
    this.icicle = true;
    this.zoomPlace = [];
    this.selectedPlace = [];
    this.undo = []; // places
    this.free = false; // true: a window chosen in the minimap, not a frame
    this.hovered = -1;
    this.animation = 0;
    this.pin = box.querySelector(".flame-pin");
    this.tall = box.querySelector(".flame-tall");
    this.item = box.querySelector("[role=treeitem]");
    this.canvas = box.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.setTheme();
    new ResizeObserver(() => this.resize()).observe(box);
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    box.addEventListener("focus", () => this.draw());
    box.addEventListener("blur", () => this.draw());
  }

  setModel(m) {
    const first = this.m === null;
    const share = this.m?.sum ? m.sum / this.m.sum : 1;
    const before = this.fullHeight ?? 0;
    this.m = m;
    this.animation++; // a running zoom ends where it was going
    ({ frame: this.zoomed, place: this.zoomPlace } = follow(m, this.zoomPlace));
    ({ frame: this.selected, place: this.selectedPlace } = follow(m, this.selectedPlace));
    if (this.free && !first) {
      this.v0 *= share;
      this.v1 *= share;
    } else {
      [this.v0, this.v1] = this.windowOf(this.zoomed);
    }
    this.hit = null;
    this.setTheme();
    if (!this.icicle) this.box.scrollTop += first ? this.fullHeight : this.fullHeight - before;
    this.hoverAgain();
    this.describe();
    this.emit("zoom", this.zoomed);
    this.emit("select", this.selected);
  }

  setTheme() {
    this.tokens = readTokens();
    this.fitter = new LabelFitter(this.context, this.tokens.font);
    if (this.m) this.palette = paletteOf(this.m, this.tokens);
    this.resize();
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    this.width = this.box.clientWidth;
    this.height = this.box.clientHeight;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.width = this.width + "px";
    this.canvas.style.height = this.height + "px";
    this.pin.style.height = this.height + "px";
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.fillStyle = this.tokens.surface;
    this.context.fillRect(0, 0, this.width, this.height);
    if (!this.m) return;
    this.fullHeight = this.m.depth * this.tokens.rowHeight + 2 * PADDING;
    this.tall.style.height = Math.max(0, this.fullHeight - this.height) + "px";
    this.draw();
  }

  // Distance of a level from the top of the scrolled content.
  offsetOf(level) {
    const row = this.tokens.rowHeight;
    if (this.icicle) return PADDING + level * row;
    return Math.max(this.fullHeight, this.height) - PADDING - (level + 1) * row;
  }

  draw() {
    if (!this.m?.n || !this.width) return;
    const top = this.box.scrollTop;
    const scene = {
      ...{ m: this.m, palette: this.palette, tokens: this.tokens, hit: this.hit },
      ...{ fitter: this.fitter, v0: this.v0, v1: this.v1, zoomed: this.zoomed },
      ...{ width: this.width, height: this.height, rowHeight: this.tokens.rowHeight },
      yOf: (level) => this.offsetOf(level) - top,
    };
    paint(this.context, scene);
    if (this.hovered >= 0) outline(this.context, scene, this.hovered, this.tokens.ink, 1);
    const focused = document.activeElement === this.box;
    outline(this.context, scene, this.selected, this.tokens.accent, focused ? 2.5 : 1.5);
    this.emit("draw", this.zoomed);
  }

  frameAt({ clientX, clientY }) {
    const m = this.m;
    if (!m?.n) return -1;
    const rect = this.canvas.getBoundingClientRect();
    const y = clientY - rect.top + this.box.scrollTop;
    const row = this.tokens.rowHeight;
    const down = this.icicle ? y - PADDING : Math.max(this.fullHeight, this.height) - PADDING - y;
    const level = Math.floor(down / row);
    if (level < 0 || level >= m.depth) return -1;
    const x = this.v0 + ((clientX - rect.left) / this.width) * (this.v1 - this.v0);
    const i = firstAt(m, level, x);
    return i < m.start[level + 1] && m.x[i] <= x ? i : -1;
  }

  hover(pointer) {
    this.pointer = pointer;
    const i = pointer ? this.frameAt(pointer) : -1;
    if (i !== this.hovered) {
      this.hovered = i;
      this.draw();
    }
    this.emit("hover", i, pointer);
  }

  hoverAgain() {
    this.hovered = -1;
    if (this.pointer) this.hover(this.pointer);
  }

  describe() {
    const m = this.m;
    if (!m.n) return;
    const i = this.selected;
    const share = m.sum ? (100 * m.total[i]) / m.sum : 0;
    this.item.setAttribute("aria-level", m.level[i] + 1);
    this.item.textContent = `${labelOf(m, i)}, ${share.toFixed(2)} percent of CPU`;
  }

  select(i) {
    this.selected = i;
    this.selectedPlace = placeOf(this.m, i);
    this.describe();
    this.scrollTo(this.m.level[i]);
    this.draw();
    this.emit("select", i);
  }

  scrollTo(level) {
    const row = this.tokens.rowHeight;
    const top = this.offsetOf(level);
    if (top < this.box.scrollTop) this.box.scrollTop = top - row;
    else if (top + row > this.box.scrollTop + this.height) {
      this.box.scrollTop = top + 2 * row - this.height;
    }
  }

  windowOf(i) {
    return this.m.n ? [this.m.x[i], this.m.x[i] + this.m.total[i]] : [0, 1];
  }

  zoom(i, { remember = true, animate = true } = {}) {
    if (remember && i !== this.zoomed) this.undo.push(this.zoomPlace);
    this.zoomed = i;
    this.zoomPlace = placeOf(this.m, i);
    this.free = false;
    this.moveWindow(...this.windowOf(i), animate);
    this.emit("zoom", i);
  }

  back() {
    if (this.free) this.zoom(this.zoomed, { remember: false });
    else if (this.undo.length) this.zoom(follow(this.m, this.undo.pop()).frame, { remember: false });
  }

  // A window of the x axis that is no frame (from the minimap).
  showWindow(v0, v1) {
    this.free = true;
    this.moveWindow(v0, v1, true);
  }

  moveWindow(v0, v1, animate) {
    const [from0, from1] = [this.v0, this.v1];
    const run = ++this.animation;
    const began = performance.now();
    const frame = (now) => {
      if (run !== this.animation) return;
      const ms = animate ? this.tokens.zoomMs : 0;
      const t = ms ? Math.min(1, Math.max(0, (now - began) / ms)) : 1;
      this.v0 = from0 + (v0 - from0) * ease(t);
      this.v1 = from1 + (v1 - from1) * ease(t);
      if (t < 1) requestAnimationFrame(frame);
      this.draw();
    };
    frame(began);
  }

  setHit(hit) {
    this.hit = hit;
    this.draw();
    this.emit("hit", this.zoomed);
  }

  setIcicle(icicle) {
    this.icicle = icicle;
    if (!this.m) return;
    this.box.scrollTop = icicle ? 0 : this.fullHeight;
    this.draw();
    this.emit("hit", this.zoomed);
  }

  emit(type, frame, pointer) {
    this.dispatchEvent(new CustomEvent(type, { detail: { frame, pointer } }));
  }
}
