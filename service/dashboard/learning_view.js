// Whether it learns: the word, why, and the skills with their intervals on one scale.

import { byId, element, fill } from "./dom.js";
import { count, fixed, hour, interval, known, percent, signed, time, words } from "./format.js";
import { begin, scale, text } from "./plot.js";
import { Painter } from "./painter.js";
import { palette } from "./theme.js";

const ROWS = [
  ["skill", "skill"],
  ["skill_ar1_interval", "without scene"],
  ["learned_skill", "learned skill"],
];

export class LearningView {
  constructor() {
    this.told = {};
    this.off = null; // why there will be no look
    this.canvas = byId("intervals");
    this.painter = new Painter(this.canvas, () => this.draw());
  }

  // The last regular look, as every stream carries it: the word comes from here. Null before 600 predictions.
  look(look) {
    fill(byId("word"), [look, this.off], () => {
      if (!look) {
        return [
          element("p", { class: "verdict quiet" }, element("span", { class: "sign", "aria-hidden": "true" }, "○"), "not learning yet"),
          element("p", { class: "why" }, `Or not known: ${this.off ?? "no look was taken yet. The first is at 600 predictions."}`),
        ];
      }
      const sign = look.learning ? "●" : "○";
      return [
        element("p", { class: `verdict ${look.learning ? "good" : "bad"}` }, element("span", { class: "sign", "aria-hidden": "true" }, sign), look.verdict),
        element("p", { class: "why" }, look.why),
        element("p", { class: "note" }, `The word is as of fixation ${count(look.seq)}, ${time(look.time)}.`),
      ];
    });
    if (look && !this.told.skill) this.told = { skill: look.skill, learned_skill: look.learned_skill };
    this.painter.mark();
  }

  // All of GET /v1/diagnostics/representation, as of now.
  show(told) {
    this.told = told;
    const better = (value, other) => `${percent(value)} (${percent(other)})`;
    const rows = [
      ["opponent", words(told.opponent)],
      ["own skill (shows nothing alone)", signed(told.own_skill)],
      ["retrieval among 100 (trivial's)", better(told.retrieval, told.retrieval_trivial)],
      ["probe R² (untrained's; ceiling)", `${fixed(told.probe)} (${fixed(told.probe_untrained)}; ${fixed(told.probe_ceiling)})`],
      ["predictions (in the window)", `${count(told.count)} (${count(told.window)})`],
      ["all these measured at", hour(Date.now() / 1000)],
    ];
    fill(byId("measures"), rows, () => rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    this.canvas.setAttribute("aria-label", ROWS.map(([key, name]) => `${name} ${interval(told[key])}`).join("; "));
    this.painter.mark();
  }

  draw() {
    const { context, width, height } = begin(this.canvas);
    const { ink, quiet, line, strong, raw } = palette();
    const shown = ROWS.map(([key, name]) => [name, this.told[key]]);
    const ends = shown.flatMap(([, told]) => (told && known(told.value) ? [told.low ?? told.value, told.high ?? told.value] : []));
    const [least, most] = [Math.min(-0.02, ...ends), Math.max(0.02, ...ends)];
    const room = 0.06 * (most - least);
    const x = scale(least - room, most + room, 4, width - 4);
    const step = height / ROWS.length;
    const zero = Math.round(x(0));
    shown.forEach(([name, told], i) => {
      const y = Math.round(i * step) + 26;
      text(context, name, 0, y - 13, { colour: quiet });
      text(context, interval(told), width, y - 13, { align: "right", colour: ink });
      context.fillStyle = line;
      context.fillRect(0, y - 1, width, 1);
      context.fillStyle = raw;
      context.fillRect(zero, y - 7, 1, 14);
      if (!told || !known(told.value)) return;
      context.fillStyle = strong;
      if (known(told.low) && known(told.high)) context.fillRect(x(told.low), y - 3, Math.max(2, x(told.high) - x(told.low)), 5);
      context.beginPath();
      context.arc(x(told.value), y - 0.5, 4.5, 0, 2 * Math.PI);
      context.fill();
    });
    text(context, "0", zero, height - 1, { align: "center" });
  }
}
