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
from torch import Tensor

from model import reference
from model.config import ModelConfig
from model.learner import Learner, Watched
from model.learners import NO_GAZE
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
    through_time = _ThroughTime(learner) if method == "bptt" else None
    z, starts = torch.from_numpy(world.features), world.walk.start
    rows = np.full((len(world), 3), np.nan)
    for at in range(len(world)):
        if starts[at] and through_time is not None:
            through_time.replace_gradient()
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


class _ThroughTime:
    """Puts the gradient of back-propagation through time in the place of the one carried forward."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._window: list[tuple[Watched, Tensor | None]] = []
        learner.watch = self._watch

    def _watch(self, seen: Watched) -> None:
        """Keeps each step with the predictor of that step."""
        if seen.position == 0:
            self._window = []
        rls = self._learner.network.rls
        self._window.append((seen, None if rls is None else rls.weights.to(seen.z, copy=True)))

    def replace_gradient(self) -> None:
        """Before the next sequence begins, where the sum of the last one's gradients is applied."""
        own = self._learner.own.get(_STREAM)
        if own is None or own.pending is None:
            return
        with torch.enable_grad():
            found = self._gradient()
        self._learner.own[_STREAM] = replace(own, pending=self._learner.parameters.gather(found))

    def _gradient(self) -> dict[str, Tensor]:
        learner = self._learner
        learned = learner.parameters.learned
        weights = {name: weight.clone() for name, weight in learner.network.weights.items()}
        leaves = {name: weights[name].requires_grad_() for name in learned}
        state = learner.blank().state
        total = torch.zeros((), dtype=state.dtype)
        for seen, predictor in self._window:
            if seen.gradient is not None:
                used = weights if predictor is None else {**weights, "P": predictor}
                total = total + sum(reference.loss(learner.config, used, state, seen))
            state = reference.step(learner.config, weights, state, seen.z)
        parts = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if part is None else part
            for (name, leaf), part in zip(leaves.items(), parts, strict=True)
        }
