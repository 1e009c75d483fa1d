"""Pixels per degree of a live video: from options, from the screen's geometry, or from the camera's intrinsics.

At its centre a camera of focal length f px shows 2 f tan(0.5 deg) pixels in one degree, with or without distortion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.units import FrameSize, from_px_per_degree, from_screen, parse_pair

PIXELS_IN_A_DEGREE = 2.0 * math.tan(math.radians(0.5))
"""Of a camera of focal length 1 px."""
WIDEST_DEG = 170.0
Pair = tuple[float, float]


@dataclass
class Optics:
    """What is known. What was said by options goes before what the tracker tells (``learn``).

    ``px_per_degree`` and ``fov_deg`` are (across, down); down None: as across, pixels being square. ``screen``: the
    degrees of a picture that was shown on a screen. ``focal_px``: (fx, fy) of the camera by its (width, height) in px.
    """

    px_per_degree: tuple[float, float | None] | None = None
    fov_deg: tuple[float, float | None] | None = None
    screen: FrameSize | None = None
    focal_px: dict[tuple[int, int], Pair] = field(default_factory=dict)
    _first_px: tuple[int, int] | None = None

    @property
    def known(self) -> bool:
        """Whether anything is."""
        return any((self.px_per_degree, self.fov_deg, self.screen, self.focal_px))

    def learn(self, size_px: tuple[int, int], focal_px: Pair) -> None:
        """The tracker told its camera's focal lengths at this resolution."""
        self.focal_px.setdefault(size_px, focal_px)

    def size(self, size_px: tuple[int, int]) -> FrameSize:
        """The degrees of a frame of ``size_px``. Raises :class:`UnitsUnknown`: what to measure."""
        width_px, height_px = size_px
        if self.px_per_degree is not None:
            self._first_px = self._first_px or size_px
            if self._first_px != size_px:
                raise UnitsUnknown(
                    f"the video changed from {_px(self._first_px)} to {_px(size_px)}, and --px-per-degree was for "
                    "the former; begin again with that of the latter"
                )
            across, down = self.px_per_degree
            return from_px_per_degree(width_px, height_px, across, down or across)
        if self.screen is not None:
            return self.screen
        if self.fov_deg is not None:
            across = _focal_px(width_px, self.fov_deg[0])
            down = across if self.fov_deg[1] is None else _focal_px(height_px, self.fov_deg[1])
            return _from_focal(size_px, (across, down))
        if size_px in self.focal_px:
            return _from_focal(size_px, self.focal_px[size_px])
        told = f" (its intrinsics are told for {', '.join(map(_px, self.focal_px))})" if self.focal_px else ""
        raise self.unknown(f"this video of {_px(size_px)}{told}")

    def unknown(self, video: str) -> UnitsUnknown:
        """The error that says what to measure."""
        return UnitsUnknown(
            f"nothing says how large a degree is in {video}: give --px-per-degree X, measured with a ruler held before "
            "the camera (1.75 cm at 1 m are one degree; Pupil Core's own camera has 13.9 at 1280x720 and 6.9 at "
            "640x480), or --intrinsics FILE, or --fov W, or for a screen --screen-mm WxH with --distance-mm D"
        )


def read_optics(
    *,
    px_per_degree: str | None,
    fov: str | None,
    intrinsics: Path | None,
    screen_mm: str | None = None,
    distance_mm: float | None = None,
) -> Optics:
    """What the options of these names say. Raises :class:`OptionError` or :class:`SourceError`."""
    optics = Optics()
    if px_per_degree is not None:
        optics.px_per_degree = parse_pair(px_per_degree, "--px-per-degree")
    if fov is not None:
        optics.fov_deg = parse_pair(fov, "--fov")
        if max(optics.fov_deg[0], optics.fov_deg[1] or 0.0) > WIDEST_DEG:
            raise OptionError(f"--fov {fov}: a lens without distortion sees at most {WIDEST_DEG:g} degrees")
    if (screen_mm is None) != (distance_mm is None):
        raise OptionError("--screen-mm and --distance-mm belong together: one alone gives no angle")
    if screen_mm is not None and distance_mm is not None:
        width_mm, height_mm = parse_pair(screen_mm, "--screen-mm")
        if height_mm is None:
            raise OptionError(f"--screen-mm {screen_mm!r}: width and height are wanted, like 531x299")
        optics.screen = from_screen(width_mm / 1000, height_mm / 1000, distance_mm / 1000)
    if intrinsics is not None:
        optics.focal_px.update(read_intrinsics(intrinsics))
    return optics


def read_intrinsics(path: Path) -> dict[tuple[int, int], Pair]:
    """Focal lengths by resolution in a ``world.intrinsics`` of Pupil Capture (msgpack). Raises :class:`SourceError`."""
    import msgpack

    try:
        found = msgpack.unpackb(path.read_bytes(), raw=False, strict_map_key=False)
    except OSError as error:
        raise SourceError(f"--intrinsics {path} can't be read: {error.strerror}") from None
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise SourceError(f"--intrinsics {path} is no file of intrinsics as Pupil Capture writes it: {error}") from None
    told = found.values() if isinstance(found, Mapping) else []
    cameras = [camera for camera in map(camera_of, told) if camera is not None]
    if not cameras:
        raise SourceError(f"--intrinsics {path} has no resolution with a camera_matrix")
    return dict(cameras)


def camera_of(told: Any) -> tuple[tuple[int, int], Pair] | None:
    """((width, height), (fx, fy)) of a map with ``resolution`` and ``camera_matrix``; None if it is no such map."""
    if not isinstance(told, Mapping):
        return None
    try:
        width_px, height_px = (int(v) for v in told["resolution"])
        fx, fy = float(told["camera_matrix"][0][0]), float(told["camera_matrix"][1][1])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    whole = width_px > 0 and height_px > 0 and 0 < fx < math.inf and 0 < fy < math.inf
    return ((width_px, height_px), (fx, fy)) if whole else None


def _focal_px(size_px: float, fov_deg: float) -> float:
    return size_px / (2.0 * math.tan(math.radians(fov_deg / 2)))


def _from_focal(size_px: tuple[int, int], focal_px: Pair) -> FrameSize:
    across, down = (f * PIXELS_IN_A_DEGREE for f in focal_px)
    return from_px_per_degree(*size_px, across, down)


def _px(size_px: tuple[int, int]) -> str:
    return f"{size_px[0]} x {size_px[1]} px"
