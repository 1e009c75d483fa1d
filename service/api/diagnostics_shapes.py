"""The shapes of ``/v1/diagnostics/...``: what each number is, and what it can't show.

The mathematics is in docs/mathematics.md. A number is null until enough was seen for it: 600 predictions for skills
and probes, 100 fixations for ranks, 200 predictions for retrieval.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class IntervalTold(_Shape):
    """A value with its 95 % interval, by block bootstrap; it knows of no dependence longer than 500 fixations."""

    value: float | None = Field(description="share of the opponent's error", examples=[0.121])
    low: float | None = Field(description="2.5 %", examples=[0.083])
    high: float | None = Field(description="97.5 %", examples=[0.156])


class OwnSkills(_Shape):
    """Skill against each predictor of y itself; flattered by memory, see own_skill."""

    copy_last: float | None = Field(description="share of its error", examples=[0.52])
    running_mean: float | None = Field(description="share of its error", examples=[0.44])
    ar1: float | None = Field(description="share of its error", examples=[0.31])


class PositionTold(_Shape):
    """Prediction error at one position of the sequence."""

    position: int = Field(description="from 1; 1000 stands for all later ones", examples=[4])
    count: int = Field(description="predictions at it", examples=[31])
    mean: float = Field(
        description="prediction error of all predictions at this position, in the model's distance", examples=[0.4411]
    )
    recent: float = Field(description="the same, fading: about the last hundred", examples=[0.4302])
    untrained: float | None = Field(
        description="of the untrained twin; without marked sequences a position comes once, and shows little",
        examples=[0.4917],
    )


class Places(_Shape):
    """The picture of the place memory: which cells of the frame are known. It can't show whether that is of use."""

    stream: str = Field(description="whose; without ?stream= the one fed last", examples=["s1"])
    columns: int = Field(description="cells across", examples=[12])
    rows: int = Field(description="cells down", examples=[6])
    known: list[list[float]] = Field(
        description="by row from the top: 0 (never looked at) to 1 (just seen)", examples=[[[0.0, 0.41], [0.93, 0.0]]]
    )


class Representation(_Shape):
    """Whether learning is real: every measure but the gradient's, over the newest 5,000 predictions at most."""

    stream: str | None = Field(description="null: all streams in journal order", examples=["s1"])
    window: int = Field(
        description="predictions the skills are taken over: the newest 5,000, without the first 500", examples=[4500]
    )
    count: int = Field(description="predictions ever, since the diagnostics began", examples=[11880])
    skipped: dict[str, int] = Field(description="fixations not learned from, by reason", examples=[{"repeat": 12}])
    learning: bool = Field(
        description="whether the lower end of the skill's interval is above 0, nothing wrong with the rank, and at"
        " least 2,000 predictions known"
    )
    verdict: Literal["learning", "not learning yet"] = Field(description="the same as a word")
    why: str = Field(description="one line", examples=["too few fixations (412 of 2000)"])
    skill: IntervalTold = Field(
        description="1 - E / E of the best trivial predictor that carries the circuit's own memory. Can't show whether"
        " the circuit learned or the predictor alone did: see learned_skill"
    )
    skill_ar1: float | None = Field(description="the same without the opponent that knows the scene", examples=[0.147])
    skill_ar1_interval: IntervalTold = Field(description="its 95 % interval")
    opponent: str | None = Field(
        description="the best of them, by its name in a record's trivial_error", examples=["carry_scene"]
    )
    own_skill: float | None = Field(
        description="1 - E / E of the best trivial predictor of y itself. Alone it shows nothing: memory has it on"
        " noise",
        examples=[0.31],
    )
    own_skill_against: OwnSkills = Field(description="of each of them")
    learned_skill: IntervalTold = Field(
        description="what the trained circuit adds beyond an untrained twin, told by the next features, which it can't"
        " move. Can't show what the predictor learned: the twin's learns too"
    )
    effective_rank: float | None = Field(
        description="participation ratio of y over the newest 1,000 fixations. Can't show that anything was learned",
        examples=[41.7],
    )
    effective_rank_frozen: float | None = Field(
        description="of the network as it began, on the same fixations", examples=[38.2]
    )
    rank_ratio: float | None = Field(
        description="now over frozen; slow context lowers it honestly, chaos raises it: under 0.8 look at the probe",
        examples=[1.09],
    )
    spectrum: list[float] = Field(
        description="eigenvalues of y's covariance, largest first", examples=[[0.81, 0.44, 0.29]]
    )
    covariance: list[list[float]] = Field(
        description="correlations of y's dimensions as at most 32 x 32 tiles, root mean square of each; bright all"
        " over: collapsed",
        examples=[[[1.0, 0.12], [0.12, 1.0]]],
    )
    retrieval: float | None = Field(
        description="share of trials in which the prediction was nearest to what came, among 100 candidates with the"
        " same memory. Can't show how near in size; compare it with retrieval_trivial alone",
        examples=[0.34],
    )
    retrieval_trivial: float | None = Field(description="the same of copy-last", examples=[0.21])
    retrieval_chance: float = Field(examples=[0.01], description="share by chance")
    retrieval_trials: int = Field(description="how many were tried", examples=[4500])
    probe: float | None = Field(
        description="R^2 of a linear readout of the next features from the prediction. Can't show what is in it but not"
        " linear; a carry brings the features of now along: compare with probe_features",
        examples=[0.22],
    )
    probe_features: float | None = Field(description="the same from the features of now", examples=[0.19])
    probe_embedding: float | None = Field(description="from the embedding of now", examples=[0.2])
    probe_untrained: float | None = Field(description="from the untrained twin's prediction", examples=[0.18])
    probe_ceiling: float | None = Field(
        description="the best regression on the last eight fixations: near 0, there is nothing (linear) to learn",
        examples=[0.27],
    )
    probe_ceiling_told: float | None = Field(
        description="the same with what is known of the next gaze", examples=[0.31]
    )
    balance: float | None = Field(
        description="cosine of P^T P and y's covariance; null for an MLP. With a carry or least squares it"
        " promises nothing",
        examples=[0.64],
    )
    error_by_position: list[PositionTold] = Field(description="a row for each of the first positions")
    largest_state: float | None = Field(
        description="largest number of a state over the newest 1,000 fixations", examples=[0.98]
    )
    largest_state_ever: float | None = Field(description="the same since it began", examples=[0.99])
    state_rms: float | None = Field(
        description="root mean square of the state over the newest 1,000 fixations", examples=[0.37]
    )
    cut_units: int = Field(
        description="units whose sensitivities were cut for growing past all bounds, ever", examples=[0]
    )
    place_memory: Places | None = Field(description="null where there is none")


class FidelityTold(_Shape):
    """One gradient held against back-propagation through time; null where there is no gradient."""

    cosine: float | None = Field(description="1: the same direction", examples=[0.998])
    relative_error: float | None = Field(
        description="norm of the difference over the norm of the truth", examples=[0.061]
    )


class Gradient(_Shape):
    """Whether the gradient is what it should be. It can't show whether it leads anywhere, nor longer dependences."""

    stream: str | None = Field(description="null: summed over the four streams fed last", examples=["s1"])
    streams: list[str] = Field(description="those that have a gradient", examples=[["s1"]])
    window: int = Field(description="losses counted: the newest 100 to 150 of each stream", examples=[120])
    rfp_exact: bool = Field(description="whether recurrent forward propagation is exact for these gates")
    exactness: FidelityTold = Field(description="computed anew over the window: rounding where rfp_exact, else not")
    live: FidelityTold = Field(
        description="the gradients as the learner had them: the weights changed meanwhile. Low without fault where the"
        " predictor was fitted to the window since: see credit"
    )
    credit: FidelityTold = Field(
        description="the same, the truth made of the errors as they were; live and credit under 0.9: doubtful, where"
        " the gates are approximate; under 0.5: lost"
    )
    cut_units: int = Field(
        description="units whose sensitivities were cut for growing past all bounds, ever", examples=[0]
    )


class WarnedTold(_Shape):
    """An alarm about learning that is on."""

    kind: str = Field(examples=["rank_lost"], description="which alarm")
    detail: str = Field(description="what is wrong", examples=["rank ratio 0.71, under 0.8"])
    since: float = Field(description="arrival of the fixation it began at, unix s", examples=[1764115200.5])


class Look(_Shape):
    """The last regular look at a stream's diagnostics: at 600 predictions and at every 1,000."""

    entry: int = Field(description="journal id of the fixation it was taken at", examples=[12031])
    seq: int = Field(description="that fixation's", examples=[1000])
    time: float = Field(description="that fixation's arrival, unix s", examples=[1764115200.5])
    count: int = Field(description="predictions by then", examples=[1000])
    learning: bool = Field(description="as of then")
    verdict: Literal["learning", "not learning yet"] = Field(description="the same as a word")
    why: str = Field(description="one line", examples=["skill 0.121, at least 0.083"])
    skill: IntervalTold = Field(description="against the best trivial predictor")
    learned_skill: IntervalTold = Field(description="what the circuit adds beyond its untrained twin")
    rank_ratio: float | None = Field(description="effective rank, now over frozen", examples=[1.09])
    live_cosine: float | None = Field(
        description="of the gradient with back-propagation through time", examples=[0.998]
    )
    alarms: list[WarnedTold] = Field(description="the alarms about learning that are on")
