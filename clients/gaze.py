"""A recorded gaze track: all samples of one viewer, as arrays, in the clients' own units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.errors import SourceError
from clients.fixations import Sample
from clients.units import FrameSize
from clients.video import SECOND_NS


@dataclass(frozen=True)
class GazeTrack:
    """``time_ns`` int64 (N,) and ``timed`` bool (N,): where False, the tracker gave no time; ``x``, ``y`` float64
    (N,): fractions of the frame from its top left, NaN where gaze was lost; ``confidence`` float64 (N,), 0..1.

    ``frame``: the degrees the frame subtends, where the recording tells them. ``notes``: how it was read, for people.
    """

    path: Path
    time_ns: NDArray[np.int64]
    timed: NDArray[np.bool_]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    confidence: NDArray[np.float64]
    frame: FrameSize | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not np.any(self.timed & np.isfinite(self.x) & np.isfinite(self.y)):
            raise SourceError(f"gaze file {self.path} has no sample with a time and a position")

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def first_ns(self) -> int:
        """Time of the first sample that has one."""
        return int(self.time_ns[np.argmax(self.timed)])

    @property
    def length_s(self) -> float:
        """From the first sample to the latest (a clock that jumped back at the end does not shorten it)."""
        return float(int(self.time_ns[self.timed].max()) - self.first_ns) / SECOND_NS

    def samples(self) -> Iterator[Sample]:
        """Every sample, in the file's order."""
        columns = (self.time_ns, self.timed, self.x, self.y, self.confidence)
        for time_ns, timed, x, y, confidence in zip(*(column.tolist() for column in columns), strict=True):
            yield Sample(time_ns if timed else None, x, y, confidence)
