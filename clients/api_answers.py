"""What the HTTP interface answers, as typed objects; docs/http.md says what each number is.

Times are unix seconds unless said otherwise, durations seconds, latencies milliseconds. A member that this version
does not know is kept beside the others.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["learning", "not learning yet"]


class Answer(BaseModel):
    """The base of all answers."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Ready(Answer):
    """The journal can be written, recovery is finished and the lag is under its limit."""

    ready: bool
    waiting: int
    lag_limit: int


class Model(Answer):
    """The learner. ``worker`` is unreachable where this is what it last wrote down."""

    gates: str
    retention: str
    distance: Literal["half_mse", "cosine"]
    rfp_exact: bool
    embedding_size: int
    units: int
    parameters: dict[str, Any]
    device: str
    weights: Any
    learning: bool
    worker: Literal["reachable", "unreachable"]


class Alarm(Answer):
    """Something the operator should know."""

    time: float
    kind: str
    stream: str | None
    detail: str


class AlarmOn(Answer):
    """An alarm that is on now."""

    since: float
    kind: str
    stream: str | None
    detail: str


class Alarms(Answer):
    """Of the whole: the newest ``alarms``, newest first, and those that belong to no stream and are on now."""

    alarms: list[Alarm]
    alarms_on: list[AlarmOn]


class Interval(Answer):
    """A value with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


class Warned(Answer):
    """An alarm about learning that is on."""

    kind: str
    detail: str
    since: float


class Look(Answer):
    """The last regular look at a stream's diagnostics."""

    entry: int
    seq: int
    time: float
    count: int
    learning: bool
    verdict: Verdict
    why: str
    skill: Interval
    learned_skill: Interval
    rank_ratio: float | None
    live_cosine: float | None
    alarms: list[Warned]


class Stream(Answer):
    """A stream's place and health."""

    stream: str
    next_seq: int
    learned_seq: int
    learned: int
    lag: int
    rate: float
    last_error: float | None
    padded: int
    dropped: dict[str, int]
    frame_deg_assumed: int
    idle_s: float | None
    epoch: int
    timeline: int
    connected: bool | None
    created: float
    alarms: list[Alarm]
    alarms_on: list[AlarmOn]
    diagnostics: Look | None


class Embedding(Answer):
    """What the learner last made of what was seen: q numbers, of fixation ``seq``."""

    stream: str
    seq: int
    embedding: list[float]


class Gaze(Answer):
    """A place, as fractions of the frame's width and height, origin top left."""

    x: float
    y: float


class Record(Answer):
    """What one fixation came to."""

    stream: str
    seq: int
    time: float
    onset: float | None
    duration: float | None
    gaze: Gaze | None
    position: int | None
    sequence_id: str | None
    prediction_error: float | None
    trivial_error: dict[str, float | None]
    effective_rank: float | None
    update_norm: float | None
    latency_ms: float | None
    skipped: Literal["lost", "refused", "quarantined", "repeat"] | None
    timeline: int
    embedding: list[float] | None = None


class LossPoint(Answer):
    """One fixation of the loss curve."""

    seq: int
    time: float
    error: float
    smoothed: float
    trivial: float | None = None
    trivial_smoothed: float | None = None


class Loss(Answer):
    """The loss curve, thinned; ``count`` fixations before that, up to ``newest``, smoothed over ``window``."""

    points: list[LossPoint]
    count: int
    newest: int | None = None
    window: int
    trivial_name: str | None = None


class LossPosition(Answer):
    """The mean error at one position of the sequence."""

    position: int
    mean: float
    count: int


class TrajectoryPoint(Answer):
    """One fixation's embedding in the plane of two principal components."""

    seq: int
    error: float | None
    first: float
    second: float


class Trajectory(Answer):
    """The newest embeddings in a plane, which holds ``shares`` of their variance along its two axes."""

    stream: str
    shares: list[float]
    points: list[TrajectoryPoint]


class Checkpoint(Answer):
    """A checkpoint."""

    id: str
    created: float
    label: str | None
    pinned: bool
    size_bytes: int
    sha256: str
    timeline: int
    parent: str | None
    cursors: dict[str, int]


class StreamDone(Answer):
    """A command about a stream is durable; ``applied`` once its turn has come."""

    stream: str
    done: Literal["reset", "deleted"]
    applied: bool


class OwnSkills(Answer):
    """Skill against each predictor of the embedding itself."""

    copy_last: float | None
    running_mean: float | None
    ar1: float | None


class Position(Answer):
    """Prediction error at one position of the sequence."""

    position: int
    count: int
    mean: float
    recent: float
    untrained: float | None


class Places(Answer):
    """The picture of the place memory, by row from the top."""

    stream: str
    columns: int
    rows: int
    known: list[list[float]]


class Representation(Answer):
    """Whether learning is real."""

    stream: str | None
    window: int
    count: int
    skipped: dict[str, int]
    learning: bool
    verdict: Verdict
    why: str
    skill: Interval
    skill_ar1: float | None
    skill_ar1_interval: Interval
    opponent: str | None
    own_skill: float | None
    own_skill_against: OwnSkills
    learned_skill: Interval
    effective_rank: float | None
    effective_rank_frozen: float | None
    rank_ratio: float | None
    spectrum: list[float]
    covariance: list[list[float]]
    retrieval: float | None
    retrieval_trivial: float | None
    retrieval_chance: float
    retrieval_trials: int
    probe: float | None
    probe_features: float | None
    probe_embedding: float | None
    probe_untrained: float | None
    probe_ceiling: float | None
    probe_ceiling_told: float | None
    balance: float | None
    error_by_position: list[Position]
    largest_state: float | None
    largest_state_ever: float | None
    state_rms: float | None
    cut_units: int
    place_memory: Places | None


class Fidelity(Answer):
    """One gradient held against back-propagation through time."""

    cosine: float | None
    relative_error: float | None


class Gradient(Answer):
    """Exactness and live fidelity of the gradient."""

    stream: str | None
    streams: list[str]
    window: int
    rfp_exact: bool
    exactness: Fidelity
    live: Fidelity
    credit: Fidelity
    cut_units: int
