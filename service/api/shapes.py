"""The shapes of the answers, for the OpenAPI document; the tests hold every answer against them.

Times are unix seconds unless said otherwise, durations seconds, latencies milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.api.diagnostics_shapes import Look
from service.schema import TRIVIAL_ERRORS


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Wish(_Shape):
    """What is sent to us: true is no "yes" and 0.1 no "0.1"."""

    model_config = ConfigDict(strict=True)


class Live(_Shape):
    """The process turns."""

    live: bool = Field(examples=[True])


class Ready(_Shape):
    """The journal can be written, recovery is finished and the lag is under its limit."""

    ready: bool = Field(examples=[True])
    waiting: int = Field(description="fixations journalled and not learned yet", examples=[0])
    lag_limit: int = Field(description="how many may wait", examples=[240])


class Model(BaseModel):
    """The learner."""

    model_config = ConfigDict(extra="allow")

    gates: str = Field(description="connectivity of the gates", examples=["two-point"])
    retention: str = Field(examples=["tanh"])
    distance: Literal["half_mse", "cosine"]
    rfp_exact: bool = Field(description="whether recurrent forward propagation is exact for this configuration")
    embedding_size: int = Field(description="q", examples=[256])
    units: int = Field(description="n", examples=[128])
    parameters: dict[str, Any] = Field(description="how many, by name, and in total")
    device: str = Field(examples=["cpu"])
    weights: Any = Field(description="the retina's weights: name and digest")
    learning: bool = Field(description="whether weights change now")
    worker: Literal["reachable", "unreachable"] = Field(
        description="unreachable: this is what the worker last wrote down"
    )


class ModelChange(_Wish):
    """What to change; what is left out stays."""

    learning: bool | None = Field(None, description="false pauses learning, true resumes it", examples=[False])
    rates: dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]] | None = Field(
        None, description="learning rates by name, as GET /v1/model names them"
    )


class AlarmTold(_Shape):
    """Something the operator should know."""

    time: float
    kind: str = Field(examples=["data_lost"])
    stream: str | None
    detail: str


class AlarmOn(_Shape):
    """An alarm that is on now."""

    since: float
    kind: str = Field(examples=["stream_idle"])
    stream: str | None
    detail: str


class Stream(_Shape):
    """A stream's place and health."""

    stream: str = Field(examples=["s1"])
    next_seq: int = Field(description="first seq not yet durable")
    learned_seq: int = Field(description="highest seq with a record, or -1")
    learned: int = Field(description="fixations learned")
    lag: int = Field(description="fixations journalled and not learned yet")
    rate: float = Field(description="fixations per second, over the last minute")
    last_error: float | None = Field(description="the newest prediction error")
    padded: int = Field(description="fixations whose patch went over the frame's edge")
    dropped: dict[str, int] = Field(description="fixations not learned, by reason")
    frame_deg_assumed: int = Field(description="fixations that did not tell the frame's size: 30 x 17 degrees assumed")
    idle_s: float | None = Field(description="seconds since the newest fixation came")
    epoch: int = Field(description="of the present owner")
    timeline: int = Field(description="the present timeline")
    connected: bool | None = Field(
        description="whether a client has said hello for it since the worker started, gone since or not (idle_s tells);"
        " null while the worker can't be asked"
    )
    created: float
    alarms: list[AlarmTold] = Field(description="the newest alarms of this stream, newest first")
    alarms_on: list[AlarmOn] = Field(description="those of this stream that are on now, oldest first")
    diagnostics: Look | None = Field(
        description="the last regular look at whether learning is real; null before the first, or where it is off"
    )


class Streams(_Shape):
    """Streams by name."""

    streams: list[Stream]
    alarms: list[AlarmTold] = Field(description="the newest alarms of the whole, newest first")
    alarms_on: list[AlarmOn] = Field(description="those that are on now and belong to no stream, oldest first")
    next: str | None = Field(description="pass it as `after` for the next page; null at the end")


class Embedding(_Shape):
    """What the learner last made of what was seen."""

    stream: str
    seq: int = Field(description="of the newest fixation; a repeat keeps the embedding and moves it")
    embedding: list[float] = Field(description="q numbers")


class Embedded(_Shape):
    """What the learner would make of one picture with nothing before it."""

    embedding: list[float] = Field(description="q numbers")


class Point(_Shape):
    """A place, as fractions of the frame's width and height, origin top left."""

    x: float
    y: float


class RecordTold(_Shape):
    """What one fixation came to."""

    stream: str
    seq: int
    time: float = Field(description="arrival, unix s")
    onset: float | None = Field(description="s, source clock")
    duration: float | None = Field(description="s")
    gaze: Point | None
    position: int | None = Field(description="in its sequence, from 0")
    sequence_id: str | None
    prediction_error: float | None = Field(description="null where there was no prediction")
    trivial_error: dict[str, float | None] = Field(
        description=f"of predictors that learn nothing worth having: {', '.join(TRIVIAL_ERRORS)}"
    )
    effective_rank: float | None
    update_norm: float | None = Field(description="l2 of all weight changes of the step")
    latency_ms: float | None = Field(description="arrival to learned")
    skipped: Literal["lost", "refused", "quarantined", "repeat"] | None
    timeline: int
    embedding: list[float] | None = Field(None, description="with embeddings=true: q numbers")


class Records(_Shape):
    """Records, ascending by seq."""

    records: list[RecordTold]
    next: int | None = Field(description="pass it as `after` for the next page; null at the end")


class LossPoint(_Shape):
    """One fixation of the curve."""

    seq: int
    time: float
    error: float
    smoothed: float = Field(description="mean error of the last `window` fixations up to this one")
    trivial: float | None = Field(description="the best single trivial predictor's error on this fixation")
    trivial_smoothed: float | None = Field(description="its mean over the same fixations as `smoothed`")


class LossPosition(_Shape):
    """One position in the sequence."""

    position: int
    mean: float
    count: int


class Loss(_Shape):
    """The loss curve."""

    points: list[LossPoint] | list[LossPosition]
    count: int = Field(description="fixations with an error in the range, before decimation")
    window: int | None = Field(None, description="by=time: fixations of the running mean")
    trivial_name: str | None = Field(None, description="by=time: which trivial predictor is the best one here")


class Checkpoint(BaseModel):
    """A checkpoint."""

    model_config = ConfigDict(extra="allow")

    id: str
    created: float
    label: str | None
    pinned: bool
    size_bytes: int
    sha256: str
    timeline: int
    parent: str | None = Field(description="for the first checkpoint after a restore: the one gone back to")
    cursors: dict[str, int] = Field(description="per stream, the first seq it has not learned")


class Checkpoints(_Shape):
    """Checkpoints, newest first."""

    checkpoints: list[Checkpoint]
    next: str | None = Field(description="pass it as `after` for the next page; null at the end")


class CheckpointWish(_Wish):
    """How a checkpoint is to be kept."""

    label: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    pinned: bool = Field(False, description="a pinned checkpoint is deleted by hand only")


class StreamDone(_Shape):
    """A command about a stream is durable."""

    stream: str
    done: Literal["reset", "deleted"]
    applied: bool = Field(description="false: durable, and carried out when its turn in the journal comes (status 202)")


class Deleted(_Shape):
    """A checkpoint is gone."""

    id: str
    done: Literal["deleted"]
