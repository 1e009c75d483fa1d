"""Learners on planted worlds: what they find of what there is to find.

One run is one learner through one world, from its first fixation to its last, with no gaze told. Of its last
quarter (means):

    share           (E carry-mean - E) / (E carry-mean - E optimum)           worlds.py, equation (3)     (1)
    share_frozen    the same of a target no learner can move: recursive least squares from s_t to z_{t+1}, against
                    the mean of all z and against E[z | rule]                                             (2)

Equation (1) is told in the learner's own embedding, where V decides what counts; (2) is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import skill
from model.config import ModelConfig
from model.learner import Learner, Watched
from model.rls import RecursiveLeastSquares
from model.worlds import PlantedWorld

_PARTS = 8
"""Parts of a run whose shares are told one by one."""
_READOUT_FORGETTING = 0.9998
_READOUT_PRIOR = 10.0
_WORTH_FINDING = 0.01
_ERROR, _CARRY, _OPTIMUM, _READ, _MEAN, _BEST, _STATE = range(7)

Progress = Callable[[int], object]
Rows = NDArray[np.float64]


def share(rows: Rows) -> float | None:
    """Equation (1) or (2) of ``rows``: (N, 3) of learner, simple opponent and optimum; NaN rows are left out.

    None where the optimum is not 1 % better than the opponent: nothing is to be found there.
    """
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        return None
    found, simple, best = rows.mean(axis=0)
    return float((simple - found) / (simple - best)) if best < (1.0 - _WORTH_FINDING) * simple else None


class FrozenTarget:
    """Equation (2): reads z from the state before it, each time scored before it is fitted."""

    def __init__(self, config: ModelConfig, mean: Tensor) -> None:
        self._size = config.components * config.units
        self._rls = RecursiveLeastSquares(
            config.features, self._size + 1, forgetting=_READOUT_FORGETTING, prior=_READOUT_PRIOR, device="cpu"
        )
        self._mean = mean.to(torch.float64)

    def scored(self, state: Tensor, z: Tensor, best: Tensor) -> tuple[float, float, float]:
        """Half mean squares of the readout, of the mean and of the ``best`` guess of ``z`` (m)."""
        phi = torch.cat([state.flatten().to(torch.float64), torch.ones(1, dtype=torch.float64)])
        z = z.to(torch.float64)
        error = torch.addmv(self._mean - z, self._rls.weights, phi)
        self._rls.learn(phi, error)
        others = torch.stack([self._mean, best.to(torch.float64)]) - z
        mean, optimum = (others.square().mean(dim=1) * 0.5).tolist()
        return float(error.square().mean()) * 0.5, mean, optimum


class PlantedRun:
    """One learner in one world; :meth:`run` gives the row of a table."""

    def __init__(self, config: ModelConfig, world: PlantedWorld, *, seed: int) -> None:
        self.learner = Learner(config, seed=seed)
        self.world = world
        self.rows: Rows = np.full((len(world), 7), np.nan)
        """A fixation's errors: learner, carry-mean, optimum; readout, mean, best guess; and its largest state."""
        self.errors = torch.full((len(world), len(skill.COLUMNS)), math.nan)
        """As model/skill.py wants them."""
        self._features = torch.from_numpy(world.features)
        self._best = torch.from_numpy(world.best_guess)
        self._target = FrozenTarget(config, self._features.mean(dim=0))
        self._at = 0

    def _watch(self, seen: Watched) -> None:
        """Called before the weights change: the optimum has the state, the gates and the V of the learner."""
        if seen.made is None:
            return
        network, new, at = self.learner.network, seen.made.new, self._at
        self.rows[at, _STATE] = float(new.state.abs().max())
        if seen.error is None:
            return
        state = network.circuit.step(new.settled, network.weights["V"] @ self._best[at])
        best = network.weights["U"] @ state.flatten()
        self.rows[at, _OPTIMUM] = float((best - new.y).square().mean()) * 0.5
        self.rows[at, _READ : _BEST + 1] = self._target.scored(seen.made.own.state, seen.z, self._best[at])

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        """Every fixation once, in order; ``progress`` is told how many more were done, now and then."""
        learner, starts = self.learner, self.world.walk.start
        learner.watch = self._watch
        skipped, begun = 0, time.perf_counter()
        for at in range(len(self.world)):
            self._at = at
            outcome = learner.observe("world", self._features[at], start=bool(starts[at]))
            skipped += outcome.skipped is not None
            if outcome.prediction_error is not None:
                self.rows[at, _ERROR] = outcome.prediction_error
                self.rows[at, _CARRY] = outcome.trivial["carry_mean"]
                self.errors[at] = skill.row(outcome.prediction_error, outcome.trivial)
            if progress is not None and at % 100 == 99:
                progress(100)
        learner.watch = None
        return self._told(skipped, time.perf_counter() - begun)

    def _told(self, skipped: int, took_s: float) -> dict[str, Any]:
        last = self.rows[-(len(self.rows) // 4) :]
        own, frozen = (_ERROR, _CARRY, _OPTIMUM), (_READ, _MEAN, _BEST)
        found = skill.measure(self.errors[-min(5000, max(len(self.errors) - 500, 0)) :])
        error, carry, optimum = (_mean(last[:, column]) for column in own)
        return {
            "share": share(last[:, own]),
            "share_frozen": share(last[:, frozen]),
            "error": error,
            "carry_mean": carry,
            "optimum": optimum,
            "skill": found.skill.value,
            "skill_low": found.skill.low,
            "skill_high": found.skill.high,
            "effective_rank": self.learner.rank.rank(),
            "largest_state": float(np.nanmax(self.rows[:, _STATE])),
            "cut_units": self.learner.cut_units,
            "skipped": skipped,
            "ms_per_fixation": 1000.0 * took_s / max(len(self.rows), 1),
            "share_by_part": [share(part[:, own]) for part in np.array_split(self.rows, _PARTS)],
        }


def _mean(values: Rows) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
