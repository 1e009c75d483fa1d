"""What must not be learned: a picture seen again, one like nothing seen before, and numbers that are none.

A hundred black frames in a row, or half an hour of gaze on one spot, ruin an online learner for good. So a
fixation whose features are nearly those of the last one kept is recorded as a repeat and moves nothing.

One fixation a thousand times as strong as the others weighs as a million of them in every sum of squares, and
forgetting it takes tens of thousands. So one far stronger than usual is refused and moves nothing but what is
usual, a running mean of logarithms:

    refused where e > limit usual,  e = z.z
    log usual <- log usual + r (log e - log usual, held within log limit),  r = max(1 / (N + 1), 1/2000)     (1)

Rare ones hardly move a mean of logarithms; what stays far becomes the usual, after 2,000 fixations for every
factor ``limit``.
"""

from __future__ import annotations

import math

from torch import Tensor

from model.host import number

_RATE_FLOOR = 1.0 / 2000.0
_ENOUGH = 20
"""Fixations before anything is far."""
_LEAST = 1e-12
"""Of e: zeros have a logarithm too."""


def squares(tensor: Tensor) -> Tensor:
    """The sum of squares, where the tensor is: finite only if every number is, and far enough from overflow."""
    flat = tensor if tensor.dim() == 1 else tensor.reshape(-1)
    return flat @ flat


def energy(tensor: Tensor) -> float:
    """The sum of squares, read."""
    return number(squares(tensor))


def is_finite(*tensors: Tensor) -> bool:
    """Whether every number is, in each of them, with its :func:`energy`."""
    return all(math.isfinite(energy(tensor)) for tensor in tensors)


def is_repeat(z: Tensor, kept: Tensor | None, threshold: float) -> bool:
    """Whether mean (z - kept)^2 <= threshold mean z^2; never with a threshold of 0 or nothing kept.

    Both at zero is a repeat: hence at most, not less.
    """
    return kept is not None and threshold > 0.0 and energy(z - kept) <= threshold * energy(z)


class Usual:
    """How strong the features of all streams usually are: equation (1)."""

    def __init__(self, limit: float) -> None:
        """``limit``: of mean squares; 0 for nothing is ever far."""
        self.level = 0.0
        """log usual."""
        self.count = 0
        """N: fixations taken in."""
        self._limit = limit
        self._reach = math.log(limit) if limit > 0.0 else math.inf

    def take(self, strength: float) -> str | None:
        """Take in a fixation of ``strength`` z.z, finite; why it is too far from the usual, or None."""
        offset = math.log(max(strength, _LEAST)) - self.level
        enough = self.count >= _ENOUGH
        rate = max(1.0 / (self.count + 1), _RATE_FLOOR)
        self.level += rate * (min(max(offset, -self._reach), self._reach) if enough else offset)
        self.count += 1
        if not enough or offset <= self._reach:
            return None
        return f"the features are {math.exp(0.5 * offset):.3g} times as strong as usual"
