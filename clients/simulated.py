"""An observer for a machine without a tracker: looks about a video by saliency and inhibition of return.

At the end of each fixation the next place is drawn with a probability that is the product of

- the saliency of the frame shown then (Itti, Koch & Niebur 1998, much simplified): centre minus surround of
  intensity, two colour opponents and change since the last look, each divided by its largest value;
- a preference for saccades of a few degrees: amplitudes are Gamma distributed (shape 2, scale 3 degrees);
- a bias to the centre;
- inhibition of return: where the eye has been is less likely for about two seconds (Klein 2000).

Fixations last 250 ms on average, log-normally; a saccade takes 21 ms + 2.2 ms a degree (Carpenter 1988).
Everything is drawn from one seeded generator: the same video and seed give the same fixations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.errors import SourceError
from clients.fixations import Fixation
from clients.units import FrameSize
from clients.video import Frame, Frames, opencv

GRID_WIDTH = 64
"""Cells across the frame; so many down that they are square."""
MEAN_DURATION_S = 0.25
DURATION_SPREAD = 0.35
SHORTEST_S, LONGEST_S = 0.08, 1.0
AMPLITUDE_SCALE_DEG = 3.0
RETURN_S = 2.0
RETURN_WIDTH_DEG = 2.0
CENTRE_SHARE = 0.4
"""Standard deviation of the centre bias, as a share of the frame."""
SHARPNESS = 2.0
FLOOR = 0.02
"""Every place has some attraction, so that an empty frame can be looked at."""

Map = NDArray[np.float64]


class Observer:
    """Looks at ``frames``, which subtend ``size`` degrees."""

    def __init__(self, frames: Frames, size: FrameSize, seed: int) -> None:
        self._frames = frames
        self._size = size
        self._generator = np.random.default_rng(seed)
        rows = max(2, round(GRID_WIDTH * size.height_deg / size.width_deg))
        self._grid = (rows, GRID_WIDTH)
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(GRID_WIDTH) + 0.5) / GRID_WIDTH, indexing="ij")
        self._x, self._y = x, y
        self._centre: Map = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / (2 * CENTRE_SHARE**2))
        self._inhibition: Map = np.zeros(self._grid)
        self._before: Map | None = None
        self._at = (0.5, 0.5)

    def look(self, begin_ns: int, end_ns: int | None, *, loop: bool) -> Iterator[tuple[Fixation, Frame]]:
        """Fixations on a clock that begins at ``begin_ns`` of the video and goes on through every loop.

        ``end_ns`` ends a pass early. Each fixation comes with the frame shown at its onset.
        """
        now_ns, pass_begin_ns = begin_ns, 0
        while True:
            shown_ns = now_ns - pass_begin_ns
            frame = self._frames.nearest(shown_ns) if end_ns is None or shown_ns < end_ns else None
            if frame is None:
                if shown_ns == begin_ns:
                    raise SourceError(f"the video ends before --start {begin_ns * 1e-9:g} s")
                if not loop:
                    return
                pass_begin_ns, self._before = now_ns - begin_ns, None
                continue
            x, y = self._choose(frame)
            amplitude_deg = self._degrees(x - self._at[0], y - self._at[1])
            now_ns += round((0.021 + 0.0022 * amplitude_deg) * 1e9)
            duration_ns = round(self._duration_s() * 1e9)
            landed = self._frames.nearest(now_ns - pass_begin_ns)
            if landed is not None:
                yield Fixation(now_ns, now_ns + duration_ns, x, y), landed
            now_ns += duration_ns
            self._remember(x, y, duration_ns * 1e-9)

    def _choose(self, frame: Frame) -> tuple[float, float]:
        """Where to look next, as fractions of the frame."""
        away = np.hypot((self._x - self._at[0]) * self._size.width_deg, (self._y - self._at[1]) * self._size.height_deg)
        # A Gamma(2) of amplitudes, over the ring of places at each amplitude: a exp(-a/s) / a.
        reach = np.exp(-away / AMPLITUDE_SCALE_DEG) * (away > 0.5)
        attraction = (FLOOR + self._saliency(frame)) ** SHARPNESS * reach * self._centre
        weights = (attraction * (1.0 - self._inhibition)).ravel() + 1e-12
        cell = int(self._generator.choice(weights.size, p=weights / weights.sum()))
        row, column = divmod(cell, self._grid[1])
        x = (column + self._generator.uniform()) / self._grid[1]
        y = (row + self._generator.uniform()) / self._grid[0]
        return float(x), float(y)

    def _saliency(self, frame: Frame) -> Map:
        cv2: Any = opencv()
        rows, columns = self._grid
        small = cv2.resize(frame.bgr, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float64)
        blue, green, red = small[..., 0], small[..., 1], small[..., 2]
        light = small.mean(axis=2)
        features = [light, red - green, blue - (red + green) / 2]
        maps = [_contrast(cv2, feature) for feature in features]
        if self._before is not None:
            maps.append(_scaled(cv2.GaussianBlur(np.abs(light - self._before), (0, 0), 1.0)))
        self._before = light
        total: Map = np.sum(maps, axis=0) / len(maps)
        return total

    def _remember(self, x: float, y: float, seconds: float) -> None:
        self._at = (x, y)
        away = ((self._x - x) * self._size.width_deg) ** 2 + ((self._y - y) * self._size.height_deg) ** 2
        faded = self._inhibition * math.exp(-seconds / RETURN_S)
        self._inhibition = np.maximum(faded, 0.98 * np.exp(-away / (2 * RETURN_WIDTH_DEG**2)))

    def _duration_s(self) -> float:
        mean_log = math.log(MEAN_DURATION_S) - DURATION_SPREAD**2 / 2
        return float(np.clip(self._generator.lognormal(mean_log, DURATION_SPREAD), SHORTEST_S, LONGEST_S))

    def _degrees(self, x: float, y: float) -> float:
        return math.hypot(x * self._size.width_deg, y * self._size.height_deg)


def _contrast(cv2: Any, feature: Map) -> Map:
    """Centre minus surround at two scales."""
    fine = np.abs(feature - cv2.GaussianBlur(feature, (0, 0), 3.0))
    coarse = np.abs(cv2.GaussianBlur(feature, (0, 0), 2.0) - cv2.GaussianBlur(feature, (0, 0), 8.0))
    return _scaled(fine) + _scaled(coarse)


def _scaled(values: Map) -> Map:
    largest = float(values.max())
    scaled: Map = values / largest if largest > 1.0 else np.zeros_like(values)
    return scaled
