"""The trivial predictors a learner must beat: each has seen only what came before, under the same distance.

    copy_last                  y_t
    running_mean, ar1          running mean of y; AR(1) of each dimension of y
    carry_X                    U RGC(s_t, V zhat): what the circuit's own memory fixes, with the simplest guess
                               zhat of the next features
      carry_mean, carry_ar1    zhat the running mean of z; the AR(1) of each dimension of z: cumulative
      ..._recent               the same at rate 1/1000: not poisoned by what was long ago
      carry_scene              zhat by a regression on z_t and the mean of z in this sequence so far; only where
                               sequences are marked

An ordinary skill against the first three is flattered by the circuit's memory; against the others it isn't.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from model.prediction import VARIANCE_FLOOR
from model.statistics import RunningMoments, SceneRegression

TRIVIAL_ERRORS = (
    "copy_last",
    "running_mean",
    "ar1",
    "carry_mean",
    "carry_ar1",
    "carry_mean_recent",
    "carry_ar1_recent",
    "carry_scene",
)
"""Their names, in the order of a record."""

_OWN, _CUMULATIVE, _RECENT = range(3)
_FLOORS = (1.0 / 2000.0, 0.0, 1.0 / 1000.0)
_ROWS = ("copy_last", "running_mean", "ar1")
_CARRIED = ("carry_mean", "carry_mean_recent", "carry_ar1", "carry_ar1_recent", "carry_scene")


class Guesses(NamedTuple):
    """Simple guesses of what comes next."""

    z: Tensor
    """m: what was seen before."""
    features: Tensor
    """5 or 6 x m: the learner's own carry (zbar), then those of the ``carry_`` predictors, scene if it plays; or just
    the first."""
    embeddings: Tensor
    """3 x q: copy_last, running_mean, ar1; or just the first."""


class Opponents:
    """The running statistics of v = [z; y] over all streams: at the learner's own rate, cumulative and recent."""

    def __init__(self, features: int, embedding_size: int, like: Tensor, *, measured: bool = True) -> None:
        """Without ``measured`` only the learner's own statistics are kept, and no guesses are made but its carry."""
        self._features = features
        self._measured = measured
        self.moments = RunningMoments(features + embedding_size, _FLOORS if measured else _FLOORS[:1], like)
        self.scene = SceneRegression(features, like)

    @property
    def carry(self) -> Tensor:
        """m: zbar, the running mean of z that the learner's own carry is made from."""
        return self.moments.mean[_OWN, : self._features]

    @property
    def mean(self) -> Tensor:
        """q: mu, the running mean of y."""
        return self.moments.mean[_OWN, self._features :]

    @property
    def deviation(self) -> Tensor:
        """q: sqrt(var + 1e-4) of y."""
        return (self.moments.variance[_OWN, self._features :] + VARIANCE_FLOOR).sqrt()

    def guesses(self, z: Tensor, y: Tensor, scene: Tensor | None) -> Guesses:
        """What the simple ones guess after ``z`` and ``y``; ``scene`` is the mean of z in a marked sequence so far."""
        m = self._features
        if not self._measured:
            return Guesses(z, self.moments.mean[:, :m], y.unsqueeze(0))
        v = torch.cat([z, y])
        mean, slope = self.moments.mean, self.moments.ar1(v)
        rows = [mean[:, :m], slope[_CUMULATIVE:, :m]]
        if scene is not None:
            rows.append(self.scene.predict(z, scene).unsqueeze(0))
        return Guesses(z, torch.cat(rows), torch.stack([y, mean[_OWN, m:], slope[_OWN, m:]]))

    def update(self, z: Tensor, y: Tensor, before: tuple[Tensor, Tensor] | None, steps: int) -> None:
        """Take in one fixation; ``before`` is the (z, y) before it in its sequence, ``steps`` those of the learner."""
        self.moments.update(torch.cat([z, y]), None if before is None else torch.cat(before), steps)


def by_name(errors: list[float] | None) -> dict[str, float | None]:
    """The errors of the guesses' embeddings, then of what was carried, as a record tells them; None for none."""
    found = dict(zip((*_ROWS, *_CARRIED), errors or [], strict=False))
    told = {name: found.get(name) for name in TRIVIAL_ERRORS}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in told.items()}
