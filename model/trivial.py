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

import torch
from torch import Tensor

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
"""Their names, in the order of the errors."""

_FLOOR = 1.0 / 2000.0
_RECENT = 1.0 / 1000.0


class Opponents:
    """The running statistics of z and y over all streams; row 0 of ``features`` is the learner's own carry."""

    def __init__(self, features: int, embedding_size: int, like: Tensor) -> None:
        self.features = RunningMoments(features, (_FLOOR, 0.0, _RECENT), like)
        self.embeddings = RunningMoments(embedding_size, (_FLOOR,), like)
        self.scene = SceneRegression(features, like)

    @property
    def carry(self) -> Tensor:
        """m: zbar, the running mean of z that the learner's own carry is made from."""
        return self.features.mean[0]

    def guesses(self, z: Tensor, scene: Tensor) -> Tensor:
        """Simple guesses of the next features after ``z``, ``scene`` the sequence's mean so far: 6 x m.

        In order: the learner's own carry, then those of the five ``carry_`` predictors.
        """
        mean, slope = self.features.mean, self.features.ar1(z)
        return torch.stack([mean[0], mean[1], slope[1], mean[2], slope[2], self.scene.predict(z, scene)])

    def predictions(self, y: Tensor, carried: Tensor) -> Tensor:
        """What the eight predict of the next embedding, from ``y`` (q) and the five carried ones (5 x q): 8 x q."""
        return torch.cat([y.unsqueeze(0), self.embeddings.mean, self.embeddings.ar1(y), carried])

    def update(self, z: Tensor, y: Tensor, before: tuple[Tensor, Tensor] | None, steps: int) -> None:
        """Take in one fixation; ``before`` is the (z, y) before it in its sequence, ``steps`` those of the learner."""
        self.features.update(z, before[0] if before else None, steps)
        self.embeddings.update(y, before[1] if before else None, steps)
