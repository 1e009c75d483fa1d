// What every drawing here is made of: a sharp canvas, scales, round ticks, axes.
//
// A drawing of our own and no plotting library: docs/dashboard.md says what was measured.

import { palette } from "./theme.js";

export const FONT = "12px system-ui, sans-serif";

// The canvas at the screen's resolution, cleared: {context, width, height} in CSS pixels.
export function begin(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  context.lineJoin = "round";
  return { context, width, height };
}

// A map from values to pixels; `invert` goes back.
export function scale(low, high, from, to) {
  const factor = (to - from) / (high - low || 1);
  const map = (value) => from + (value - low) * factor;
  map.invert = (pixel) => low + (pixel - from) / factor;
  map.low = low;
  map.high = high;
  return map;
}

export function logScale(low, high, from, to) {
  const inner = scale(Math.log(low), Math.log(high), from, to);
  const map = (value) => inner(Math.log(value));
  map.low = low;
  map.high = high;
  return map;
}

// Round numbers between low and high, about `wanted` of them; whole ones where `whole`.
export function ticks(low, high, wanted, whole = false) {
  const spread = high - low;
  if (!(spread > 0)) return [low];
  const rough = spread / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return found;
}

export function decades(low, high) {
  const found = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); 10 ** power <= high * 1.0001; power += 1) found.push(10 ** power);
  return found;
}

export function text(context, said, x, y, { align = "left", colour = palette().quiet, baseline = "alphabetic" } = {}) {
  context.fillStyle = colour;
  context.textAlign = align;
  context.textBaseline = baseline;
  context.fillText(said, x, y);
}

export function grid(context, y, values, left, right, told) {
  context.strokeStyle = palette().line;
  context.lineWidth = 1;
  for (const value of values) {
    const at = Math.round(y(value)) + 0.5;
    context.beginPath();
    context.moveTo(left, at);
    context.lineTo(right, at);
    context.stroke();
    text(context, told(value), left - 6, at, { align: "right", baseline: "middle" });
  }
}

// One line through the places [x, y]; a null breaks it.
export function line(context, places, colour, { width = 1, alpha = 1, dash = [] } = {}) {
  context.save();
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.globalAlpha = alpha;
  context.setLineDash(dash);
  context.beginPath();
  let down = false;
  for (const place of places) {
    if (place === null) {
      down = false;
      continue;
    }
    if (down) context.lineTo(place[0], place[1]);
    else context.moveTo(place[0], place[1]);
    down = true;
  }
  context.stroke();
  context.restore();
}

export function nothing(canvas, said) {
  const { context, width, height } = begin(canvas);
  text(context, said, width / 2, height / 2, { align: "center", baseline: "middle" });
}

export function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  return sorted.length ? sorted[Math.floor(share * (sorted.length - 1))] : NaN;
}

// Of places closer together than `step` pixels the first: what a line as wide as that can show. The last stays.
export function spaced(places, step) {
  const kept = [];
  for (const [i, place] of places.entries()) {
    const before = kept.at(-1);
    if (!before || !place || place[0] - before[0] >= step || i === places.length - 1) kept.push(place);
  }
  return kept;
}

// Many values as one upright bar for each column of pixels, from its least to its greatest: many times cheaper than a line
// through all of them, and the same to the eye.
export function columns(context, places, colour, alpha) {
  context.save();
  context.fillStyle = colour;
  context.globalAlpha = alpha;
  let column = null;
  let [top, bottom] = [0, 0];
  const put = () => column !== null && context.fillRect(column, top, 1, Math.max(1, bottom - top));
  for (const [x, y] of places) {
    const at = Math.round(x);
    if (at === column) {
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    } else {
      put();
      [column, top, bottom] = [at, y, y];
    }
  }
  put();
  context.restore();
}
