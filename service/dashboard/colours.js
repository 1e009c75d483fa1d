// A scale of colour that is read alike with every kind of colour vision, and in grey: cividis, from dark to bright.

import { palette } from "./theme.js";
import { text } from "./plot.js";

const STOPS = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 180, 104], [225, 204, 85], [254, 232, 56],
];

// The colour of a share from 0 to 1.
export function cividis(share) {
  const at = Math.min(1, Math.max(0, share)) * (STOPS.length - 1);
  const below = Math.min(STOPS.length - 2, Math.floor(at));
  const mixed = STOPS[below].map((value, i) => Math.round(value + (at - below) * (STOPS[below + 1][i] - value)));
  return `rgb(${mixed.join(" ")})`;
}

// An upright legend from `low` (bottom) to `high` (top), `title` above it.
export function legend(context, x, top, height, low, high, title) {
  const steps = 48;
  for (let i = 0; i < steps; i += 1) {
    context.fillStyle = cividis(1 - i / (steps - 1));
    context.fillRect(x, top + (i * height) / steps, 12, height / steps + 1);
  }
  context.strokeStyle = palette().line;
  context.lineWidth = 1;
  context.strokeRect(x + 0.5, top + 0.5, 11, height);
  text(context, high, x + 17, top + 4, { baseline: "middle" });
  text(context, low, x + 17, top + height - 3, { baseline: "middle" });
  text(context, title, x, top - 8);
}
