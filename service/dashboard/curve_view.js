// The loss curve as a picture one can go into: by mouse, by keys, by buttons.

import { LATEST } from "./curve.js";
import { byId } from "./dom.js";
import { count, hour, known, number, time } from "./format.js";
import { begin, columns, grid, line, nothing, quantile, scale, spaced, text, ticks } from "./plot.js";
import { Painter } from "./painter.js";
import { palette } from "./theme.js";

const LEFT = 52;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 38;
const FEWEST = 8; // fixations a view is wide, at least
const DENSE = 700; // points, from which on each column of pixels has several
const KEYS = {
  ArrowLeft: (view) => view.move(-0.25),
  ArrowRight: (view) => view.move(0.25),
  "+": (view) => view.zoom(0.5),
  "=": (view) => view.zoom(0.5),
  "-": (view) => view.zoom(2),
  Home: (view) => view.go({ mode: "all" }),
  End: (view) => view.go({ mode: "latest" }),
  Escape: (view) => view.go({ mode: "all" }),
};

export class CurveView {
  constructor(curve) {
    this.curve = curve;
    this.canvas = byId("curve");
    this.readout = byId("curve-readout");
    this.hint = this.readout.textContent;
    this.linesOnly = false;
    this.unit = "";
    this.pointer = null;
    this.drag = null;
    this.painter = new Painter(this.canvas, () => this.draw());
    this.listen();
  }

  listen() {
    const on = (id, act) => byId(id).addEventListener("click", act);
    on("view-all", () => this.go({ mode: "all" }));
    on("view-latest", () => this.go({ mode: "latest" }));
    on("view-live", () => this.go({ mode: this.before ?? "all" }));
    on("view-in", () => this.zoom(0.5));
    on("view-out", () => this.zoom(2));
    on("view-lines", () => {
      this.linesOnly = !this.linesOnly;
      this.buttons();
      this.painter.now();
    });
    this.canvas.addEventListener("keydown", (event) => {
      const act = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key];
      if (!act) return;
      event.preventDefault();
      act(this);
    });
    this.canvas.addEventListener("pointermove", (event) => this.moved(event));
    this.canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    this.canvas.addEventListener("pointerup", () => this.released());
    this.canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.painter.now();
    });
    this.canvas.addEventListener("dblclick", () => this.go({ mode: "all" }));
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return; // the page itself scrolls otherwise
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.6 : 0.625, this.x?.invert(event.offsetX));
    }, { passive: false });
  }

  pressed(event) {
    if (event.button !== 0 || !this.x) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { from: event.offsetX, moving: event.shiftKey, bounds: this.bounds() };
  }

  moved(event) {
    this.pointer = event.offsetX;
    if (this.drag?.moving) {
      const [low, high] = this.drag.bounds;
      const shift = (this.drag.from - event.offsetX) * ((high - low) / (this.x(high) - this.x(low)));
      this.later(() => this.range(low + shift, high + shift));
    }
    this.painter.now();
  }

  released() {
    const drag = this.drag;
    this.drag = null;
    if (drag && !drag.moving && this.pointer !== null && Math.abs(this.pointer - drag.from) > 6) {
      const [low, high] = [drag.from, this.pointer].sort((a, b) => a - b).map((pixel) => this.x.invert(pixel));
      this.range(low, high);
    }
    this.painter.now();
  }

  later(act) {
    clearTimeout(this.due);
    this.due = setTimeout(act, 120);
  }

  bounds() {
    const { view, every } = { view: this.curve.view, every: this.curve.every };
    if (view.mode === "range") return [view.after + 1, view.until];
    return every.length ? [every[0].seq, every.at(-1).seq] : [0, 1];
  }

  go(view) {
    this.curve.show(view);
    this.buttons();
    this.painter.now();
  }

  range(low, high) {
    const last = Math.max(this.curve.lastSeq, 1);
    const width = Math.min(last, Math.max(FEWEST, high - low));
    const first = Math.round(Math.min(Math.max(0, low), last - width));
    if (this.curve.live) this.before = this.curve.view.mode;
    this.go({ mode: "range", after: first - 1, until: Math.round(Math.min(last, first + width)) });
  }

  zoom(factor, about = null) {
    const [low, high] = this.bounds();
    const centre = about ?? (this.curve.live && factor < 1 ? high : (low + high) / 2);
    this.range(centre - (centre - low) * factor, centre + (high - centre) * factor);
  }

  move(share) {
    const [low, high] = this.bounds();
    const shift = share * (high - low);
    this.range(low + shift, high + shift);
  }

  buttons() {
    const { mode } = this.curve.view;
    byId("view-all").setAttribute("aria-pressed", mode === "all");
    byId("view-latest").setAttribute("aria-pressed", mode === "latest");
    byId("view-lines").setAttribute("aria-pressed", this.linesOnly);
    byId("view-live").hidden = mode !== "range";
  }

  changed() {
    const { curve } = this;
    const shown = curve.view.mode === "latest" ? `newest ${Math.min(LATEST, curve.count)} errors` : `${count(curve.count)} errors`;
    const [low, high] = this.bounds();
    const where = curve.live ? "live" : `fixations ${count(low)} to ${count(high)}`;
    const told = curve.failed ? `can't be read: ${curve.failed}` : `${shown}${this.unit ? ` (${this.unit})` : ""}, ${where}`;
    byId("curve-count").textContent = told;
    byId("trivial-name").textContent = (curve.shownTrivial ?? "none yet").replaceAll("_", " ");
    this.buttons();
    this.painter.mark();
  }

  // The errors between which the picture reaches. Raw ones beyond are cut at the edge, so that one does not flatten all.
  heights(points) {
    const lines = points.flatMap((point) => [point.smoothed, point.trivial_smoothed]).filter(known);
    const raw = points.map((point) => point.error);
    let low = Math.min(...lines);
    let high = Math.max(...lines);
    if (!this.linesOnly) [low, high] = [0, Math.max(high, quantile(raw, 0.985))];
    const room = (high - low || high || 1) * 0.06;
    return [this.linesOnly ? low - room : 0, high + room];
  }

  draw() {
    const points = this.curve.every;
    if (points.length === 0) {
      nothing(this.canvas, this.curve.failed ?? "No prediction error yet: it begins with the second fixation of a sequence.");
      return;
    }
    document.documentElement.classList.add("drawn");
    const { context, width, height } = begin(this.canvas);
    const [low, high] = this.bounds();
    const [bottom, top] = this.heights(points);
    const x = scale(low, Math.max(high, low + 1), LEFT, width - RIGHT);
    const y = scale(bottom, top, height - BOTTOM, TOP);
    Object.assign(this, { x, y });
    grid(context, y, ticks(bottom, top, 5), LEFT, width - RIGHT, (value) => number(value, 4));
    this.seqs(context, points, x, width, height);
    context.save();
    context.beginPath();
    context.rect(LEFT, TOP - 2, width - LEFT - RIGHT, height - BOTTOM - TOP + 3);
    context.clip();
    const colours = palette();
    const along = (key) => points.map((point) => (known(point[key]) ? [x(point.seq), y(point[key])] : null));
    if (!this.linesOnly && points.length > DENSE) columns(context, along("error"), colours.raw, 0.45);
    else if (!this.linesOnly) line(context, along("error"), colours.raw, { alpha: 0.6 });
    line(context, spaced(along("trivial_smoothed"), 2), colours.other, { width: 1.8, dash: [7, 4] });
    line(context, spaced(along("smoothed"), 2), colours.strong, { width: 2.4 });
    context.restore();
    this.pointed(context, points, height);
  }

  seqs(context, points, x, width, height) {
    for (const seq of ticks(x.low, x.high, Math.max(3, width / 150), true)) {
      const at = x(seq);
      const align = at > width - 60 ? "right" : "center";
      text(context, count(seq), align === "right" ? Math.min(width - 2, at + 20) : at, height - 22, { align });
      const near = nearest(points, seq);
      text(context, hour(near.time), align === "right" ? Math.min(width - 2, at + 20) : at, height - 8, { align });
    }
    text(context, "fixation", LEFT - 6, height - 22, { align: "right" });
    text(context, "arrived", LEFT - 6, height - 8, { align: "right" });
  }

  pointed(context, points, height) {
    if (this.pointer === null || this.pointer < LEFT) {
      this.readout.textContent = this.hint;
      return;
    }
    const { strong, ink } = palette();
    if (this.drag && !this.drag.moving) {
      context.fillStyle = strong;
      context.globalAlpha = 0.15;
      context.fillRect(this.drag.from, TOP, this.pointer - this.drag.from, height - BOTTOM - TOP);
      context.globalAlpha = 1;
    }
    const near = nearest(points, this.x.invert(this.pointer));
    const at = Math.round(this.x(near.seq)) + 0.5;
    line(context, [[at, TOP], [at, height - BOTTOM]], ink, { alpha: 0.5 });
    const means = `mean ${number(near.smoothed, 4)}, trivial predictor's ${number(near.trivial_smoothed, 4)}`;
    this.readout.textContent = `Fixation ${count(near.seq)}, ${time(near.time)}: error ${number(near.error, 4)}; ${means}`;
  }
}

function nearest(points, seq) {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].seq < seq) low = middle + 1;
    else high = middle;
  }
  const before = points[Math.max(0, low - 1)];
  return Math.abs(before.seq - seq) < Math.abs(points[low].seq - seq) ? before : points[low];
}
