"""What must not be learned: a picture seen again, and numbers that are none.

A hundred black frames in a row, or half an hour of gaze on one spot, ruin an online learner for good. So a
fixation whose features are nearly those of the last one kept is recorded as a repeat and moves nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_repeat(z: Tensor, kept: Tensor | None, threshold: float) -> bool:
    """Whether mean (z - kept)^2 <= threshold mean z^2; never with a threshold of 0 or nothing kept.

    Both at zero is a repeat: hence at most, not less.
    """
    if kept is None or threshold == 0.0:
        return False
    offset = z - kept
    return float(offset @ offset) <= threshold * float(z @ z)


def is_finite(*tensors: Tensor) -> bool:
    """Whether every number, and the sum of its square with the others, is finite: nothing to overflow later."""
    return all(bool(torch.isfinite(tensor.reshape(-1) @ tensor.reshape(-1))) for tensor in tensors)
