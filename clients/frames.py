"""Live frames: kept undecoded until a fixation wants one, bounded in time and bytes, found by their own times.

The tracker's thread pushes, the pipeline's asks. A frame that belongs to the onset of a fixation which still goes on
is held beyond the others, however long the eye stays.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, insort
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clients.video import SECOND_NS, Frames

UInt8 = NDArray[np.uint8]

SPAN_NS = 3 * SECOND_NS
"""Frames are kept for so long behind the gaze that was looked at last."""
MAX_NS = 20 * SECOND_NS
MAX_BYTES = 192 << 20
JUMP_NS = SECOND_NS
"""A frame older than the newest by more than this: the clock was set back. By less: it was late."""
TOLERANCE_NS = SECOND_NS // 20
"""A frame may be this far from the onset, or one frame period, if that is longer."""
HOLDS = 64
INTERVALS = 31
GAP_PERIODS = 3


class BrokenFrame(Exception):
    """The bytes of a frame are not the picture they are said to be."""


@dataclass(frozen=True)
class LiveFrame:
    """``time_ns`` is in the source's clock; ``decode`` gives uint8 BGR (height, width, 3) or :class:`BrokenFrame`."""

    time_ns: int
    width_px: int
    height_px: int
    held_bytes: int
    decode: Callable[[], UInt8]


class Shown(Protocol):
    """What the live pipeline asks of a video, in the clock of the gaze."""

    def size_px(self) -> tuple[int, int] | None:
        """Width and height; None before there was a frame."""

    def hold(self, time_ns: int) -> None:
        """The frame nearest to ``time_ns`` will be asked for, perhaps much later."""

    def release(self, time_ns: int) -> None:
        """No frame that was held for a time up to ``time_ns`` will be asked for again."""

    def passed(self, time_ns: int) -> None:
        """Gaze has been looked at up to ``time_ns``."""

    def heard_s(self) -> float:
        """When the last frame came, by ``time.monotonic``."""

    def ready(self, time_ns: int) -> bool:
        """Whether no frame nearer to ``time_ns`` is to be expected."""

    def nearest(self, time_ns: int) -> LiveFrame | None:
        """The frame nearest to ``time_ns``; None if there was none near enough."""

    def faults(self) -> dict[str, int]:
        """What was wrong with the frames, counted by name."""


class FrameBuffer:
    """The frames from ``span_ns`` behind the pipeline on, so that one which is late itself still finds them.

    Never more than ``max_ns`` and ``max_bytes`` of them, whoever is late.
    """

    def __init__(self, span_ns: int = SPAN_NS, max_bytes: int = MAX_BYTES, max_ns: int = MAX_NS) -> None:
        self._span_ns = span_ns
        self._max_ns = max_ns
        self._passed_ns: int | None = None
        self._heard_s = -math.inf
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._times: list[int] = []
        self._frames: dict[int, LiveFrame] = {}
        self._bytes = 0
        self._holds: OrderedDict[int, LiveFrame | None] = OrderedDict()
        self._intervals: deque[int] = deque(maxlen=INTERVALS)
        self._period_ns = 0
        self._size_px: tuple[int, int] | None = None
        self._counts: Counter[str] = Counter()

    @property
    def period_ns(self) -> int:
        """Time from one frame to the next, the median of the last ones; 0 until there are two."""
        return self._period_ns

    def __len__(self) -> int:
        return len(self._times)

    def push(self, frame: LiveFrame) -> None:
        """Take the next frame as it arrives."""
        with self._lock:
            self._heard_s = time.monotonic()
            newest_ns = self._times[-1] if self._times else None
            if newest_ns is not None and newest_ns - frame.time_ns >= JUMP_NS:
                self._counts["frames_time_back"] += 1
                self._clear()
                newest_ns = None
            if frame.time_ns in self._frames:
                self._counts["frames_repeated"] += 1
                return
            if newest_ns is not None:
                self._judge(frame.time_ns - newest_ns)
            insort(self._times, frame.time_ns)
            self._frames[frame.time_ns] = frame
            self._bytes += frame.held_bytes
            self._size_px = frame.width_px, frame.height_px
            self._resolve()
            self._trim()

    def size_px(self) -> tuple[int, int] | None:
        """See :class:`Shown`."""
        return self._size_px

    def hold(self, time_ns: int) -> None:
        """See :class:`Shown`."""
        with self._lock:
            if time_ns in self._holds:
                return
            self._holds[time_ns] = None
            while len(self._holds) > HOLDS:
                self._holds.popitem(last=False)
            self._resolve()

    def release(self, time_ns: int) -> None:
        """See :class:`Shown`."""
        with self._lock:
            for held_ns in [held_ns for held_ns in self._holds if held_ns <= time_ns]:
                del self._holds[held_ns]

    def passed(self, time_ns: int) -> None:
        """See :class:`Shown`."""
        self._passed_ns = time_ns

    def heard_s(self) -> float:
        """See :class:`Shown`."""
        return self._heard_s

    def ready(self, time_ns: int) -> bool:
        """See :class:`Shown`."""
        with self._lock:
            return self._holds.get(time_ns) is not None or (bool(self._times) and self._times[-1] >= time_ns)

    def nearest(self, time_ns: int) -> LiveFrame | None:
        """See :class:`Shown`."""
        with self._lock:
            return self._holds.get(time_ns) or self._find(time_ns)

    def faults(self) -> dict[str, int]:
        """See :class:`Shown`."""
        with self._lock:
            return dict(self._counts)

    def _judge(self, step_ns: int) -> None:
        """Count what the step from the newest frame to this one tells, and learn the period."""
        if step_ns < 0:
            self._counts["frames_late"] += 1
            return
        longest_ns = GAP_PERIODS * self._period_ns or step_ns
        if step_ns > longest_ns:
            self._counts["frames_gap"] += 1
        self._intervals.append(min(step_ns, longest_ns))  # a gap is no rate, a rate that changed is learned
        self._period_ns = int(median(self._intervals))

    def _find(self, time_ns: int) -> LiveFrame | None:
        at = bisect_left(self._times, time_ns)
        near = [self._frames[found_ns] for found_ns in self._times[max(0, at - 1) : at + 1]]
        best = min(near, key=lambda frame: abs(frame.time_ns - time_ns), default=None)
        if best is None or abs(best.time_ns - time_ns) > max(self._period_ns, TOLERANCE_NS):
            return None
        return best

    def _resolve(self) -> None:
        """Fix the frame of each hold as soon as one at or after its time is there."""
        if not self._times:
            return
        for time_ns, frame in self._holds.items():
            if frame is None and self._times[-1] >= time_ns:
                self._holds[time_ns] = self._find(time_ns)

    def _trim(self) -> None:
        newest_ns = self._times[-1]
        first_ns = newest_ns - self._max_ns
        if self._passed_ns is not None:
            first_ns = max(first_ns, min(newest_ns, self._passed_ns) - self._span_ns)
        while len(self._times) > 1 and (self._times[0] < first_ns or self._bytes > self._max_bytes):
            self._bytes -= self._frames.pop(self._times.pop(0)).held_bytes

    def _clear(self) -> None:
        self._times.clear()
        self._frames.clear()
        self._intervals.clear()
        self._bytes = 0


class FileShown:
    """A video file or a picture that was begun at ``start_ns`` of the gaze's clock (None: with the first sample)."""

    def __init__(self, frames: Frames, start_ns: int | None) -> None:
        self._frames = frames
        self._start_ns = start_ns

    def begin(self, time_ns: int) -> None:
        """The first sample was at ``time_ns``."""
        if self._start_ns is None:
            self._start_ns = time_ns

    def size_px(self) -> tuple[int, int] | None:
        """See :class:`Shown`."""
        return self._frames.width_px, self._frames.height_px

    def hold(self, time_ns: int) -> None:
        """See :class:`Shown`; a file can be asked at any time."""

    def release(self, time_ns: int) -> None:
        """See :class:`Shown`; nothing is held."""

    def passed(self, time_ns: int) -> None:
        """See :class:`Shown`; nothing is kept."""

    def heard_s(self) -> float:
        """See :class:`Shown`."""
        return -math.inf

    def ready(self, time_ns: int) -> bool:
        """See :class:`Shown`."""
        return True

    def nearest(self, time_ns: int) -> LiveFrame | None:
        """See :class:`Shown`."""
        if self._start_ns is None:
            return None
        frame = self._frames.nearest(time_ns - self._start_ns)
        if frame is None:
            return None
        height_px, width_px = frame.bgr.shape[:2]
        return LiveFrame(frame.time_ns + self._start_ns, width_px, height_px, 0, lambda: frame.bgr)

    def faults(self) -> dict[str, int]:
        """See :class:`Shown`."""
        return {}
