// The picture of the place memory: which parts of the frame are known, and how well.

import { byId, say } from "./dom.js";
import { cividis, legend } from "./colours.js";
import { percent } from "./format.js";
import { begin, nothing } from "./plot.js";
import { Painter } from "./painter.js";

export class PlacesView {
  constructor() {
    this.places = null;
    this.canvas = byId("places");
    this.painter = new Painter(this.canvas, () => this.draw());
  }

  show(places) {
    this.places = places;
    const cells = places ? places.known.flat() : [];
    const seen = cells.filter((value) => value > 0.1).length;
    say(byId("places-note"), places
      ? `How well each part of the frame is known: 0 never looked at, 1 just seen. ${seen} of ${cells.length} cells over 0.1. It can't show whether that is of use.`
      : "This model keeps no memory of places.");
    this.canvas.setAttribute("aria-label", places ? `Place memory: ${percent(seen / cells.length)} of the frame known` : "No place memory");
    this.painter.mark();
  }

  draw() {
    if (!this.places) return nothing(this.canvas, "Not known yet");
    const { context, width, height } = begin(this.canvas);
    const { columns, rows, known } = this.places;
    const side = Math.min((width - 60) / columns, height / rows);
    known.forEach((row, j) => row.forEach((value, i) => {
      context.fillStyle = cividis(value);
      context.fillRect(i * side, j * side, side - 1, side - 1);
    }));
    legend(context, columns * side + 14, 22, Math.max(30, rows * side - 30), "0", "1", "known");
  }
}
