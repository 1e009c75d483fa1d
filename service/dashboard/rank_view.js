// The rank of the embedding against the frozen network's, and the spectrum it is made of.

import { byId, say } from "./dom.js";
import { fixed, known, number } from "./format.js";
import { begin, decades, grid, line, logScale, nothing, scale, text } from "./plot.js";
import { Painter } from "./painter.js";
import { palette } from "./theme.js";

const LEFT = 46;
const SMALLEST = 1e-6; // of the largest eigenvalue: below it is rounding

export class RankView {
  constructor() {
    this.spectrum = [];
    this.canvas = byId("rank");
    this.painter = new Painter(this.canvas, () => this.draw());
  }

  show(told) {
    this.spectrum = told.spectrum.filter((value) => value > SMALLEST * told.spectrum[0]);
    if (known(told.effective_rank)) {
      const frozen = known(told.effective_rank_frozen)
        ? `, ${fixed(told.effective_rank_frozen, 1)} by the network as it began (ratio ${fixed(told.rank_ratio, 2)})`
        : "";
      say(byId("rank-said"), `Effective rank ${fixed(told.effective_rank, 1)}${frozen}.`);
    }
    this.painter.mark();
  }

  draw() {
    const { spectrum } = this;
    if (spectrum.length < 2) return nothing(this.canvas, "Not known yet");
    const { context, width, height } = begin(this.canvas);
    const [low, high] = [Math.min(...spectrum) * 0.8, spectrum[0] * 1.3];
    const x = scale(1, spectrum.length, LEFT, width - 8);
    const y = logScale(low, high, height - 18, 6);
    grid(context, y, decades(low, high), LEFT, width - 8, (value) => (value >= 0.01 ? number(value, 1) : value.toExponential(0).replace("-", "−")));
    text(context, "1", x(1), height - 4, { align: "center" });
    text(context, `dimension ${spectrum.length}`, width - 4, height - 4, { align: "right" });
    line(context, spectrum.map((value, i) => [x(i + 1), y(value)]), palette().strong, { width: 2 });
  }
}
