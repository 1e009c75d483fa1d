"""When losses count and weights change: every schedule, through marks, repeats and refusals, is BPTT's gradient.

The weights stay (the optimiser only writes down what it is given), so that each gradient that is applied can be held
against back-propagation through time over all of its sequence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from model import reference
from model.config import ModelConfig
from model.learner import Learner, Watched
from model.rfp import is_exact
from tests.model import fidelity
from tests.model.test_fidelity import exact_configs

THOROUGH = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
NAMES = ("a", "b", "c")
EVENTS = ("next",) * 10 + ("start", "start", "repeat", "nan", "far")
"""What comes: a fixation, one that begins a sequence, one that is seen again, one that is refused."""


class Written:
    """An optimiser that writes down every gradient and moves nothing."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.steps = 0
        self.gradients: list[Tensor] = []

    def step(self, gradient: Tensor, rates: Tensor) -> Tensor:
        self.steps += 1
        self.gradients.append(gradient.clone())
        return torch.zeros_like(gradient)


@dataclass
class Followed:
    """One stream as the schedule is to see it, told by the rules alone."""

    sequence: list[tuple[Watched, Tensor | None]] = field(default_factory=list)
    """Its present sequence, with P of the predictor ``rls`` at each step."""
    open: list[int] = field(default_factory=list)
    """Positions of losses that count and were not applied yet."""


@dataclass
class Life:
    """A learner on several streams, and what each gradient that it applied should be."""

    learner: Learner
    written: Written = field(default_factory=Written)
    streams: dict[str, Followed] = field(default_factory=dict)
    due: list[tuple[list[tuple[Watched, Tensor | None]], list[int]]] = field(default_factory=list)
    """Of every gradient to be applied, in order: its sequence so far, and whose losses are in it."""
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.learner.update.optimiser = self.written
        self.learner.watch = self._watched

    def _watched(self, step: Watched) -> None:
        rls = self.learner.network.rls
        followed, choices = self.streams[step.stream], self.learner.config.learning
        if step.position == 0:
            self.flush(followed)
            followed.sequence = []
        followed.sequence.append((step, None if rls is None else rls.weights.clone()))
        if step.position == 0:
            return
        at, last = step.position, step.position + 1 == choices.sequence_length
        if choices.losses == "sequence":
            followed.open = [at]
        elif choices.losses == "step" or at % choices.losses == 0:
            followed.open.append(at)
        ends_steps = choices.update == "step" or (choices.update != "sequence" and at % choices.update == 0)
        if last or (ends_steps and choices.losses != "sequence"):
            self.flush(followed)

    def flush(self, followed: Followed) -> None:
        if followed.open:
            self.due.append((list(followed.sequence), followed.open))
        followed.open = []

    def come(self, stream: str, event: str, z: np.ndarray, rng: np.random.Generator) -> None:
        followed = self.streams.setdefault(stream, Followed())
        kept = self.learner.own[stream].kept if stream in self.learner.own else None
        if event == "repeat" and kept is not None:
            z = kept.numpy() * 1.1
        elif event == "nan":
            z = np.full_like(z, np.nan)
        elif event == "far" and self.learner.usual.count >= 20:
            z = 1e6 * (1.0 + np.abs(z))
        outcome = self.learner.observe(stream, z, fidelity.gaze(rng), start=event == "start", marked=stream == "b")
        self.seen[outcome.skipped or ("start" if outcome.position == 0 else "next")] += 1
        if event == "nan":  # what the broken sequence had not applied is lost with it
            assert outcome.skipped == "refused"
            followed.open, followed.sequence = [], []


def truth(life: Life, sequence: list[tuple[Watched, Tensor | None]], losses: list[int]) -> dict[str, Tensor]:
    """BPTT from the sequence's start; with ``rls`` each loss at the P of its own step."""
    config, weights = life.learner.config, life.learner.all_weights()
    window = [step for step, _ in sequence]
    assert [step.position for step in window] == list(range(len(window)))
    start = torch.zeros(config.components, config.units, dtype=torch.float64)
    if life.learner.network.rls is None:
        return reference.bptt(config, weights, start, window, [step.position in losses for step in window])
    total: dict[str, Tensor] = {}
    for at in losses:
        p = sequence[at][1]
        assert p is not None
        one = reference.bptt(config, {**weights, "P": p}, start, window, [step.position == at for step in window])
        total = {name: total.get(name, 0.0) + part for name, part in one.items()}
    return total


def lived(config: ModelConfig, seed: int, events: list[tuple[str, str]], gate_scale: float = 0.5) -> Life:
    rng = np.random.default_rng(seed)
    learner = Learner(config, seed=seed, dtype=torch.float64)
    fidelity.randomise(learner, rng, gate_scale)
    for z in fidelity.stream(rng, 3, config.features):  # statistics that are not at their start
        learner.observe("before", z, fidelity.gaze(rng))
    life = Life(learner)
    for (stream, event), z in zip(events, fidelity.stream(rng, len(events), config.features), strict=True):
        life.come(stream, event, z, rng)
    return life


def hold(life: Life) -> None:
    """Every gradient that was applied is the one that was due, to 1e-10, by name."""
    assert len(life.written.gradients) == len(life.due)
    for gradient, (sequence, losses) in zip(life.written.gradients, life.due, strict=True):
        found, true = life.learner.parameters.split(gradient), truth(life, sequence, losses)
        for name, part in found.items():
            off, norm = float((part - true[name]).norm()), float(true[name].norm())
            assert off <= fidelity.TOLERANCE * norm or off < 1e-15, (name, off / norm, losses)


def scheduled(config: ModelConfig, **learning: Any) -> ModelConfig:
    choices = config.model_dump()
    choices["learning"] |= {"optimiser": "sgd", "retraction": 0.0, "repeat_threshold": 0.2, **learning}
    return ModelConfig.parse(choices)


K = st.integers(2, 4)


@THOROUGH
@given(
    exact_configs(),
    st.one_of(st.sampled_from(["step", "sequence"]), K),
    st.one_of(st.sampled_from(["step", "sequence"]), K),
    st.one_of(st.none(), st.integers(2, 9)),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(EVENTS)), min_size=24, max_size=40),
    st.integers(0, 10_000),
)
def test_every_schedule_applies_bptts_gradient(
    config: ModelConfig,
    update: str | int,
    losses: str | int,
    length: int | None,
    events: list[tuple[str, str]],
    seed: int,
) -> None:
    chosen = scheduled(config, update=update, losses=losses, sequence_length=length)
    assert is_exact(chosen)
    hold(lived(chosen, seed, events))


SCHEDULES: list[dict[str, Any]] = [
    {"update": update, "losses": losses, "sequence_length": length}
    for update in ("step", 3, "sequence")
    for losses in ("step", 2, "sequence")
    for length in (None, 6)
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: "-".join(map(str, s.values())))
def test_streams_by_turns_with_marks_repeats_and_refusals(schedule: dict[str, Any]) -> None:
    """The same events for each schedule: nothing that can come in between is left to chance."""
    predictor = {"action_head": True, "place_memory": "still", "residual": True}
    config = scheduled(fidelity.small(distance="cosine", predictor=predictor), **schedule)
    pattern = ["start", *["next"] * 7, "repeat", "next", "far", *["next"] * 3, "nan", *["next"] * 4, "start", "next"]
    events = [(NAMES[t % 3], pattern[(t // 3 + t % 3) % len(pattern)]) for t in range(3 * len(pattern))]
    life = lived(config, 3, events)
    hold(life)
    assert min(life.seen[kind] for kind in ("start", "next", "repeat", "refused")) >= 3
    at_ends = "sequence" in (schedule["losses"], schedule["update"])
    assert len(life.due) >= (10 if not at_ends else 6 if schedule["sequence_length"] else 3)
    longest = max(len(losses) for _, losses in life.due)
    assert longest == 1 or (schedule["update"] != "step" and schedule["losses"] != "sequence")
    assert longest > 1 or schedule["losses"] != "step" or schedule["update"] == "step"


def test_the_papers_own_sequences() -> None:
    """100 fixations each, one update at the end of each, with the paper's circuit made exact: two-point gates."""
    paper = ModelConfig.preset(
        "paper",
        gates="two-point",
        units=8,
        embedding_size=6,
        predictor={"hidden": 9},
        retina={"stages": "all", "features": 5, "whiten": True},
        learning={"optimiser": "sgd"},
    )
    assert paper.learning.sequence_length == 100
    life = lived(paper, 5, [("a", "next")] * 250, gate_scale=0.3)
    hold(life)
    assert [len(losses) for _, losses in life.due] == [99, 99]
    only_last = ModelConfig.parse(
        {**paper.model_dump(), "learning": paper.learning.model_dump() | {"losses": "sequence"}}
    )
    life = lived(only_last, 5, [("a", "next")] * 250, gate_scale=0.3)
    hold(life)
    assert [losses for _, losses in life.due] == [[99], [99]]


@THOROUGH
@given(exact_configs(), st.sampled_from(["two-point", "modular", "dense"]), st.booleans(), st.integers(0, 10_000))
def test_it_says_that_it_is_exact_where_it_is_and_nowhere_else(
    config: ModelConfig, gates: str, one_step: bool, seed: int
) -> None:
    choices = config.model_dump()
    if config.cell != "time-decay":
        choices |= {"gates": gates, "block": 2, "units": 6, "embedding_size": min(config.embedding_size, 12)}
    choices["learning"] |= {"credit": "one-step" if one_step else "rfp"}
    window = fidelity.observed(ModelConfig.parse(choices), seed=seed, steps=8, gate_scale=1.0)
    said = window.learner.describe()["rfp_exact"]
    assert said == (window.learner.config.gates != "dense" and not one_step)
    true = reference.bptt(window.learner.config, window.weights, window.start, window.watched)
    off = {
        name: float((part - true[name]).norm() / true[name].norm())
        for name, part in window.gradient.items()
        if float(true[name].norm()) > 1e-12
    }
    assert said == (max(off.values()) < fidelity.TOLERANCE), off
    credited = {name for name, error in off.items() if error >= fidelity.TOLERANCE}
    assert not credited & {"U", "P", "P_in", "P_out", "A"}, "what the circuit does not credit is always exact"
