"""Recursive least squares in float64: the linear predictor that has no learning rate.

    r = R phi,  k = r / (lambda + phi.r),  P <- P - e k^T                                 (1)
    R <- (R - r r^T / (lambda + phi.r)) / lambda                                          (2)

R, the inverse covariance of what is read, starts at I/prior. What is not excited for a while would let R
grow by 1/lambda a step without end, so every 200 steps, where R_ii > 1/prior, row and column i are scaled
by sqrt(1 / (prior R_ii)). (Haykin, Adaptive Filter Theory, chapter 10; the limit is ours.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from model.host import Later, Number, unwaited

_LIMIT_EVERY = 200


class RecursiveLeastSquares:
    """P (q x d), R (d x d) and the number of steps made, all float64."""

    def __init__(self, outputs: int, reads: int, *, forgetting: float, prior: float, device: str) -> None:
        self.weights = torch.zeros(outputs, reads, dtype=torch.float64, device=device)
        self.inverse = torch.eye(reads, dtype=torch.float64, device=device) / prior
        self.steps = 0
        self._forgetting = forgetting
        self._prior = prior

    def learn(self, phi: Tensor, error: Tensor) -> float:
        """Equations (1) and (2) with ``error`` = prediction - target (q); the norm of the change of P."""
        later = Later()
        norm = self.learn_later(phi, error, later)
        later.read()
        return norm()

    def learn_later(self, phi: Tensor, error: Tensor, later: Later) -> Callable[[], float]:
        """:meth:`learn`, the norm to be asked when ``later`` was read."""
        error = error.to(torch.float64)
        r, denominator = self.update(phi, error)
        of_error, of_r, divided = later.ask(error @ error), later.ask(r @ r), later.ask(denominator)
        return lambda: math.sqrt(later.one(of_error) * later.one(of_r)) / later.one(divided)

    def update(self, phi: Tensor, error: Tensor) -> tuple[Tensor, Number]:
        """:meth:`learn` where nobody asks how far P went; r and what it was divided by."""
        phi, error = phi.to(torch.float64), error.to(torch.float64)
        r = self.inverse @ phi
        denominator = unwaited(phi @ r) + self._forgetting
        self.weights.addr_(error * (-1.0 / denominator), r)
        self.inverse.addr_(r * (-1.0 / (denominator * self._forgetting)), r, beta=1.0 / self._forgetting)
        self.steps += 1
        if self.steps % _LIMIT_EVERY == 0:
            self._limit()
        return r, denominator

    def _limit(self) -> None:
        """No entry of the diagonal grows past 1/prior; and R is symmetric again, to the last bit."""
        scale = (self._prior * self.inverse.diagonal()).clamp_(min=1.0).rsqrt_()
        self.inverse.mul_(scale.unsqueeze(0)).mul_(scale.unsqueeze(1))
        self.inverse.copy_((self.inverse + self.inverse.T) * 0.5)
