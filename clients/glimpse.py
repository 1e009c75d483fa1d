"""The picture of ``rjepa doctor``: a frame with the gaze point on it, and the patch of 5 degrees cut there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.errors import SourceError
from clients.patches import NoPatch, cut
from clients.units import from_px_per_degree
from clients.video import opencv
from clients.wire import PATCH_DEGREES

UInt8 = NDArray[np.uint8]
Scale = tuple[float, float]
"""Pixels of a frame in one degree at its centre: across and down."""

HEIGHT_PX = 480
"""Of the picture; the frame keeps its proportions, and the patch stands beside it as a square as high."""
GAP_PX = 12
MEASURE = "measure how many pixels of the frame one degree is at its centre, and say --px-per-degree X"
MARK_BGR, RIM_BGR = (0, 230, 255), (0, 0, 0)


@dataclass(frozen=True)
class Glimpse:
    """``bgr``: a frame, uint8 (height, width, 3); ``x``, ``y``: the gaze, as fractions from its top left.

    ``scale`` is None where nothing tells it: then there is no patch. ``source`` names where the frame is from.
    """

    source: str
    bgr: UInt8
    x: float
    y: float
    scale: Scale | None = None

    def drawn(self) -> UInt8:
        """The picture: the frame scaled to 480 pixels high, the gaze point and the square of 5 degrees marked on it,
        and beside it the patch, where there is one. Raises :class:`NoPatch` for a gaze off the frame."""
        cv2 = opencv()
        height_px, width_px = self.bgr.shape[:2]
        scale = HEIGHT_PX / height_px
        shown_px = (max(1, round(width_px * scale)), HEIGHT_PX)
        shown = cv2.resize(self.bgr, shown_px, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        at = (round(self.x * shown_px[0]), round(self.y * HEIGHT_PX))
        parts = [shown]
        if self.scale is not None:
            size = from_px_per_degree(width_px, height_px, *self.scale)
            patch = cut(self.bgr, self.x, self.y, size).rgb[..., ::-1]
            parts.append(np.zeros((HEIGHT_PX, GAP_PX, 3), np.uint8))
            parts.append(cv2.resize(patch, (HEIGHT_PX, HEIGHT_PX), interpolation=cv2.INTER_NEAREST))
            half = [PATCH_DEGREES / 2 * each for each in size.px_per_degree(*shown_px)]
            corners = [tuple(round(at[axis] + side * half[axis]) for axis in (0, 1)) for side in (-1, 1)]
            for colour, thickness in ((RIM_BGR, 4), (MARK_BGR, 2)):
                cv2.rectangle(shown, *corners, colour, thickness)
        for colour, thickness in ((RIM_BGR, 5), (MARK_BGR, 2)):
            cv2.circle(shown, at, 8, colour, thickness)
        picture: UInt8 = np.concatenate(parts, axis=1)
        return picture

    def write(self, path: Path) -> str:
        """Write the picture to ``path``, a PNG; what can be told of it. Raises :class:`SourceError`."""
        try:
            coded, png = opencv().imencode(".png", self.drawn())
        except NoPatch as none:
            raise SourceError(f"no patch can be cut from {self.source}: {none.reason}") from None
        try:
            path.write_bytes(png.tobytes() if coded else b"")
        except OSError as error:
            raise SourceError(f"{path} can't be written: {error.strerror}") from None
        height_px, width_px = self.bgr.shape[:2]
        told = f"{path}: {self.source}, {width_px} x {height_px} px, gaze at {self.x:.3f}, {self.y:.3f}"
        if self.scale is None:
            return f"{told}; no patch, as px/deg is unknown"
        across, down = (PATCH_DEGREES * each for each in self.scale)
        return f"{told}; the patch is {across:.0f} x {down:.0f} px of it"
