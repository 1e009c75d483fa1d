// The newest embeddings as a path in the plane of their two main components, older parts fainter.

import { get, streamPath } from "./api.js";
import { byId } from "./dom.js";
import { count, percent } from "./format.js";
import { begin, nothing, scale, text } from "./plot.js";
import { Painter } from "./painter.js";
import { palette } from "./theme.js";

const POINTS = 300;

export class TrajectoryView {
  constructor(stream) {
    this.path = streamPath(stream, "/trajectory");
    this.told = null;
    this.canvas = byId("trajectory");
    this.painter = new Painter(this.canvas, () => this.draw());
  }

  async load() {
    this.told = await get(this.path, { points: POINTS });
    const { points, shares } = this.told;
    byId("trajectory-note").textContent = points.length === 0
      ? "No embedding yet."
      : `Fixations ${count(points[0].seq)} to ${count(points.at(-1).seq)}; the ring is the newest. The plane holds ${percent(shares[0] + shares[1])} of their variance: what happens outside it is not seen.`;
    this.painter.mark();
  }

  draw() {
    if (!this.told || this.told.points.length === 0) return nothing(this.canvas, "No embedding yet");
    const { context, width, height } = begin(this.canvas);
    const { points, shares } = this.told;
    const { line, strong, other } = palette();
    const { x, y } = place(points, width, height - 18);
    const [centre, middle] = [x(0), y(0)];
    context.strokeStyle = line;
    context.beginPath();
    context.moveTo(0, middle);
    context.lineTo(width, middle);
    context.moveTo(centre, 0);
    context.lineTo(centre, height - 18);
    context.stroke();
    context.strokeStyle = strong;
    context.fillStyle = strong;
    for (let i = 1; i < points.length; i += 1) {
      context.globalAlpha = 0.06 + 0.5 * (i / points.length) ** 3;
      context.beginPath();
      context.moveTo(x(points[i - 1].first), y(points[i - 1].second));
      context.lineTo(x(points[i].first), y(points[i].second));
      context.stroke();
    }
    points.forEach((point, i) => {
      context.globalAlpha = 0.2 + 0.8 * (i / points.length) ** 2;
      context.fillRect(x(point.first) - 1.6, y(point.second) - 1.6, 3.2, 3.2);
    });
    context.globalAlpha = 1;
    const last = points.at(-1);
    context.strokeStyle = other;
    context.lineWidth = 2.5;
    context.beginPath();
    context.arc(x(last.first), y(last.second), 6, 0, 2 * Math.PI);
    context.stroke();
    context.lineWidth = 1;
    text(context, `first component, ${percent(shares[0])} of variance →`, width, height - 3, { align: "right" });
    text(context, `↑ second, ${percent(shares[1])}`, 0, 11);
  }
}

// Both directions to the same scale, the path as large as it fits.
function place(points, width, height) {
  const ends = (key) => [Math.min(0, ...points.map((point) => point[key])), Math.max(0, ...points.map((point) => point[key]))];
  const [left, right] = ends("first");
  const [low, high] = ends("second");
  const perUnit = Math.min((width - 24) / (right - left || 1), (height - 24) / (high - low || 1));
  const [halfX, halfY] = [width / 2 / perUnit, height / 2 / perUnit];
  const [midX, midY] = [(left + right) / 2, (low + high) / 2];
  return { x: scale(midX - halfX, midX + halfX, 0, width), y: scale(midY - halfY, midY + halfY, height, 0) };
}
