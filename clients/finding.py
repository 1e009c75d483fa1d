"""Fixations of a recording, in its time: found by our detector in its samples, or as the tracker found them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from clients.fixations import Detector, DetectorSettings, Fixation
from clients.gaze import GazeTrack
from clients.units import FrameSize
from clients.video import SECOND_NS


class Moment(NamedTuple):
    """``time_ns``: when it is reached (None: the tracker gave no time, or at the end); what is known then and was not
    before."""

    time_ns: int | None
    fixations: list[Fixation]


class Finder(Protocol):
    """Where a recording's fixations come from. ``first_ns``: its beginning; ``length_s``: how long it is."""

    first_ns: int
    length_s: float

    def moments(self, begin_ns: float, end_ns: float) -> Iterator[Moment]:
        """The recording from ``begin_ns`` until ``end_ns``; each call begins anew. A fixation that is not over at
        ``end_ns`` is none: its end is not known."""

    def words(self) -> str:
        """What was made of it, for people."""


class Sampled:
    """Samples, and a fresh detector for each pass."""

    def __init__(self, track: GazeTrack, size: FrameSize, settings: DetectorSettings) -> None:
        self._track = track
        self._size = size
        self._settings = settings
        self._detector = Detector(size, settings)
        self.first_ns, self.length_s = track.first_ns, track.length_s

    def moments(self, begin_ns: float, end_ns: float) -> Iterator[Moment]:
        """See :class:`Finder`."""
        self._detector = Detector(self._size, self._settings)
        for sample in self._track.samples():
            if sample.time_ns is not None and sample.time_ns < begin_ns:
                continue
            if sample.time_ns is not None and sample.time_ns >= end_ns:
                return
            yield Moment(sample.time_ns, self._detector.feed(sample))
        yield Moment(None, self._detector.finish())

    def words(self) -> str:
        """See :class:`Finder`."""
        counts = self._detector.counts
        faults = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.faults().items())
        rate = f"{self._detector.sampling_hz:.0f} Hz" if self._detector.sampling_hz else "unknown rate"
        return (
            f"gaze: {counts.samples} samples at {rate}, detector {self._detector.method}; not used: {faults or 'none'}"
        )


class Told:
    """Fixations of the tracker's own, in order (at least one)."""

    def __init__(self, fixations: tuple[Fixation, ...], first_ns: int) -> None:
        self._fixations = fixations
        self.first_ns = first_ns
        self.length_s = (max(fixation.end_ns for fixation in fixations) - first_ns) / SECOND_NS

    def moments(self, begin_ns: float, end_ns: float) -> Iterator[Moment]:
        """See :class:`Finder`."""
        for fixation in self._fixations:
            if fixation.onset_ns < begin_ns:
                continue
            if fixation.end_ns >= end_ns:
                return
            yield Moment(fixation.end_ns, [fixation])

    def words(self) -> str:
        """See :class:`Finder`."""
        return f"gaze: {len(self._fixations)} fixations, as the tracker found them"
