"""Learners on recorded scanpaths: every measure that can't be flattered, of one learner on one stream.

Nothing is known of the best there is on such a stream; the probe's ceiling tells what a regression on the last eight
fixations finds offline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.action import Look
from model.bootstrap import Interval
from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.learner import Learner, Outcome
from model.ledger import Ledger
from model.skill import Skill

_STREAM = "stream"
TOLD = (
    "skill_ar1",
    "opponent",
    "own_skill",
    "effective_rank",
    "rank_ratio",
    "retrieval",
    "retrieval_trivial",
    "probe",
    "probe_features",
    "probe_untrained",
    "probe_ceiling",
    "balance",
    "largest_state_ever",
    "cut_units",
)
"""What a row takes from the diagnostics as it is."""
Row = dict[str, Any]


def run_stream(
    config: ModelConfig,
    features: NDArray[np.float32],
    looks: Sequence[Look | None],
    *,
    seed: int,
    starts: NDArray[np.bool_] | None = None,
    lean: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Row:
    """Every fixation once, in order: a row of the table.

    ``features``: (T, m); ``looks``: T, where the eye was; ``starts``: (T,), where a sequence begins; with it the stream
    counts as marked. ``lean``: skill, ranks and the state alone, without the readouts, the twin and the gradients that
    cost more than learning does. ``progress`` is told how many more were done, now and then.
    """
    learner = Learner(config, seed=seed)
    beside = Ledger(learner) if lean else _Measured(learner, seed)
    steps_s, skipped = 0.0, 0
    for at, (z, look) in enumerate(zip(features, looks, strict=True)):
        begun = time.perf_counter()
        start = starts is not None and bool(starts[at])
        outcome = learner.observe(_STREAM, z, look, start=start, marked=starts is not None)
        steps_s += time.perf_counter() - begun
        beside.note(_STREAM, z, outcome)
        skipped += outcome.skipped is not None
        if progress is not None and at % 100 == 99:
            progress(100)
    told = _lean(beside) if isinstance(beside, Ledger) else beside.told()
    return {
        "lean": lean,
        **told,
        "skipped": skipped,
        "ms_per_fixation": 1000.0 * steps_s / max(len(features), 1),
    }


def told_skill(found: Skill) -> Row:
    """Columns of a skill: its interval, and beside whom."""
    return {
        **columns("skill", found.skill),
        "skill_ar1": found.skill_ar1.value,
        "opponent": found.opponent,
        "own_skill": found.own_skill,
    }


def _lean(ledger: Ledger) -> Row:
    rank = ledger.rank()
    return {
        **told_skill(ledger.skill()),
        "effective_rank": rank.now,
        "rank_ratio": rank.ratio,
        "largest_state_ever": ledger.largest_state,
    }


class _Measured:
    """Every measure: the diagnostics beside the learner."""

    def __init__(self, learner: Learner, seed: int) -> None:
        self._diagnostics = Diagnostics(learner, seed=seed)

    def note(self, stream: str, z: NDArray[np.float32], outcome: Outcome) -> None:
        """As :class:`~model.ledger.Ledger` has it."""
        self._diagnostics.after(stream, outcome)

    def told(self) -> Row:
        """The row."""
        told = self._diagnostics.representation(_STREAM)
        return {
            **columns("skill", Interval(**told["skill"])),
            **columns("learned_skill", Interval(**told["learned_skill"])),
            **{name: told[name] for name in TOLD},
            "live_cosine": self._diagnostics.gradient(_STREAM)["live"]["cosine"],
        }


def columns(name: str, interval: Interval) -> Row:
    """Columns of an interval: ``name``, ``name_low``, ``name_high``."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
