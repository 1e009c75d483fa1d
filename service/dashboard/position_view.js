// Error by position in the sequence, with the untrained twin's beside it: does knowing what came before help?

import { byId } from "./dom.js";
import { count, known, number } from "./format.js";
import { begin, grid, line, logScale, nothing, scale, text, ticks, decades } from "./plot.js";
import { Painter } from "./painter.js";
import { palette } from "./theme.js";

const BINS = 40;
const LEFT = 46;
const BOTTOM = 34;
const LAST = 1000; // stands for all later positions

export class PositionView {
  constructor() {
    this.rows = [];
    this.canvas = byId("position");
    this.painter = new Painter(this.canvas, () => this.draw());
  }

  show(rows) {
    this.rows = binned(rows);
    const counts = rows.map((row) => row.count).sort((a, b) => a - b);
    const typical = counts[counts.length >> 1] ?? 0;
    const often = typical < 3
      ? "Most positions came once or twice: without marked sequences this shows little."
      : `A position came ${count(typical)} times (median).`;
    byId("position-note").textContent = rows.length === 0
      ? "Not known yet."
      : `Solid: all predictions at a position. Dashed: the untrained twin's. ${often}${rows.at(-1).position === LAST ? " 1,000 stands for all later ones." : ""}`;
    this.painter.mark();
  }

  draw() {
    const { rows } = this;
    if (rows.length === 0) return nothing(this.canvas, "Not known yet");
    const { context, width, height } = begin(this.canvas);
    const values = rows.flatMap((row) => [row.mean, row.untrained]).filter(known);
    const high = Math.max(...values) * 1.06;
    const low = Math.min(...values) > 0.4 * high ? Math.min(...values) * 0.94 : 0;
    const last = Math.max(2, rows.at(-1).position);
    const wide = last > 40;
    const x = (wide ? logScale : scale)(1, last, LEFT, width - 12);
    const y = scale(low, high, height - BOTTOM, 16);
    grid(context, y, ticks(low, high, 4), LEFT, width - 12, (value) => number(value, 3));
    for (const position of wide ? decades(1, last) : ticks(1, last, 6, true)) {
      text(context, position === LAST ? "1000+" : count(position), x(position), height - 18, { align: position === LAST ? "right" : "center" });
    }
    text(context, `position in the sequence${wide ? ", logarithmic" : ""}`, (LEFT + width) / 2, height - 4, { align: "center" });
    text(context, "error", 2, 10);
    const { strong, other } = palette();
    const along = (key) => rows.map((row) => (known(row[key]) ? [x(row.position), y(row[key])] : null));
    line(context, along("untrained"), other, { width: 1.8, dash: [7, 4] });
    line(context, along("mean"), strong, { width: 2.4 });
  }
}

// Positions drawn together where there are many: means weighted by how often each came.
function binned(rows) {
  if (rows.length <= BINS) return rows;
  const bin = (position) => Math.floor((BINS * Math.log(position)) / Math.log(LAST));
  const bins = new Map();
  for (const row of rows) {
    const at = bin(row.position);
    bins.set(at, [...(bins.get(at) ?? []), row]);
  }
  return [...bins.values()].map((together) => {
    const total = (key) => {
      const with_ = together.filter((row) => known(row[key]));
      const number_ = with_.reduce((sum, row) => sum + row.count, 0);
      return number_ ? with_.reduce((sum, row) => sum + row[key] * row.count, 0) / number_ : null;
    };
    return { position: together[Math.floor(together.length / 2)].position, mean: total("mean"), untrained: total("untrained") };
  });
}
