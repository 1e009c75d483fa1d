"""Fixations from gaze samples, one sample at a time.

    samples -> lost ones left out, clock checked -> I-VT or I-DT (clients/detectors.py): still or not
            -> stretches of still points -> close ones merged, short ones dropped -> fixations

A pursued target counts as a fixated one: a stretch ends when the eye jumps, not when it follows. The gaze
point of a fixation is where the eye was at its beginning, so that it fits the frame shown then.

Nothing here grows with the length of a recording or of a fixation.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from clients.detectors import (
    MS,
    Classifier,
    DispersionClassifier,
    DispersionSettings,
    Judged,
    Point,
    VelocityClassifier,
    VelocitySettings,
)
from clients.units import FrameSize

Method = Literal["auto", "ivt", "idt"]

SLOWEST_IVT_HZ = 100.0
"""Below this a saccade is one or two samples long and I-DT finds more fixations than I-VT (measured on labels)."""


@dataclass(frozen=True)
class Sample:
    """One gaze sample as a tracker gave it.

    ``time_ns`` is in the source's clock, None where the tracker gave no number. ``x`` and ``y`` are fractions of
    the frame from its top left; NaN, or exactly (0, 0), is a lost sample. ``confidence`` is 0..1.
    """

    time_ns: int | None
    x: float
    y: float
    confidence: float = 1.0


@dataclass(frozen=True)
class Fixation:
    """A fixation or pursuit: times in ns of the source's clock, gaze as fractions of the frame at its onset."""

    onset_ns: int
    end_ns: int
    x: float
    y: float

    @property
    def duration_ns(self) -> int:
        """From the first to the last sample."""
        return self.end_ns - self.onset_ns


@dataclass(frozen=True)
class DetectorSettings:
    """What makes a fixation of still points; see also VelocitySettings and DispersionSettings."""

    method: Method = "auto"
    min_duration_ns: int = 60 * MS
    merge_gap_ns: int = 50 * MS
    merge_distance_deg: float = 0.3
    min_confidence: float = 0.6
    head_ns: int = 60 * MS
    """The gaze point is the median of the points in this first part of a fixation."""
    edge_ns: int = 20 * MS
    """Two stretches are close if the centres of their adjoining edges of this length are."""
    longest_gap_ns: int = 20 * MS
    """Time without a sample (or two and a half sample intervals, if longer) that ends a stretch."""
    late_ns: int = 100 * MS
    """A sample older than the newest by less than this is late and left out; by more, the clock was set back."""
    warm_up: int = 25
    """Samples from which the sampling rate is taken."""
    velocity: VelocitySettings = field(default_factory=VelocitySettings)
    dispersion: DispersionSettings = field(default_factory=DispersionSettings)


@dataclass
class DetectorCounts:
    """What came in and was not used. All are survived; none is hidden."""

    samples: int = 0
    lost: int = 0
    low_confidence: int = 0
    time_missing: int = 0
    time_back: int = 0
    time_repeated: int = 0

    def faults(self) -> dict[str, int]:
        """Each count that is not 0, by name, without ``samples``."""
        return {name: n for name, n in vars(self).items() if n and name != "samples"}


@dataclass
class _Stretch:
    """Still points without a break: where they begin and end, never all of them."""

    onset_ns: int
    end_ns: int
    head: list[Point] = field(default_factory=list)
    tail: deque[Point] = field(default_factory=deque)


class Detector:
    """Feed it samples in the order they come; it gives back fixations as they are finished.

    Online delay: a fixation is given ``merge_gap_ns`` and half a window (I-VT, 10 ms) after its end, since
    until then it might go on.
    """

    def __init__(self, frame: FrameSize, settings: DetectorSettings | None = None) -> None:
        self.counts = DetectorCounts()
        self.interval_ns: int | None = None
        self.method: Method = "auto"
        self._frame = frame
        self._settings = settings or DetectorSettings()
        self._warming: list[Point] = []
        self._classifier: Classifier | None = None
        self._grouper = _Grouper(self._settings)
        self._last_ns: int | None = None
        self._last_point_ns = 0
        self._longest_gap_ns = self._settings.longest_gap_ns

    @property
    def sampling_hz(self) -> float | None:
        """The tracker's rate by the median of its first intervals; None until it is known."""
        return 1e9 / self.interval_ns if self.interval_ns else None

    @property
    def ongoing(self) -> Fixation | None:
        """The fixation the eye is in, as far as it is known, once it is long enough to be one."""
        stretch = self._grouper.ongoing()
        return self._fixation(stretch) if stretch else None

    def feed(self, sample: Sample) -> list[Fixation]:
        """Take the next sample; return the fixations it finished, oldest first."""
        self.counts.samples += 1
        if sample.time_ns is None:
            self.counts.time_missing += 1
            return []
        point = self._point(sample, sample.time_ns)
        finished: list[_Stretch] = []
        if self._last_ns is not None and sample.time_ns <= self._last_ns:
            late = self._last_ns - sample.time_ns < self._settings.late_ns
            self._count_time(sample.time_ns - self._last_ns)
            if late:
                return []
            finished = self._break()
        self._last_ns = sample.time_ns
        if point is not None:
            finished += self._take(point)
        elif self._classifier is not None:
            finished += self._pass_time(sample.time_ns)
        return [self._fixation(stretch) for stretch in finished]

    def finish(self) -> list[Fixation]:
        """The recording is over: return what was still open."""
        stretches = self._start() if self._classifier is None and self._warming else []
        return [self._fixation(stretch) for stretch in stretches + self._break()]

    def _count_time(self, step_ns: int) -> None:
        if step_ns == 0:
            self.counts.time_repeated += 1
        else:
            self.counts.time_back += 1

    def _point(self, sample: Sample, time_ns: int) -> Point | None:
        if not (math.isfinite(sample.x) and math.isfinite(sample.y)) or (sample.x == 0.0 and sample.y == 0.0):
            self.counts.lost += 1
            return None
        if not sample.confidence >= self._settings.min_confidence:
            self.counts.low_confidence += 1
            return None
        return Point(time_ns, sample.x * self._frame.width_deg, sample.y * self._frame.height_deg)

    def _take(self, point: Point) -> list[_Stretch]:
        if self._classifier is None:
            self._warming.append(point)
            return self._start() if len(self._warming) >= self._settings.warm_up else []
        finished = self._pass_time(point.time_ns)
        self._last_point_ns = point.time_ns
        self._group(self._classifier.push(point))
        return finished + self._grouper.take()

    def _pass_time(self, now_ns: int) -> list[_Stretch]:
        """A stretch ends where points are missing for too long."""
        if self._classifier is None or now_ns - self._last_point_ns <= self._longest_gap_ns:
            return []
        self._group(self._classifier.drain())
        self._grouper.close()
        self._grouper.expire(now_ns)
        return self._grouper.take()

    def _start(self) -> list[_Stretch]:
        """Learn the sampling rate from the first points, choose the classifier, and feed it those points."""
        warming, self._warming = self._warming, []
        intervals = [b.time_ns - a.time_ns for a, b in itertools.pairwise(warming)]
        forward = [interval for interval in intervals if interval > 0]
        self.interval_ns = max(1, round(statistics.median(forward))) if forward else 10 * MS
        self._longest_gap_ns = max(self._settings.longest_gap_ns, self.interval_ns * 5 // 2)
        self.method = self._settings.method
        if self.method == "auto":
            self.method = "ivt" if 1e9 / self.interval_ns >= SLOWEST_IVT_HZ else "idt"
        if self.method == "ivt":
            self._classifier = VelocityClassifier(self._settings.velocity)
            self._grouper.forgive(self._settings.velocity)
        else:
            self._classifier = DispersionClassifier(self._settings.dispersion)
        self._last_point_ns = warming[0].time_ns
        finished = []
        for point in warming:
            if point.time_ns < self._last_point_ns:
                finished += self._break()
            finished += self._take(point)
        return finished

    def _break(self) -> list[_Stretch]:
        """End everything that is open: the clock jumped back, or the recording is over."""
        if self._classifier is None:
            return []
        self._group(self._classifier.drain())
        self._grouper.close()
        self._grouper.flush()
        return self._grouper.take()

    def _group(self, judged: list[Judged]) -> None:
        for verdict in judged:
            self._grouper.push(verdict)

    def _fixation(self, stretch: _Stretch) -> Fixation:
        return Fixation(
            onset_ns=stretch.onset_ns,
            end_ns=stretch.end_ns,
            x=statistics.median(point.x_deg for point in stretch.head) / self._frame.width_deg,
            y=statistics.median(point.y_deg for point in stretch.head) / self._frame.height_deg,
        )


class _Grouper:
    """Stretches from verdicts: merges close ones, drops short ones. ``take`` gives those that are certain."""

    def __init__(self, settings: DetectorSettings) -> None:
        self._settings = settings
        self._glitch: VelocitySettings | None = None
        self._open: _Stretch | None = None
        self._closed: _Stretch | None = None
        self._certain: list[_Stretch] = []

    def forgive(self, velocity: VelocitySettings) -> None:
        """Verdicts are by velocity from now on: so short a break is no saccade."""
        self._glitch = velocity

    def push(self, verdict: Judged) -> None:
        """Take the next verdict."""
        point = verdict.point
        if self._open is not None and not (verdict.still and verdict.joins):
            self.close()
        self.expire(point.time_ns)
        if verdict.still:
            if self._open is None:
                self._open = _Stretch(point.time_ns, point.time_ns)
            self._extend(self._open, point)
            if self._closed is not None and point.time_ns - self._open.onset_ns >= self._settings.edge_ns:
                self._open = self._merged(self._open)

    def close(self) -> None:
        """The open stretch ends here."""
        if self._open is not None:
            self._closed, self._open = self._merged(self._open), None

    def expire(self, now_ns: int) -> None:
        """At ``now_ns`` nothing that begins can be merged with a stretch closed too long ago."""
        closed = self._closed
        if closed is not None and self._open is None and now_ns - closed.end_ns > self._settings.merge_gap_ns:
            self.flush()

    def flush(self) -> None:
        """Nothing more will be merged with the closed stretch."""
        if self._closed is not None and self._long_enough(self._closed):
            self._certain.append(self._closed)
        self._closed = None

    def take(self) -> list[_Stretch]:
        """The stretches that are certain and long enough, each once."""
        certain, self._certain = self._certain, []
        return certain

    def ongoing(self) -> _Stretch | None:
        """The open stretch, if it is long enough."""
        return self._open if self._open is not None and self._long_enough(self._open) else None

    def _long_enough(self, stretch: _Stretch) -> bool:
        return stretch.end_ns - stretch.onset_ns >= self._settings.min_duration_ns

    def _extend(self, stretch: _Stretch, point: Point) -> None:
        stretch.end_ns = point.time_ns
        if point.time_ns - stretch.onset_ns <= self._settings.head_ns:
            stretch.head.append(point)
        stretch.tail.append(point)
        while point.time_ns - stretch.tail[0].time_ns > self._settings.edge_ns:
            stretch.tail.popleft()

    def _merged(self, after: _Stretch) -> _Stretch:
        """``after``, with the closed stretch before it taken in if it is close by, else let go."""
        before = self._closed
        if before is None:
            return after
        if not self._close_by(before, after):
            self.flush()
            return after
        self._closed = None
        return _Stretch(before.onset_ns, after.end_ns, before.head, after.tail)

    def _close_by(self, before: _Stretch, after: _Stretch) -> bool:
        if after.onset_ns - before.end_ns > self._settings.merge_gap_ns:
            return False
        edge_ns = after.onset_ns + self._settings.edge_ns
        head = [point for point in after.head if point.time_ns <= edge_ns]
        x_deg = _mean([p.x_deg for p in before.tail]) - _mean([p.x_deg for p in head])
        y_deg = _mean([p.y_deg for p in before.tail]) - _mean([p.y_deg for p in head])
        limit_deg, glitch = self._settings.merge_distance_deg, self._glitch
        if glitch is not None and after.onset_ns - before.end_ns <= glitch.glitch_ns:
            limit_deg = max(limit_deg, glitch.glitch_deg)
        return math.hypot(x_deg, y_deg) <= limit_deg


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
