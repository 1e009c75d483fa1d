// Checkpoints: take one, go back to one, download, pin, delete; each change asks first where it can't be taken back.

import { get, send } from "./api.js";
import { confirmed } from "./dialog.js";
import { byId, element, fill, row, say, table } from "./dom.js";
import { bytes, count, time } from "./format.js";

const HEAD = ["taken", "label", "learned until", "timeline", "size", ""];

export class CheckpointsView {
  constructor(mayChange, onRestored) {
    this.mayChange = mayChange;
    this.onRestored = onRestored;
    byId("reason").hidden = mayChange;
    byId("take").addEventListener("submit", (event) => {
      event.preventDefault();
      this.take();
    });
  }

  async load() {
    const { checkpoints, next } = await get("/v1/checkpoints", { limit: 50 });
    fill(byId("checkpoints"), [checkpoints, next], () => checkpoints.length === 0
      ? element("p", { class: "quiet" }, "None yet.")
      : [table(HEAD, checkpoints.map((one) => this.row(one))), next ? element("p", { class: "note" }, "The newest 50; older ones over HTTP.") : null].filter(Boolean));
  }

  row(one) {
    const path = `/v1/checkpoints/${encodeURIComponent(one.id)}`;
    const label = `${one.pinned ? "★ pinned " : ""}${one.label ?? ""}` || "–";
    const until = Object.entries(one.cursors).map(([stream, seq]) => `${stream} ${count(seq - 1)}`);
    const many = until.length > 2 ? `${until.slice(0, 2).join(", ")} and ${until.length - 2} more` : until.join(", ") || "nothing";
    const disabled = !this.mayChange;
    const named = one.label ?? time(one.created);
    return row([
      time(one.created), label, many, count(one.timeline), bytes(one.size_bytes),
      [
        element("button", { type: "button", disabled, "data-key": `${one.id}-back`, "aria-label": `Go back to ${named}`, onclick: () => this.restore(one) }, "Go back …"), " ",
        element("a", { href: `${path}/download`, download: true, "aria-label": `Download ${named}` }, "Download"), " ",
        element("button", { type: "button", disabled, "data-key": `${one.id}-pin`, "aria-label": `${one.pinned ? "Unpin" : "Pin"} ${named}`, onclick: () => this.pin(one) }, one.pinned ? "Unpin" : "Pin"), " ",
        element("button", { type: "button", disabled, "data-key": `${one.id}-delete`, "aria-label": `Delete ${named}`, onclick: () => this.delete(one) }, "Delete …"),
      ],
    ], { "data-id": one.id });
  }

  async take() {
    const label = byId("take-label").value.trim();
    const wish = { pinned: byId("take-pinned").checked, ...(label ? { label } : {}) };
    await this.change("Taking a checkpoint …", async () => {
      await send("POST", "/v1/checkpoints", wish);
      byId("take-label").value = "";
      return "Taken: it is on the disk.";
    });
  }

  async pin(one) {
    await this.change(one.pinned ? "Unpinning …" : "Pinning …", async () => {
      await send("PATCH", `/v1/checkpoints/${encodeURIComponent(one.id)}`, { pinned: !one.pinned });
      return one.pinned ? "Unpinned: it goes when newer ones take its place." : "Pinned: it stays until deleted by hand.";
    });
  }

  async restore(one) {
    const first = element("input", { type: "checkbox", id: "take-first", checked: true });
    const yes = await confirmed(`Go back to ${one.label ?? "the checkpoint"} of ${time(one.created)}?`, [
      element("p", {}, "What will happen, once all fixations before this command are learned:"),
      element("ul", {},
        element("li", {}, "Weights, optimiser and diagnostics become those of the checkpoint, for every stream: the learner is shared."),
        element("li", {}, "Every stream begins a new sequence; a new timeline begins.")),
      element("p", {}, "What will not happen:"),
      element("ul", {},
        element("li", {}, "Nothing stored is erased: fixations, records and checkpoints stay. Records made since the checkpoint stand on the old timeline and leave the curve."),
        element("li", {}, "Fixations seen since are not learned again; numbering goes on.")),
      element("p", {}, element("label", {}, first, " Take a checkpoint of now first (one can come back to it)")),
    ], "Go back");
    if (!yes) return;
    await this.change("Going back …", async () => {
      if (first.checked) await send("POST", "/v1/checkpoints", { label: "before going back", pinned: true });
      const made = await send("POST", `/v1/checkpoints/${encodeURIComponent(one.id)}/restore`);
      this.onRestored();
      return `Gone back. Timeline ${count(made.timeline)} begins.`;
    });
  }

  async delete(one) {
    const yes = await confirmed(`Delete ${one.label ?? "the checkpoint"} of ${time(one.created)}?`, [
      element("p", {}, `${bytes(one.size_bytes)} are freed. It can't be gone back to any more, and can't be made again. Fixations and records stay.`),
    ], "Delete");
    if (!yes) return;
    await this.change("Deleting …", async () => {
      await send("DELETE", `/v1/checkpoints/${encodeURIComponent(one.id)}`);
      return "Deleted.";
    });
  }

  async change(meanwhile, act) {
    say(byId("done"), meanwhile);
    try {
      say(byId("done"), await act());
    } catch (error) {
      say(byId("done"), `Not done: ${error.message}`);
    }
    await this.load().catch(() => {});
  }
}
