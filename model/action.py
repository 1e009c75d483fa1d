"""Where the eye looks, as numbers a predictor can read: known before the next patch is looked at.

    a_t = [gaze, next gaze, squares and product of each, saccade, its squares,
           40 Gaussians (8 x 5 over the frame, sigma 2.5 degrees) at the next gaze]       54 numbers
    near = z_t exp(-|saccade|^2 / (2 (1.5 degrees)^2))                                    m numbers

All in degrees, y downwards, origin at the top left of the frame (or of the scene, where the client gives
scene coordinates). The paper leaves actions out; these are the named choice ``predictor.action`` and
``predictor.near``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.errors import ModelError

Numbers = np.ndarray[Any, np.dtype[np.float64]]
ACTION_SIZE = 54
_COLUMNS, _ROWS = 8, 5
_TILE_SIGMA_DEG = 2.5
_NEAR_SIGMA_DEG = 1.5


@dataclass(frozen=True)
class Look:
    """Where the eye was when it saw this.

    ``gaze``: fraction of the frame, origin top left, y downwards. ``gaze_deg``: the same in degrees with
    the same origin and axes (or in coordinates of the scene), where the client knows better than gaze times
    ``frame_deg``, the frame's width and height in degrees. Raises :class:`ModelError` where a number is not
    finite or the frame is empty.
    """

    gaze: tuple[float, float]
    gaze_deg: tuple[float, float] | None = None
    frame_deg: tuple[float, float] = (30.0, 17.0)

    def __post_init__(self) -> None:
        numbers = (*self.gaze, *(self.gaze_deg or ()), *self.frame_deg)
        if not all(math.isfinite(number) for number in numbers) or min(self.frame_deg) <= 0.0:
            raise ModelError(f"{self} is no place: gaze must be finite and the frame larger than nothing")

    @property
    def degrees(self) -> tuple[float, float]:
        """The gaze in degrees from the top left."""
        if self.gaze_deg is not None:
            return float(self.gaze_deg[0]), float(self.gaze_deg[1])
        return float(self.gaze[0] * self.frame_deg[0]), float(self.gaze[1] * self.frame_deg[1])

    @property
    def in_reach(self) -> bool:
        """Whether it is at most the frame's size beyond the frame; further out it is taken as no gaze at all."""
        return all(-size <= at <= 2.0 * size for at, size in zip(self.degrees, self.frame_deg, strict=True))


def bumps(at: float, size: float, count: int, sigma: float) -> Numbers:
    """exp(-d^2 / 2) for ``count`` tiles side by side over ``size``; d from ``at`` to their centres, in sigma."""
    centres = (np.arange(count) + 0.5) * (size / count)
    far = np.clip((centres - at) / sigma, -1e3, 1e3)
    near: Numbers = np.exp(far * far * -0.5)
    return near


def action(here: Look, there: Look) -> Tensor:
    """a_t from ``here`` to ``there``: 54 numbers, float64, not yet normalised; the Gaussians row by row."""
    (gx, gy), (nx, ny) = here.degrees, there.degrees
    sx, sy = nx - gx, ny - gy
    plain = (gx, gy, nx, ny, gx * gx, gy * gy, gx * gy, nx * nx, ny * ny, nx * ny, sx, sy, sx * sx, sy * sy)
    across = bumps(nx, there.frame_deg[0], _COLUMNS, _TILE_SIGMA_DEG)
    down = bumps(ny, there.frame_deg[1], _ROWS, _TILE_SIGMA_DEG)
    return torch.from_numpy(np.concatenate([plain, np.outer(down, across).ravel()]))


def nearness(here: Look, there: Look) -> float:
    """exp(-|saccade|^2 / (2 (1.5 degrees)^2)), 1 where the eye stays."""
    distance = math.dist(here.degrees, there.degrees) / _NEAR_SIGMA_DEG
    return math.exp(-0.5 * distance * distance)
