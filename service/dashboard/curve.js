// The loss curve as numbers: what the server thinned, and every fixation that came since, with exact running means.
//
// Modes: `all` (the whole history), `latest` (the newest fixations, each) and `range` (from after + 1 to until, at rest).

import { get, streamPath } from "./api.js";

const POINTS = 2000;
const RAW_POINTS = 10_000;
export const LATEST = 500;
const MOST_TAIL = 600; // more than this since the last look at the server, and it is asked to thin anew
const LOAD_EVERY_MS = 10_000;

export class Curve {
  constructor(stream, onChange) {
    this.path = streamPath(stream, "/loss");
    this.onChange = onChange;
    this.view = { mode: "all" };
    this.points = [];
    this.tail = [];
    this.recent = [];
    this.pending = [];
    this.window = 100;
    this.trivialName = null;
    this.shownTrivial = null;
    this.count = 0;
    this.newest = -1;
    this.timeline = null;
    this.loading = 0;
    this.loadedAt = -Infinity;
    this.failed = null;
  }

  get live() {
    return this.view.mode !== "range";
  }

  get every() {
    return this.live ? this.points.concat(this.tail) : this.points;
  }

  get lastSeq() {
    return Math.max(this.tail.at(-1)?.seq ?? -1, this.newest);
  }

  show(view) {
    this.view = view;
    return this.load();
  }

  // Ask the server for what the view shows; of two questions under way only the later one's answer counts.
  async load() {
    const asked = ++this.loading;
    this.pending = []; // what came before the question is in its answer, or on a timeline that was left
    this.loadedAt = performance.now();
    try {
      const told = await get(this.path, this.parameters());
      const recent = this.live ? await this.means(told) : null;
      if (asked !== this.loading) return;
      this.failed = null;
      this.take(told, recent);
    } catch (error) {
      if (asked !== this.loading) return;
      this.failed = error.message;
    }
    this.onChange();
  }

  parameters() {
    const { mode, after, until } = this.view;
    if (mode === "range") return { points: POINTS, after, until };
    if (mode === "latest") return { points: RAW_POINTS, after: Math.max(-1, this.lastSeq - LATEST) };
    return { points: POINTS };
  }

  // The errors the next running mean is made of: the last `window`, each.
  async means(told) {
    const whole = (points) => points.slice(-told.window).map(({ error, trivial }) => ({ error, trivial: trivial ?? null }));
    if (told.count === told.points.length && (told.count >= told.window || this.view.mode === "all")) {
      return whole(told.points);
    }
    const last = told.newest ?? -1;
    for (const times of [3, 30]) {
      const after = Math.max(-1, last - times * told.window);
      const near = await get(this.path, { points: RAW_POINTS, after, until: Math.max(0, last) });
      if (near.count >= told.window || after === -1 || times === 30) return whole(near.points);
    }
    return [];
  }

  take(told, recent) {
    this.points = told.points;
    this.count = told.count;
    this.window = told.window;
    this.shownTrivial = told.trivial_name ?? null; // the best one in what is shown
    if (!this.live) return;
    this.trivialName = this.shownTrivial;
    this.newest = told.newest ?? -1; // it may be thinned away
    this.recent = recent;
    this.tail = [];
    const late = this.pending.filter((record) => record.seq > this.newest);
    this.pending = [];
    for (const record of late) this.append(record);
  }

  // A record that came as an event; true where the curve is another by it.
  add(record) {
    if (this.timeline !== null && record.timeline !== this.timeline) {
      this.timeline = record.timeline;
      this.load();
      return false;
    }
    this.timeline = record.timeline;
    if (record.prediction_error === null || !(record.seq > this.lastSeq)) return false;
    this.pending.push(record);
    if (this.pending.length > 2 * MOST_TAIL) this.pending.shift();
    if (!this.live) {
      this.newest = record.seq; // so far one can move along
      return false;
    }
    this.append(record);
    const waited = performance.now() - this.loadedAt;
    if (this.tail.length > MOST_TAIL && waited > LOAD_EVERY_MS) this.load();
    return true;
  }

  append(record) {
    const trivial = this.trivialName === null ? null : (record.trivial_error[this.trivialName] ?? null);
    this.recent.push({ error: record.prediction_error, trivial });
    if (this.recent.length > this.window) this.recent.shift();
    this.tail.push({
      seq: record.seq,
      time: record.time,
      error: record.prediction_error,
      trivial,
      smoothed: mean(this.recent.map((one) => one.error)),
      trivial_smoothed: mean(this.recent.map((one) => one.trivial)),
    });
    this.count += 1;
    if (this.view.mode === "latest" && this.points.length + this.tail.length > LATEST) {
      this.points.splice(0, this.points.length + this.tail.length - LATEST);
      if (this.points.length === 0) this.tail.splice(0, this.tail.length - LATEST);
      this.count = this.points.length + this.tail.length;
    }
  }
}

function mean(values) {
  let sum = 0;
  let number = 0;
  for (const value of values) {
    if (value === null) continue;
    sum += value;
    number += 1;
  }
  return number ? sum / number : null;
}
