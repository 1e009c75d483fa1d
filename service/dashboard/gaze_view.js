// The newest fixations as patches where the gaze was, each in a border of its error's colour.

import { get, streamPath } from "./api.js";
import { cividis, legend } from "./colours.js";
import { byId } from "./dom.js";
import { count, known, number } from "./format.js";
import { begin, line, quantile } from "./plot.js";
import { Painter } from "./painter.js";
import { palette } from "./theme.js";

const KEPT = 40;
const FETCHED_A_SECOND = 6; // at 50 fixations a second the others are shown as their border alone
const SIDE = 34;
const ASPECT = 16 / 9;

export class GazeView {
  constructor(stream) {
    this.path = (rest) => streamPath(stream, rest);
    this.shown = [];
    this.fetchedAt = [];
    this.canvas = byId("gaze");
    this.note = byId("gaze-note");
    this.painter = new Painter(this.canvas, () => this.draw(), 1000);
  }

  async load(lastSeq) {
    const told = await get(this.path("/records"), { after: Math.max(-1, lastSeq - KEPT), limit: KEPT });
    const kept = new Map(this.shown.map((fixation) => [fixation.seq, fixation]));
    this.shown = [];
    for (const record of told.records) this.add(record, kept.get(record.seq)?.image);
    for (const fixation of this.shown) this.fetch(fixation);
  }

  add(record, image = null) {
    if (record.gaze === null || this.shown.some((one) => one.seq === record.seq)) return;
    const { seq, gaze, prediction_error: error, skipped } = record;
    const fixation = { seq, gaze, error, skipped, image, asked: image !== null };
    this.shown.push(fixation);
    if (this.shown.length > KEPT) this.shown.shift();
    this.painter.mark();
  }

  // A stored patch is dropped some day, or the fixation was lost: then there is no picture of it.
  fetch(fixation) {
    if (fixation.asked) return;
    fixation.asked = true;
    const image = new Image();
    image.src = this.path(`/fixations/${fixation.seq}/patch`);
    image.decode().then(() => {
      fixation.image = image;
      this.painter.mark();
    }, () => {});
  }

  // The newest that have no picture yet, as many as a second may have.
  fetchSome() {
    const now = performance.now();
    this.fetchedAt = this.fetchedAt.filter((at) => now - at < 1000);
    const waiting = this.shown.filter((fixation) => !fixation.asked).reverse();
    for (const fixation of waiting.slice(0, FETCHED_A_SECOND - this.fetchedAt.length)) {
      this.fetchedAt.push(now);
      this.fetch(fixation);
    }
  }

  draw() {
    this.fetchSome();
    const { context, width, height } = begin(this.canvas);
    const frame = place(width - 64, height);
    const { line: faint, raw, quiet } = palette();
    context.fillStyle = faint;
    context.fillRect(frame.x, frame.y, frame.width, frame.height);
    context.strokeStyle = raw;
    context.strokeRect(frame.x + 0.5, frame.y + 0.5, frame.width - 1, frame.height - 1);
    const errors = this.shown.map((one) => one.error).filter(known);
    const [low, high] = [quantile(errors, 0.05), quantile(errors, 0.95)];
    const at = ({ gaze }) => [frame.x + gaze.x * frame.width, frame.y + gaze.y * frame.height];
    line(context, this.shown.map(at), quiet, { alpha: 0.5 });
    this.shown.forEach((fixation, i) => {
      const [x, y] = at(fixation);
      const age = (this.shown.length - 1 - i) / KEPT;
      const colour = known(fixation.error) ? cividis((fixation.error - low) / (high - low || 1)) : quiet;
      context.globalAlpha = 1 - 0.75 * age;
      patch(context, fixation.image, x, y, SIDE * (i === this.shown.length - 1 ? 1.35 : 1 - 0.4 * age), colour);
      context.globalAlpha = 1;
    });
    if (errors.length) legend(context, frame.width + 12, frame.y + 22, Math.max(40, frame.height - 26), number(low, 2), number(high, 2), "error");
    this.say();
  }

  say() {
    const last = this.shown.at(-1);
    if (!last) return;
    const told = last.skipped ? `not learned (${last.skipped})` : known(last.error) ? `error ${number(last.error, 3)}` : "no prediction";
    this.note.textContent = `Newest: fixation ${count(last.seq)}, ${told}. The last ${this.shown.length}; older ones fade. Patches are not drawn to scale; grey: no prediction.`;
  }
}

// The largest frame of 16 to 9 that fits. The frame's true shape is not in a record; gaze is told in shares of it.
function place(width, height) {
  const wide = Math.min(width, height * ASPECT);
  return { x: 0, y: (height - wide / ASPECT) / 2, width: wide, height: wide / ASPECT };
}

// Without its picture (not asked for, or not kept) a fixation is a border around nothing.
function patch(context, image, x, y, side, colour) {
  const half = side / 2;
  context.strokeStyle = colour;
  context.lineWidth = 3;
  if (image) context.drawImage(image, x - half, y - half, side, side);
  context.strokeRect(x - half, y - half, side, side);
  context.lineWidth = 1;
}
