"""A patch: the 5 degrees around the gaze point, as 50 x 50 RGB pixels.

How many pixels of the frame 5 degrees are depends on the device, and horizontally and vertically they may
differ. The square is cut at its exact, fractional place: where a patch pixel covers more than one of the
frame's, it is their average by covered area; where it covers less, it is interpolated linearly. What lies
outside the frame is mirrored at its edge, and the patch says what fraction that was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.errors import BadFixation
from clients.units import FrameSize
from clients.wire import PATCH_DEGREES, PATCH_HEIGHT_PX, PATCH_WIDTH_PX

BLACK_BELOW = 16
"""A pixel whose brightest channel is below this (of 255) is black: video's own black, with its noise."""
BLACK_SHARE = 0.99
_ROUNDING = 1e-6
"""Added before rounding, so that exact halves fall on the same side whatever the order of a sum was."""

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Patch:
    """``rgb``: uint8 (50, 50, 3), row-major; ``padded``: the fraction of it that lay outside the frame."""

    rgb: UInt8
    padded: float


class NoPatch(Exception):
    """There is no patch for this fixation; ``reason`` is counted under ``dropped``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def cut(frame_bgr: UInt8, x: float, y: float, size: FrameSize) -> Patch:
    """The patch of ``frame_bgr`` (uint8, height x width x 3, as OpenCV decodes) around (``x``, ``y``).

    The gaze is in fractions of the frame, origin top left. Raises :class:`NoPatch` with ``off_frame`` for a
    gaze outside 0..1 (or not finite) and ``black`` for a patch that shows nothing.
    """
    if not (0.0 <= x <= 1.0 and 0.0 <= y <= 1.0):
        raise NoPatch("off_frame")
    height_px, width_px = frame_bgr.shape[:2]
    across, down = size.px_per_degree(width_px, height_px)
    columns = _Window.around(x * width_px, across * PATCH_DEGREES, width_px, PATCH_WIDTH_PX)
    rows = _Window.around(y * height_px, down * PATCH_DEGREES, height_px, PATCH_HEIGHT_PX)
    region = frame_bgr[rows.indices][:, columns.indices, ::-1].astype(np.float64)
    resized = columns.resample(rows.resample(region).swapaxes(0, 1)).swapaxes(0, 1)
    rgb = np.floor(np.clip(resized + 0.5 + _ROUNDING, 0.0, 255.0)).astype(np.uint8)
    if is_black(rgb):
        raise NoPatch("black")
    return Patch(np.ascontiguousarray(rgb), 1.0 - (1.0 - columns.outside) * (1.0 - rows.outside))


def is_black(rgb: UInt8) -> bool:
    """Whether nothing can be seen: a closed eye, a lens cap, a black screen, the dark between two clips."""
    return float(np.mean(rgb.max(axis=2) < BLACK_BELOW)) >= BLACK_SHARE


def check_patch(patch: Any) -> UInt8:
    """``patch`` as contiguous uint8 (50, 50, 3); raise :class:`BadFixation` saying what it is instead."""
    array = np.asarray(patch)
    if array.dtype != np.uint8 or array.shape != (PATCH_HEIGHT_PX, PATCH_WIDTH_PX, 3):
        shape = " x ".join(str(n) for n in array.shape) or "one value"
        raise BadFixation(
            f"a patch is uint8 RGB of {PATCH_HEIGHT_PX} x {PATCH_WIDTH_PX} x 3, 5 degrees around the gaze; this one is "
            f"{array.dtype} of {shape}"
        )
    return np.ascontiguousarray(array)


@dataclass(frozen=True)
class _Window:
    """One axis of the cut, pixel i of the frame covering [i, i + 1).

    ``indices``: the frame's pixels that are read (S,), mirrored into it; ``low`` and ``step``: where the first
    patch pixel begins, counted from the first of those, and the length of each; ``outside``: the fraction of
    the window beyond the frame.
    """

    indices: NDArray[np.intp]
    low: float
    step: float
    patch_px: int
    outside: float

    @classmethod
    def around(cls, centre_px: float, length_px: float, frame_px: int, patch_px: int) -> _Window:
        """The window of ``length_px`` about ``centre_px``."""
        low, high = centre_px - length_px / 2, centre_px + length_px / 2
        first = math.floor(low - 0.5)
        pixels = np.arange(first, math.floor(high + 0.5) + 2)
        beyond = max(0.0, -low) + max(0.0, high - frame_px)
        return cls(_mirror(pixels, frame_px), low - first, length_px / patch_px, patch_px, min(1.0, beyond / length_px))

    def resample(self, values: Floats) -> Floats:
        """(S, ...) -> (patch_px, ...): the mean over each patch pixel; linear where those are the smaller ones."""
        if self.step >= 1.0:
            sums = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
            at_edges = _between(sums, self.low + self.step * np.arange(self.patch_px + 1))
            return np.diff(at_edges, axis=0) / self.step
        return _between(values, self.low + self.step * (np.arange(self.patch_px) + 0.5) - 0.5)


def _between(values: Floats, positions: Floats) -> Floats:
    """``values`` (S, ...) at fractional ``positions`` (P,) along the first axis, linearly: (P, ...)."""
    below = np.minimum(positions.astype(np.intp), len(values) - 2)
    share = (positions - below).reshape(-1, *[1] * (values.ndim - 1))
    lower = values[below]
    upper = values[below + 1]
    between: Floats = lower + share * (upper - lower)
    return between


def _mirror(pixels: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Indices beyond 0..count - 1, mirrored at the frame's edges as often as it takes."""
    folded = pixels % (2 * count)
    return np.where(folded < count, folded, 2 * count - 1 - folded)
