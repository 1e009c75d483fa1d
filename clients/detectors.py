"""Is the eye still at this sample? I-VT and I-DT, sample by sample, in degrees.

A classifier takes points (time, x, y) as they come and gives each back, in order and a little later, with a
verdict: ``still`` (fixation or smooth pursuit) or not (saccade). What makes a fixation of still points is
in :mod:`clients.fixations`.

- I-VT (Salvucci & Goldberg 2000, "velocity-threshold identification"): a point is still while the eye moves
  slower than a threshold. The velocity is that between the centres of the points just before and just after
  it. The threshold grows with the noise of the tracker, told by the median velocity of the last second.
- I-DT ("dispersion-threshold identification"): points are still while a stretch of them stays inside a small
  window. For trackers too slow to show a saccade's velocity.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MS = 1_000_000
"""Nanoseconds in a millisecond."""


class Point(NamedTuple):
    """A gaze sample that is there: time (ns, source clock), position (degrees from the frame's top left)."""

    time_ns: int
    x_deg: float
    y_deg: float


class Judged(NamedTuple):
    """A point with its verdict; ``joins`` is False where it can't belong to the stretch before it."""

    point: Point
    still: bool
    joins: bool = True


class Classifier(Protocol):
    """What :class:`clients.fixations.Detector` needs of I-VT and I-DT."""

    def push(self, point: Point) -> list[Judged]:
        """Take the next point (later than the last); return the verdicts that are now certain, in order."""

    def drain(self) -> list[Judged]:
        """Judge what still waits with what is known, and begin anew: a gap or the end."""


@dataclass(frozen=True)
class VelocitySettings:
    """I-VT's numbers. They were set once, on all labelled recordings together; the optimum is flat."""

    threshold_deg_per_s: float = 40.0
    onset_share: float = 0.45
    """A stretch begins below this share of the threshold, once the eye rings no more after a saccade, and ends above
    all of it."""
    glitch_ns: int = 12 * MS
    glitch_deg: float = 0.5
    """A break no longer than this is no saccade, unless the eye got farther."""
    noise_factor: float = 3.0
    noise_window_ns: int = 1000 * MS
    half_window_ns: int = 10 * MS + MS // 2
    """A little over 10 ms, so that jitter does not push a sample of a 500 Hz tracker out."""


@dataclass(frozen=True)
class DispersionSettings:
    """I-DT's numbers: the stretch that must be still at least, and its width plus height."""

    window_ns: int = 80 * MS
    dispersion_deg: float = 1.0
    noise_factor: float = 1.6
    noise_window_ns: int = 2000 * MS


class VelocityClassifier:
    """I-VT, half a window late."""

    def __init__(self, settings: VelocitySettings | None = None) -> None:
        self._settings = settings or VelocitySettings()
        self._points: deque[Point] = deque()
        self._next = 0
        self._still = False
        self._noise = _RunningMedian(self._settings.noise_window_ns)

    def push(self, point: Point) -> list[Judged]:
        """See :class:`Classifier`."""
        self._points.append(point)
        judged = []
        while (
            self._next < len(self._points) - 1
            and self._points[self._next].time_ns + self._settings.half_window_ns <= point.time_ns
        ):
            judged.append(self._judge())
        return judged

    def drain(self) -> list[Judged]:
        """See :class:`Classifier`."""
        judged = []
        while self._next < len(self._points):
            judged.append(self._judge())
        self._points.clear()
        self._next = 0
        self._still = False
        return judged

    def _judge(self) -> Judged:
        velocity = self._velocity(self._next)
        point = self._points[self._next]
        noise = self._noise.push(point.time_ns, velocity)
        threshold = max(self._settings.threshold_deg_per_s, self._settings.noise_factor * noise)
        still = velocity < threshold * (1.0 if self._still else self._settings.onset_share)
        self._still = still
        self._next += 1
        while self._next > 2 and self._points[1].time_ns < point.time_ns - self._settings.half_window_ns:
            self._points.popleft()
            self._next -= 1
        return Judged(point, still)

    def _velocity(self, at: int) -> float:
        """Degrees per second between the centres before and after point ``at``; 0 for a point alone."""
        points, reach = self._points, self._settings.half_window_ns
        here = points[at].time_ns
        before = at
        while before > 0 and (here - points[before - 1].time_ns <= reach or before == at):
            before -= 1
        after = at
        while after < len(points) - 1 and (points[after + 1].time_ns - here <= reach or after == at):
            after += 1
        left = _centre([points[i] for i in range(before, at)] or [points[at]], here)
        right = _centre([points[i] for i in range(at + 1, after + 1)] or [points[at]], here)
        span_s = (right[0] - left[0]) * 1e-9
        return math.hypot(right[1] - left[1], right[2] - left[2]) / span_s if span_s > 0 else 0.0


class DispersionClassifier:
    """I-DT, a window late. A stretch lets go of its beginning, so that a slow pursuit stays one stretch."""

    def __init__(self, settings: DispersionSettings | None = None) -> None:
        self._settings = settings or DispersionSettings()
        self._window: deque[Point] = deque()
        self._waiting: deque[Point] = deque()
        self._noise = _RunningMedian(self._settings.noise_window_ns)
        self._still = False

    def push(self, point: Point) -> list[Judged]:
        """See :class:`Classifier`."""
        self._window.append(point)
        reach = self._settings.window_ns
        while len(self._window) > 2 and point.time_ns - self._window[1].time_ns >= reach:
            self._window.popleft()
        if self._still:
            if self._compact():
                return [Judged(point, True)]
            self._still = False
            self._window.clear()
            self._window.append(point)
            self._waiting.append(point)
            return []
        self._waiting.append(point)
        if point.time_ns - self._window[0].time_ns >= reach and self._compact():
            return self._begin()
        judged = []
        while self._waiting and self._waiting[0].time_ns < self._window[0].time_ns:
            judged.append(Judged(self._waiting.popleft(), False))
        return judged

    def drain(self) -> list[Judged]:
        """See :class:`Classifier`."""
        judged = [Judged(point, False) for point in self._waiting]
        self._waiting.clear()
        self._window.clear()
        self._still = False
        return judged

    def _begin(self) -> list[Judged]:
        judged = []
        first = self._window[0].time_ns
        while self._waiting:
            point = self._waiting.popleft()
            judged.append(Judged(point, point.time_ns >= first, joins=point.time_ns != first))
        self._still = True
        return judged

    def _compact(self) -> bool:
        x_deg = [point.x_deg for point in self._window]
        y_deg = [point.y_deg for point in self._window]
        dispersion = max(x_deg) - min(x_deg) + max(y_deg) - min(y_deg)
        noise = self._noise.push(self._window[-1].time_ns, dispersion)
        return dispersion <= max(self._settings.dispersion_deg, self._settings.noise_factor * noise)


class _RunningMedian:
    """The median of the values of the last ``window_ns``; 0 until there are five."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._values: deque[tuple[int, float]] = deque()
        self._sorted: list[float] = []

    def push(self, time_ns: int, value: float) -> float:
        self._values.append((time_ns, value))
        insort(self._sorted, value)
        while abs(time_ns - self._values[0][0]) > self._window_ns:
            _, old = self._values.popleft()
            del self._sorted[bisect_left(self._sorted, old)]
        return self._sorted[len(self._sorted) // 2] if len(self._sorted) >= 5 else 0.0


def _centre(points: list[Point], origin_ns: int) -> tuple[float, float, float]:
    """Mean time (ns after ``origin_ns``), x and y (degrees)."""
    count = len(points)
    time_ns = sum(point.time_ns - origin_ns for point in points) / count
    return time_ns, sum(point.x_deg for point in points) / count, sum(point.y_deg for point in points) / count
