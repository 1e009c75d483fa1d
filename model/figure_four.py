"""The paper's Figure 4 on a planted world: error by position in a sequence, forward propagation beside BPTT.

Sequences of 12 fixations whose next place depends on the place k back: the first k tell nothing of what comes, so what
is learned shows from position k on, and nowhere before. Told is the mean error at each position over the last quarter
of the run, divided by that of carry-mean at the same position (V, which is learned, scales both).

    untrained       the network as it began: it predicts the mean, so this is 1 but for how the mean is kept
    frozen          the circuit as it began, its predictor learned: what the stream and the predictor alone make of it
    online          weights change at every step
    bptt, rfp       weights change once a sequence, with the sum of its gradients: by back-propagation through time
                    over the whole sequence, or by forward propagation. The predictor learns at every step in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.config import ModelConfig
from model.learner import Learner
from model.learners import NO_GAZE
from model.through_time import ThroughTime
from model.worlds import PlantedWorld

SEQUENCE = 12
METHODS = ("bptt", "rfp", "online", "frozen", "untrained")
"""The first is what the others are told beside."""
_STREAM = "figure"


def config_of(method: str) -> ModelConfig:
    """The default, changing weights when ``method`` does."""
    learning: dict[str, Any] = {"update": "step" if method in ("untrained", "frozen", "online") else "sequence"}
    if method == "frozen":
        learning["rates"] = dict.fromkeys(("gates", "retention", "input"))
    return ModelConfig.preset("default", predictor=NO_GAZE, learning=learning)


def run(
    config: ModelConfig,
    method: str,
    world: PlantedWorld,
    *,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """A row: ``error_1`` to ``error_11``; ``from_k``: the mean from position k on over that before it; ``error``: the
    mean of all, not divided by anything, and ``took_s``.
    """
    learner = Learner(config, seed=seed)
    learner.set_learning(method != "untrained")
    begun = time.perf_counter()
    through_time = ThroughTime(learner) if method == "bptt" else None
    z, starts = torch.from_numpy(world.features), world.walk.start
    rows = np.full((len(world), 3), np.nan)
    for at in range(len(world)):
        if starts[at] and through_time is not None:
            _replace_gradient(learner, through_time)
        outcome = learner.observe(_STREAM, z[at], start=bool(starts[at]))
        if outcome.prediction_error is not None:
            rows[at] = outcome.position, outcome.prediction_error, outcome.trivial["carry_mean"]
        if progress is not None and at % 100 == 99:
            progress(100)
    last = rows[-(len(rows) // 4) :]
    back, position = world.walk.back, last[:, 0]
    before, after = _relative(last[(position > 0) & (position < back)]), _relative(last[position >= back])
    predicted = last[position > 0]
    return {
        **{f"error_{at}": _relative(last[position == at]) for at in range(1, SEQUENCE)},
        "from_k": None if before is None or after is None else after / before,
        "error": float(predicted[:, 1].mean()) if len(predicted) else None,
        "took_s": time.perf_counter() - begun,
    }


def beside(row: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """``over_bptt``: the error of ``row`` over that of ``truth``; ``most_off``: the largest share by which the error
    at one position is another than there.
    """
    pairs = [(row[name], truth[name]) for name in (f"error_{at}" for at in range(1, SEQUENCE))]
    off = [abs(one / other - 1.0) for one, other in pairs if one is not None and other]
    whole = row["error"] is not None and truth["error"]
    return {
        "over_bptt": row["error"] / truth["error"] if whole else None,
        "most_off": max(off) if off else None,
    }


def _relative(rows: NDArray[np.float64]) -> float | None:
    """The mean error of ``rows`` (position, error, carry-mean's error) over that of carry-mean."""
    return float(rows[:, 1].mean() / rows[:, 2].mean()) if len(rows) else None


def _replace_gradient(learner: Learner, through_time: ThroughTime) -> None:
    """Before the next sequence begins, where the sum of the last one's gradients is applied."""
    own = learner.own.get(_STREAM)
    if own is not None and own.pending is not None:
        found = through_time.in_place_of_forward(own.pending, [_STREAM])
        learner.own[_STREAM] = replace(own, pending=found)
