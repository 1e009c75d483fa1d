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

    live: bool = Field(examples=[True], description="always true: else there is no answer")


class Ready(_Shape):
    """The journal can be written, recovery is finished and the lag is under its limit."""

    ready: bool = Field(examples=[True], description="always true: else the answer is 503")
    waiting: int = Field(description="fixations journalled and not learned yet", examples=[0])
    lag_limit: int = Field(description="how many may wait", examples=[240])


class Model(BaseModel):
    """The learner."""

    model_config = ConfigDict(extra="allow")

    gates: str = Field(description="connectivity of the gates", examples=["two-point"])
    retention: str = Field(examples=["tanh"], description="function of the retention weights")
    distance: Literal["half_mse", "cosine"] = Field(
        description="what an error is: half the mean squared difference, or one minus the cosine"
    )
    rfp_exact: bool = Field(description="whether recurrent forward propagation is exact for this configuration")
    embedding_size: int = Field(description="q", examples=[256])
    units: int = Field(description="n", examples=[128])
    parameters: dict[str, Any] = Field(
        description="how many, by name, and in total", examples=[{"gates": 131072, "total": 279296}]
    )
    device: str = Field(examples=["cpu"], description="what it computes on")
    weights: Any = Field(
        description="the retina's weights: name and digest",
        examples=[{"name": "torchvision:ResNet50_Weights.IMAGENET1K_V2", "digest": "4f3c"}],
    )
    learning: bool = Field(description="whether weights change now")
    worker: Literal["reachable", "unreachable"] = Field(
        description="unreachable: this is what the worker last wrote down"
    )


RateName = Literal["gates", "retention", "input", "embedding", "predictor", "action"]
Rate = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class ModelChange(_Wish):
    """What to change, one of them at least; what is left out stays."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "anyOf": [
                {"required": ["learning"], "properties": {"learning": {"type": "boolean"}}},
                {"required": ["rates"], "properties": {"rates": {"type": "object"}}},
            ]
        },
    )

    learning: bool | None = Field(None, description="false pauses learning, true resumes it", examples=[False])
    rates: Annotated[dict[RateName, Rate], Field(min_length=1)] | None = Field(
        None, description="learning rates by name, as GET /v1/model names them", examples=[{"gates": 0.0001}]
    )


class AlarmTold(_Shape):
    """Something the operator should know."""

    time: float = Field(description="when, unix s", examples=[1764115200.5])
    kind: str = Field(examples=["data_lost"], description="which alarm; docs/operation.md says what to do")
    stream: str | None = Field(description="whose; null: the whole", examples=["s1"])
    detail: str = Field(description="what is wrong", examples=["seqs 12 to 40 were acked and are not here"])


class AlarmOn(_Shape):
    """An alarm that is on now."""

    since: float = Field(description="when it began, unix s", examples=[1764115200.5])
    kind: str = Field(examples=["stream_idle"], description="which alarm; docs/operation.md says what to do")
    stream: str | None = Field(description="whose; null: the whole", examples=["s1"])
    detail: str = Field(description="what is wrong", examples=["nothing came for 312 s"])


class Stream(_Shape):
    """A stream's place and health."""

    stream: str = Field(examples=["s1"], description="its name")
    next_seq: int = Field(description="first seq not yet durable", examples=[1201])
    learned_seq: int = Field(description="highest seq with a record, or -1", examples=[1199])
    learned: int = Field(description="fixations learned", examples=[1188])
    lag: int = Field(description="fixations journalled and not learned yet", examples=[1])
    rate: float = Field(description="fixations per second, over the last minute", examples=[3.85])
    last_error: float | None = Field(
        description="the newest prediction error, in the model's distance", examples=[0.4127]
    )
    padded: int = Field(description="fixations whose patch went over the frame's edge", examples=[17])
    dropped: dict[str, int] = Field(
        description="fixations not learned, by reason; spool_full: those a client had no room for, without a seq",
        examples=[{"repeat": 12, "spool_full": 3}],
    )
    frame_deg_assumed: int = Field(
        description="fixations that did not tell the frame's size: 30 x 17 degrees assumed", examples=[0]
    )
    idle_s: float | None = Field(description="seconds since the newest fixation came", examples=[0.214])
    epoch: int = Field(description="of the present owner", examples=[1])
    timeline: int = Field(description="the present timeline", examples=[0])
    connected: bool | None = Field(
        description="whether a client has said hello for it since the worker started, gone since or not (idle_s tells);"
        " null while the worker can't be asked"
    )
    created: float = Field(description="when it was first claimed, unix s", examples=[1764111600.25])
    alarms: list[AlarmTold] = Field(description="the newest alarms of this stream, newest first")
    alarms_on: list[AlarmOn] = Field(description="those of this stream that are on now, oldest first")
    diagnostics: Look | None = Field(
        description="the last regular look at whether learning is real; null before the first, or where it is off"
    )


class Streams(_Shape):
    """Streams by name."""

    streams: list[Stream] = Field(description="by name")
    alarms: list[AlarmTold] = Field(description="the newest alarms of the whole, newest first")
    alarms_on: list[AlarmOn] = Field(description="those that are on now and belong to no stream, oldest first")
    next: str | None = Field(description="pass it as `after` for the next page; null at the end", examples=["s1"])


class Embedding(_Shape):
    """What the learner last made of what was seen."""

    stream: str = Field(description="its name", examples=["s1"])
    seq: int = Field(description="of the newest fixation; a repeat keeps the embedding and moves it", examples=[1199])
    embedding: list[float] = Field(description="q numbers", examples=[[0.0132, -0.2075, 0.4418]])


class Embedded(_Shape):
    """What the learner would make of one picture with nothing before it."""

    embedding: list[float] = Field(description="q numbers", examples=[[0.0132, -0.2075, 0.4418]])


class EmbeddedMany(_Shape):
    """The same of several pictures, each with nothing before it, by the weights of one moment."""

    embeddings: list[list[float]] = Field(
        description="q numbers for each picture, in the order they were sent",
        examples=[[[0.0132, -0.2075, 0.4418], [0.1001, -0.0233, 0.3914]]],
    )


class Point(_Shape):
    """A place, as fractions of the frame's width and height, origin top left."""

    x: float = Field(description="0 left to 1 right", examples=[0.4871])
    y: float = Field(description="0 top to 1 bottom", examples=[0.5204])


class RecordTold(_Shape):
    """What one fixation came to."""

    stream: str = Field(description="its name", examples=["s1"])
    seq: int = Field(description="number of the fixation in its stream, from 0", examples=[1199])
    time: float = Field(description="arrival, unix s", examples=[1764115200.5])
    onset: float | None = Field(description="when it began, s of the source's clock", examples=[312.482])
    duration: float | None = Field(description="how long it lasted, s", examples=[0.236])
    gaze: Point | None = Field(description="where it was; null where it was lost")
    position: int | None = Field(description="in its sequence, from 0", examples=[39])
    sequence_id: str | None = Field(description="as the client marked it", examples=["scene-12"])
    prediction_error: float | None = Field(
        description="in the model's distance; null where there was no prediction", examples=[0.4127]
    )
    trivial_error: dict[str, float | None] = Field(
        description=f"of predictors that learn nothing worth having: {', '.join(TRIVIAL_ERRORS)}",
        examples=[
            {
                "copy_last": 0.45,
                "running_mean": 0.46,
                "ar1": 0.47,
                "carry_mean": 0.48,
                "carry_ar1": 0.49,
                "carry_mean_recent": 0.5,
                "carry_ar1_recent": 0.51,
                "carry_scene": None,
            }
        ],
    )
    effective_rank: float | None = Field(
        description="dimensions the embeddings of late fill: participation ratio", examples=[41.7]
    )
    update_norm: float | None = Field(description="l2 of all weight changes of the step", examples=[0.0031])
    latency_ms: float | None = Field(description="arrival to learned, ms", examples=[61.4])
    skipped: Literal["lost", "refused", "quarantined", "repeat"] | None = Field(
        description="why it was not learned; null: it was"
    )
    timeline: int = Field(description="the timeline it was learned on", examples=[0])
    embedding: list[float] | None = Field(
        None, description="with embeddings=true: q numbers", examples=[[0.0132, -0.2075, 0.4418]]
    )


class Records(_Shape):
    """Records, ascending by seq."""

    records: list[RecordTold] = Field(description="ascending by seq")
    next: int | None = Field(description="pass it as `after` for the next page; null at the end", examples=[1199])


class LossPoint(_Shape):
    """One fixation of the curve."""

    seq: int = Field(description="number of the fixation", examples=[1199])
    time: float = Field(description="arrival, unix s", examples=[1764115200.5])
    error: float = Field(description="its prediction error, in the model's distance", examples=[0.4127])
    smoothed: float = Field(
        description="mean error of the last `window` fixations up to this one, in the same distance", examples=[0.4302]
    )
    trivial: float | None = Field(
        description="the best single trivial predictor's error on this fixation", examples=[0.47]
    )
    trivial_smoothed: float | None = Field(
        description="its mean over the same fixations as `smoothed`", examples=[0.4815]
    )


class LossPosition(_Shape):
    """One position in the sequence."""

    position: int = Field(description="place in the sequence, from 0", examples=[3])
    mean: float = Field(description="prediction error there, in the model's distance", examples=[0.4411])
    count: int = Field(description="fixations it is the mean of", examples=[31])


class Loss(_Shape):
    """The loss curve."""

    points: list[LossPoint] | list[LossPosition] = Field(description="by time, or by position")
    count: int = Field(description="fixations with an error in the range, before decimation", examples=[1188])
    newest: int | None = Field(
        None, description="by=time: seq of the last of them, be it among the points or not", examples=[1199]
    )
    window: int | None = Field(None, description="by=time: fixations of the running mean", examples=[100])
    trivial_name: str | None = Field(
        None, description="by=time: which trivial predictor is the best one here", examples=["carry_ar1"]
    )


class Checkpoint(BaseModel):
    """A checkpoint."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="its name", examples=["20261126T000000-0001199"])
    created: float = Field(description="when it was taken, unix s", examples=[1764115200.5])
    label: str | None = Field(description="what the one who took it called it", examples=["before lunch"])
    pinned: bool = Field(description="deleted by hand only", examples=[False])
    size_bytes: int = Field(description="of its file, bytes", examples=[18350080])
    sha256: str = Field(
        description="of its file", examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
    )
    timeline: int = Field(description="the timeline it is of", examples=[0])
    parent: str | None = Field(
        description="for the first checkpoint after a restore: the one gone back to",
        examples=["20261125T220000-0000800"],
    )
    cursors: dict[str, int] = Field(description="per stream, the first seq it has not learned", examples=[{"s1": 1200}])


class Checkpoints(_Shape):
    """Checkpoints, newest first."""

    checkpoints: list[Checkpoint] = Field(description="newest first")
    next: str | None = Field(
        description="pass it as `after` for the next page; null at the end", examples=["20261125T220000-0000800"]
    )


class CheckpointWish(_Wish):
    """How a checkpoint is to be kept."""

    label: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="what to call it", examples=["before lunch"]
    )
    pinned: bool = Field(False, description="a pinned checkpoint is deleted by hand only")


class CheckpointChange(_Wish):
    """How a checkpoint is to be kept from now on."""

    pinned: bool = Field(description="true: deleted by hand only; false: as long as retention keeps it")
    label: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None,
        description="what to call it from now on; without it, it keeps the label it has",
        examples=["before lunch"],
    )


class StreamDone(_Shape):
    """A command about a stream is durable."""

    stream: str = Field(description="its name", examples=["s1"])
    done: Literal["reset", "deleted"] = Field(description="what")
    applied: bool = Field(description="false: durable, and carried out when its turn in the journal comes (status 202)")


class Deleted(_Shape):
    """A checkpoint is gone."""

    id: str = Field(description="the checkpoint's", examples=["20261126T000000-0001199"])
    done: Literal["deleted"] = Field(description="what")
