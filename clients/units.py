"""Degrees of visual angle: how large a frame, and so a pixel, is to the eye.

Gaze is a fraction of the frame everywhere inside the clients (0..1, origin top left), so the one thing
that fixes every angle is how many degrees the frame is wide and high. Pixels per degree are those at the
centre of the frame or screen and are taken as constant over it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from clients.errors import OptionError

MIN_DEG, MAX_DEG = 1.0, 360.0
_PAIR = re.compile(r"^\s*([0-9.eE+-]+)(?:\s*[xX×]\s*([0-9.eE+-]+))?\s*$")


@dataclass(frozen=True)
class FrameSize:
    """What a frame subtends: ``width_deg`` and ``height_deg``, each from 1 to 360."""

    width_deg: float
    height_deg: float

    def __post_init__(self) -> None:
        for name, value in (("width", self.width_deg), ("height", self.height_deg)):
            if not MIN_DEG <= value <= MAX_DEG:
                raise OptionError(
                    f"a frame {name} of {value:g} degrees is not possible: it must lie in {MIN_DEG:g}..{MAX_DEG:g}; "
                    "are the pixels per degree, or the screen's size and distance, right?"
                )

    def px_per_degree(self, width_px: int, height_px: int) -> tuple[float, float]:
        """Pixels per degree (horizontally, vertically) of a frame of ``width_px`` x ``height_px``."""
        return width_px / self.width_deg, height_px / self.height_deg


def px_per_degree(size_px: float, size_m: float, distance_m: float) -> float:
    """Pixels per degree at the centre of a screen ``size_m`` wide (or high) seen from ``distance_m``.

    One degree at the centre covers 2 d tan(0.5 deg) of the screen. Raises :class:`OptionError` unless all
    three are positive.
    """
    if not all(math.isfinite(v) and v > 0 for v in (size_px, size_m, distance_m)):
        raise OptionError(f"screen of {size_px:g} px and {size_m:g} m seen from {distance_m:g} m: all must be positive")
    return size_px / size_m * 2.0 * distance_m * math.tan(math.radians(0.5))


def from_screen(width_m: float, height_m: float, distance_m: float) -> FrameSize:
    """The degrees of a frame shown on ``width_m`` x ``height_m`` of a screen, seen from ``distance_m``."""
    return FrameSize(1.0 / px_per_degree(1.0, width_m, distance_m), 1.0 / px_per_degree(1.0, height_m, distance_m))


def from_px_per_degree(width_px: int, height_px: int, across: float, down: float) -> FrameSize:
    """The degrees of a frame of ``width_px`` x ``height_px`` at ``across`` and ``down`` pixels per degree."""
    if not all(math.isfinite(v) and v > 0 for v in (across, down)):
        raise OptionError(f"{across:g} x {down:g} pixels per degree: both must be positive")
    return FrameSize(width_px / across, height_px / down)


def from_camera(width_px: float, height_px: float, across_px: float, down_px: float) -> FrameSize:
    """The degrees of a frame of ``width_px`` x ``height_px`` by the camera's focal lengths in pixels.

    As everywhere, those at the centre are taken as constant: one degree there covers 2 f tan(0.5 deg).
    """
    if not all(math.isfinite(v) and v > 0 for v in (across_px, down_px)):
        raise OptionError(f"focal lengths of {across_px:g} x {down_px:g} px: both must be positive")
    degree = 2.0 * math.tan(math.radians(0.5))
    return FrameSize(width_px / (across_px * degree), height_px / (down_px * degree))


def parse_pair(text: str, option: str) -> tuple[float, float | None]:
    """Read ``A`` or ``AxB`` (such as ``31.5x29.9``) as two positive numbers; B is None if it is not there.

    Raises :class:`OptionError` that names ``option``.
    """
    found = _PAIR.match(text)
    try:
        if found is None:
            raise ValueError
        first = float(found.group(1))
        second = float(found.group(2)) if found.group(2) is not None else None
    except ValueError:
        raise OptionError(f"{option} {text!r} is neither a number nor two like 31.5x29.9") from None
    if not all(v is None or (math.isfinite(v) and v > 0) for v in (first, second)):
        raise OptionError(f"{option} {text!r}: both numbers must be positive")
    return first, second
