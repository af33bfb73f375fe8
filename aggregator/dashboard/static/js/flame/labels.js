// Which part of a name fits into a frame. Widths of ASCII are measured once a font.

import { shortName } from "../format.js";

const WIDE = 12; // anything that is not ASCII: roughly one em at 12 px

export class LabelFitter {
  constructor(context, font) {
    context.font = font;
    this.widths = new Float32Array(128);
    for (let c = 32; c < 127; c++) {
      this.widths[c] = context.measureText(String.fromCharCode(c)).width;
    }
    this.dots = context.measureText("…").width;
  }

  // How many characters fit into `room` pixels.
  fitting(text, room) {
    let width = 0;
    let i = 0;
    for (; i < text.length; i++) {
      const c = text.charCodeAt(i);
      width += c < 128 ? this.widths[c] : WIDE;
      if (width > room) break;
    }
    return i;
  }

  // The whole name, else its last part, else its beginning and "…", else nothing.
  fit(text, room) {
    if (this.fitting(text, room) >= text.length) return text;
    const short = shortName(text);
    if (this.fitting(short, room) >= short.length) return short;
    const letters = this.fitting(short, room - this.dots);
    return letters > 1 ? short.slice(0, letters) + "…" : "";
  }
}
