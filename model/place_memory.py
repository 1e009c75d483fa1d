"""What was seen where: 12 x 6 cells over the frame, each a fading mean of the features seen there.

    a_k = 0.7 exp(-d_k^2 / 2)           d_k: from the gaze to cell k's centre, in units of sigma
    write at the gaze:      M_k <- (1 - a_k) M_k + a_k z,   C_k <- (1 - a_k) C_k + a_k     (1)
    read at the next gaze:  w_k as exp(-d_k^2 / 2),
                            confidence = sum w C / sum w                                  (2)
                            features = sum w M / (sum w C + 0.1 sum w)                     (3)

M_k / C_k is the mean of what cell k saw, so sum w M / sum w C is the mean of the cells near the gaze, each
by its confidence; the 0.1 lets what is hardly known fade to zero instead of being told at full strength.
sigma is 1 degree, or 0.35 of a cell in frames so wide that cells lie further apart. On a moving picture M
and C fade by 0.9 a fixation. Both begin at zero with every sequence. No gradient passes through them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.action import Look, bumps
from model.host import upload

COLUMNS, ROWS = 12, 6
_WRITE = 0.7
_SIGMA_DEG = 1.0
_SIGMA_CELLS = 0.35
_DOUBT = 0.1
DECAYS = {"still": 1.0, "moving": 0.9}
"""What remains after a fixation, by the name of the choice."""


class PlaceMemory(NamedTuple):
    """One stream's memory of places; never changed, only replaced."""

    seen: Tensor
    """72 x m: M, row by row from the top left."""
    confidence: Tensor
    """72: C, from 0 (never looked at) to 1."""


def empty(features: int, like: Tensor) -> PlaceMemory:
    """Nothing seen yet; dtype and device of ``like``."""
    return PlaceMemory(like.new_zeros(COLUMNS * ROWS, features), like.new_zeros(COLUMNS * ROWS))


def write(memory: PlaceMemory, look: Look, z: Tensor, decay: float) -> PlaceMemory:
    """The memory after ``z`` (m) was seen at ``look``: everything fades by ``decay``, then equation (1)."""
    share = _closeness(look, memory.seen) * _WRITE
    keep = (1.0 - share) * decay
    seen = (memory.seen * keep.unsqueeze(1)).addr_(share, z)
    return PlaceMemory(seen, memory.confidence * keep + share)


def read(memory: PlaceMemory, look: Look) -> Tensor:
    """Equations (3) and (2) at ``look``: m features, then the confidence."""
    near = _closeness(look, memory.seen)
    near = near / near.sum().clamp_min(1e-12)
    known = (near @ memory.confidence).view(1)
    return torch.cat([(near @ memory.seen) / (known + _DOUBT), known])


def _closeness(look: Look, like: Tensor) -> Tensor:
    """exp(-d_k^2 / 2) for every cell: 72 numbers, row by row."""
    (x, y), (width, height) = look.degrees, look.frame_deg
    across = bumps(x, width, COLUMNS, max(_SIGMA_DEG, _SIGMA_CELLS * width / COLUMNS))
    down = bumps(y, height, ROWS, max(_SIGMA_DEG, _SIGMA_CELLS * height / ROWS))
    return upload(torch.from_numpy(np.outer(down, across).ravel()), like)
