// The line at the top: whether events come, whether the worker answers, whether it learns; since when, if not.

import { byId, element, fill } from "./dom.js";
import { count, hour } from "./format.js";

const LAG_TOLD = 10; // fewer come and go all the time; the table of streams has them

export class StatusView {
  constructor() {
    this.events = { connected: false, since: Date.now() / 1000 };
    this.polled = { reached: true, since: Date.now() / 1000 };
    this.worker = { reachable: true, since: Date.now() / 1000 };
    this.refused = null;
    this.model = null;
    this.ready = null;
    this.lag = 0;
  }

  // Each of these changes seldom; `since` is when it did.
  note(which, key, value) {
    if (this[which][key] !== value) this[which] = { [key]: value, since: Date.now() / 1000 };
  }

  show(stream) {
    const parts = [this.connection(stream), ...this.learner()];
    fill(byId("state"), parts, () => parts.map(({ kind, sign, said }) => element(
      "span", { class: kind }, sign ? element("span", { class: "sign", "aria-hidden": "true" }, sign) : null, said,
    )));
    const bad = parts.some((part) => part.kind === "bad");
    document.title = `${bad ? "▲ " : ""}${stream ? `${stream} · ` : ""}rjepa`;
  }

  connection(stream) {
    if (!this.polled.reached) return bad(`no connection since ${hour(this.polled.since)}: what is shown is from then`);
    if (this.refused) return bad(`can't be read now: ${this.refused}`);
    if (!stream) return quiet("waits for the first stream");
    if (!this.events.connected) return bad(`no live events since ${hour(this.events.since)}; trying again`);
    return { kind: "good", sign: "●", said: "live" };
  }

  learner() {
    if (!this.polled.reached || this.refused) return [];
    const { model, ready } = this;
    if (!this.worker.reachable) return [bad(`worker away since ${hour(this.worker.since)}: nothing is learned now`)];
    if (!model) return [quiet("no model has been made yet")];
    const found = [];
    if (ready && !ready.ready) found.push(bad(ready.why));
    found.push(model.learning ? { kind: "good", sign: "●", said: "learning is on" } : bad("learning is paused: fixations are stored and passed by"));
    if (this.lag >= LAG_TOLD && ready?.ready !== false) found.push(quiet(`${count(this.lag)} fixations wait to be learned`));
    const exact = model.rfp_exact ? "exact" : "approximate";
    const total = model.parameters.total ? `, ${count(model.parameters.total)} parameters` : "";
    found.push(quiet(`${model.gates} gates, ${count(model.units)} units${total}, gradient ${exact}, on ${model.device}`));
    return found;
  }
}

const bad = (said) => ({ kind: "bad", sign: "▲", said });
const quiet = (said) => ({ kind: "quiet", sign: "", said });
