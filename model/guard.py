"""What must not be learned: a picture seen again, and numbers that are none.

A hundred black frames in a row, or half an hour of gaze on one spot, ruin an online learner for good. So a
fixation whose features are nearly those of the last one kept is recorded as a repeat and moves nothing.
"""

from __future__ import annotations

import math

from torch import Tensor


def energy(tensor: Tensor) -> float:
    """The sum of squares: finite only if every number is, and far enough from overflow."""
    flat = tensor if tensor.dim() == 1 else tensor.reshape(-1)
    return float(flat @ flat)


def is_finite(*tensors: Tensor) -> bool:
    """Whether every number is, in each of them, with its :func:`energy`."""
    return all(math.isfinite(energy(tensor)) for tensor in tensors)


def is_repeat(z: Tensor, kept: Tensor | None, threshold: float) -> bool:
    """Whether mean (z - kept)^2 <= threshold mean z^2; never with a threshold of 0 or nothing kept.

    Both at zero is a repeat: hence at most, not less.
    """
    return kept is not None and threshold > 0.0 and energy(z - kept) <= threshold * energy(z)
