"""The paper's Figure 4 on a planted world: error by position in a sequence, forward propagation beside BPTT.

Sequences of 12 fixations whose next place depends on the place k back: the first k tell nothing of what comes, so what
is learned shows from position k on, and nowhere before. Told is the mean error at each position over the last quarter
of the run, divided by that of carry-mean at the same position (V, which is learned, scales both).

    untrained       the network as it began: flat, at 1
    online          weights change at every step
    rfp, bptt       weights change once a sequence, with the sum of its gradients: by forward propagation, or by
                    back-propagation through time over the whole sequence. The predictor learns at every step in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from model.config import ModelConfig
from model.learner import Learner
from model.learners import NO_GAZE
from model.through_time import ThroughTime
from model.worlds import PlantedWorld

SEQUENCE = 12
METHODS = ("untrained", "online", "rfp", "bptt")
_STREAM = "figure"


def config_of(method: str) -> ModelConfig:
    """The default, changing weights when ``method`` does."""
    update = "step" if method in ("untrained", "online") else "sequence"
    return ModelConfig.preset("default", predictor=NO_GAZE, learning={"update": update})


def run(
    config: ModelConfig,
    method: str,
    world: PlantedWorld,
    *,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """A row: ``error_1`` to ``error_11``, and ``from_k``: the mean from position k on over that before it."""
    learner = Learner(config, seed=seed)
    learner.set_learning(method != "untrained")
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
    errors = {}
    for position in range(1, SEQUENCE):
        here = last[last[:, 0] == position]
        errors[position] = float(here[:, 1].mean() / here[:, 2].mean()) if len(here) else None
    back = world.walk.back
    after = last[last[:, 0] >= back]
    before = last[(last[:, 0] < back) & (last[:, 0] > 0)]
    ratio = None
    if len(after) and len(before):
        ratio = float((after[:, 1].mean() / after[:, 2].mean()) / (before[:, 1].mean() / before[:, 2].mean()))
    return {**{f"error_{position}": error for position, error in errors.items()}, "from_k": ratio}


def _replace_gradient(learner: Learner, through_time: ThroughTime) -> None:
    """Before the next sequence begins, where the sum of the last one's gradients is applied."""
    own = learner.own.get(_STREAM)
    if own is not None and own.pending is not None:
        found = through_time.in_place_of_forward(own.pending, [_STREAM])
        learner.own[_STREAM] = replace(own, pending=found)
