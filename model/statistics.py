"""Running statistics of what streams by, and what simple predictors make of them.

Of each dimension, at the rate r = max(1 / (N + 1), floor), N the steps before:

    cov  <- cov + r ((v - mean)(v_before - mean) - cov)       not at a sequence's start  (1)
    mean <- mean + r (v - mean)                                                          (2)
    var  <- var + r ((v - the old mean)^2 - var)                                         (3)
    AR(1): mean + slope (v - mean), slope = cov / max(var, 1e-6) clipped to [-1, 1]      (4)

With floor 0 they are cumulative; with 1/1000 recent. All begin at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.prediction import VARIANCE_FLOOR

_SLOPE_FLOOR = 1e-6
_LEAST = 1e-12


class RunningMoments:
    """Equations (1) to (4), for the same v at several rates side by side: R x size each."""

    def __init__(self, size: int, floors: tuple[float, ...], like: Tensor) -> None:
        self.mean = like.new_zeros(len(floors), size)
        self.variance = torch.zeros_like(self.mean)
        self.covariance = torch.zeros_like(self.mean)
        self._floors = torch.tensor(floors, dtype=like.dtype, device=like.device).unsqueeze(1)

    def update(self, value: Tensor, before: Tensor | None, steps: int) -> None:
        """Take in ``value`` (size); ``before`` is the one before it in its sequence, ``steps`` is N."""
        rate = self._floors.clamp_min(1.0 / (steps + 1))
        offset = value - self.mean
        if before is not None:
            self.covariance.lerp_(offset * (before - self.mean), rate)
        self.mean.addcmul_(offset, rate)
        self.variance.lerp_(offset.square_(), rate)

    def ar1(self, value: Tensor) -> Tensor:
        """Equation (4) from ``value`` (size): R x size."""
        slope = (self.covariance / self.variance.clamp_min(_SLOPE_FLOOR)).clamp_(-1.0, 1.0)
        return torch.addcmul(self.mean, slope, value - self.mean)

    def deviation(self) -> Tensor:
        """sqrt(var + 1e-4), R x size: what is normalised is divided by it."""
        return (self.variance + VARIANCE_FLOOR).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """Everything it remembers, by name; the tensors themselves."""
        return {"mean": self.mean, "variance": self.variance, "covariance": self.covariance}


class SceneRegression:
    """Per dimension, a ridge regression of the next z on z and the mean of z in this sequence so far.

    Running moments over all steps of marked sequences, cumulative; the ridge weighs as ten samples of the
    features' mean variance, whatever their scale, so that the first predictions are near the mean.
    """

    _RIDGE_SAMPLES = 10.0

    def __init__(self, size: int, like: Tensor) -> None:
        self.means = like.new_zeros(3, size)
        """Of z, of the sequence's mean so far, of the next z."""
        self.products = like.new_zeros(5, size)
        """Covariances zz, zs, ss, zn, sn (z, the sequence's mean s, the next n)."""
        self.steps = 0

    def update(self, z: Tensor, scene: Tensor, following: Tensor) -> None:
        """Take in one pair: ``z`` and ``scene`` (m each) were followed by ``following``."""
        self.steps += 1
        rate = 1.0 / self.steps
        values = torch.stack([z, scene, following])
        old = values - self.means
        self.means.add_(old, alpha=rate)
        new = values - self.means
        now = torch.stack([old[0] * new[0], old[0] * new[1], old[1] * new[1], old[0] * new[2], old[1] * new[2]])
        self.products.lerp_(now, rate)

    def predict(self, z: Tensor, scene: Tensor) -> Tensor:
        """The next z, m numbers."""
        zz, zs, ss, zn, sn = self.products.unbind()
        ridge = self._RIDGE_SAMPLES / (self.steps + 1) * zz.mean().clamp_min(_LEAST)
        zz, ss = zz + ridge, ss + ridge
        offset_z, offset_s = z - self.means[0], scene - self.means[1]
        slope_z, slope_s = ss * zn - zs * sn, zz * sn - zs * zn
        return self.means[2] + (slope_z * offset_z + slope_s * offset_s) / (zz * ss - zs * zs)

    def tensors(self) -> dict[str, Tensor]:
        """Everything it remembers but ``steps``, by name; the tensors themselves."""
        return {"means": self.means, "products": self.products}
