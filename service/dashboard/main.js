// The dashboard put together: events move it, a look at the server every two seconds says what events can't.

import { Refused, get, send } from "./api.js";
import { CheckpointsView } from "./checkpoints_view.js";
import { Curve } from "./curve.js";
import { CurveView } from "./curve_view.js";
import { byId, say } from "./dom.js";
import { Events } from "./events.js";
import { GazeView } from "./gaze_view.js";
import { gradientOfLook, startGradient } from "./gradient_view.js";
import { LearningView } from "./learning_view.js";
import { PlacesView } from "./places_view.js";
import { PositionView } from "./position_view.js";
import { RankView } from "./rank_view.js";
import { StatusView } from "./status_view.js";
import { showAlarms, showStreams } from "./streams_view.js";
import { onTheme, startTheme } from "./theme.js";
import { TrajectoryView } from "./trajectory_view.js";

const LOOK_MS = 2000;
const LOOK_LIMIT_MS = 10_000; // a look that takes longer is no connection
const DEAF_MS = 5000; // an event comes within a second of its record
const SELDOM_MS = 20_000; // diagnostics and the path of the embedding
const MAY_CHANGE = document.documentElement.dataset.may === "change";
const STREAM = document.body.dataset.stream;

const status = new StatusView();
const learning = new LearningView();
const position = new PositionView();
const rank = new RankView();
const places = new PlacesView();
const checkpoints = new CheckpointsView(MAY_CHANGE, () => fresh());
const curve = new Curve(STREAM, () => curveView.changed());
const curveView = new CurveView(curve);
const gaze = new GazeView(STREAM);
const trajectory = new TrajectoryView(STREAM);
let events = null;
let learned = 0;
let timeline = null;
let heard = -1; // the newest fixation that came as an event, or was there when they began
let missed = null; // {seq, at}: one that was learned at that look, and has not come as an event

// Look at everything again: at the start, after a cut that could not be resumed, after going back.
async function fresh() {
  await Promise.allSettled([curve.load(), look().then(begun), seldom(), checkpoints.load()]);
}

async function begun(told) {
  const stream = told?.streams.find((one) => one.stream === STREAM);
  if (!stream) return;
  heard = Math.max(heard, stream.learned_seq);
  await gaze.load(stream.learned_seq);
}

// A network that was away can leave a connection that looks open and brings nothing: then it is begun anew.
function listening(stream) {
  const now = performance.now();
  if (!events?.connected || (missed && heard >= missed.seq)) missed = null;
  if (missed && now - missed.at > DEAF_MS) {
    missed = null;
    events.again();
  } else if (!missed && stream && stream.learned_seq > heard) {
    missed = { seq: stream.learned_seq, at: now };
  }
}

function recorded(record) {
  heard = Math.max(heard, record.seq);
  gaze.add(record);
  if (curve.add(record)) curveView.changed();
}

// Streams, alarms, the worker: asked every two seconds while somebody can see it.
async function look() {
  try {
    const [told, model, ready] = await Promise.all([get("/v1/streams", { limit: 100 }, LOOK_LIMIT_MS), asked("/v1/model"), asked("/readyz")]);
    status.note("polled", "reached", true);
    status.refused = null;
    status.note("worker", "reachable", model?.worker === "reachable");
    status.model = model;
    curveView.unit = { half_mse: "half the mean squared error", cosine: "1 − cosine" }[model?.distance] ?? "";
    status.ready = ready?.ready === undefined ? null : ready;
    status.lag = told.streams.reduce((sum, one) => sum + one.lag, 0);
    showStreams(told, STREAM);
    showAlarms(told);
    const mine = told.streams.find((one) => one.stream === STREAM);
    learning.look(mine?.diagnostics ?? null);
    gradientOfLook(mine?.diagnostics);
    controls();
    if (curve.failed) curve.load();
    const forked = timeline !== null && mine && mine.timeline !== timeline; // somebody went back to a checkpoint
    if (forked || (mine && mine.learned < learned)) fresh(); // or the stream was deleted
    learned = mine?.learned ?? 0;
    timeline = mine?.timeline ?? null;
    listening(mine);
    if (!STREAM && told.streams.length) location.reload();
    status.show(STREAM);
    return told;
  } catch (error) {
    status.note("polled", "reached", error instanceof Refused);
    status.refused = error instanceof Refused ? error.message : null;
    status.show(STREAM);
    return null;
  }
}

// An answer, or null where it is refused; not ready is an answer too.
async function asked(path) {
  try {
    return await get(path, {}, LOOK_LIMIT_MS);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return error.code === "not_ready" ? { ready: false, why: error.message } : null;
  }
}

async function seldom() {
  if (!STREAM || document.hidden) return;
  await Promise.allSettled([
    trajectory.load(),
    get("/v1/diagnostics/representation", { stream: STREAM }).then((told) => {
      learning.show(told);
      rank.show(told);
      position.show(told.error_by_position);
      places.show(told.place_memory);
    }).catch(unknown),
  ]);
}

// Why nothing is known, where nothing was yet: switched off, say, or no worker.
function unknown(error) {
  learning.off = error.code === "diagnostics_off" ? error.message : null;
  for (const id of ["rank-said", "position-note", "places-note"]) {
    if (/^Not known/.test(byId(id).textContent)) say(byId(id), `Not known: ${error.message}`);
  }
}

function controls() {
  const pause = byId("pause");
  pause.hidden = status.model === null;
  pause.disabled = !MAY_CHANGE || !status.worker.reachable;
  pause.title = MAY_CHANGE ? "" : byId("reason").textContent;
  pause.textContent = status.model?.learning === false ? "Resume learning" : "Pause learning";
}

async function repeat(act, everyMs) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, everyMs));
    if (!document.hidden) await act();
  }
}

function start() {
  startTheme(byId("theme"));
  onTheme(() => {
    for (const view of [curveView, gaze, position, trajectory, rank, places, learning]) view.painter.now();
  });
  byId("stream").addEventListener("change", (event) => event.target.form.submit());
  if (!MAY_CHANGE) for (const control of document.querySelectorAll("[data-changes]")) control.disabled = true;
  byId("pause").addEventListener("click", async () => {
    byId("pause").disabled = true;
    say(byId("pause-said"), "");
    await send("PATCH", "/v1/model", { learning: status.model?.learning === false })
      .catch((error) => say(byId("pause-said"), `Not done: ${error.message}`));
    await look();
  });
  startGradient(STREAM);
  if (STREAM) {
    events = new Events(STREAM, {
      onRecord: recorded,
      onCheckpoint: () => checkpoints.load().catch(() => {}),
      onAlarm: () => look(),
      onFresh: fresh,
      onState: () => {
        status.note("events", "connected", events.connected);
        status.show(STREAM);
      },
    });
  }
  if (!STREAM) fresh();
  repeat(look, LOOK_MS);
  repeat(seldom, SELDOM_MS);
}

start();
