"""What a live source brings, handed from its threads to the pipeline: the source never waits.

Nothing here touches disk, network or pixels. What the pipeline does not fetch in time is dropped, the oldest first,
and counted.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from clients.errors import ClientError
from clients.fixations import Fixation, Sample
from clients.frames import FrameBuffer, LiveFrame, Shown

CAPACITY = 20_000
"""Samples between source and pipeline, at most: 100 s at 200 Hz."""


@dataclass(frozen=True)
class Renewed:
    """The source began anew, on a clock that has nothing to do with the one before; ``shown``: its video from now."""

    shown: Shown


@dataclass(frozen=True)
class Lens:
    """The source told its camera's focal lengths (px) at a resolution (px)."""

    size_px: tuple[int, int]
    focal_px: tuple[float, float]


@dataclass(frozen=True)
class Notice:
    """Something a person should know."""

    text: str


Item = Sample | Fixation | Renewed | Lens | Notice


class Feed:
    """``shown``: a video that is there already; None: frames will be pushed."""

    def __init__(self, shown: Shown | None = None, capacity: int = CAPACITY) -> None:
        self.error: ClientError | None = None
        """Why the source ended; None while it goes on."""
        self._given = shown
        self._buffer = FrameBuffer()
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()

    @property
    def shown(self) -> Shown:
        """The video at the moment."""
        return self._given or self._buffer

    # --- the source's threads --------------------------------------------------------------------------------------

    def gaze(self, samples: Iterable[Sample]) -> None:
        """Samples, in the order they came."""
        self._put(samples)

    def fixation(self, fixation: Fixation) -> None:
        """A fixation that the tracker found itself; it is over."""
        self._put([fixation])

    def frame(self, frame: LiveFrame) -> None:
        """A frame, as it came."""
        self._buffer.push(frame)

    def hold(self, time_ns: int) -> None:
        """A fixation of the tracker's began at ``time_ns``."""
        self.shown.hold(time_ns)

    def renew(self) -> None:
        """The clock is another one from now on."""
        self._buffer = FrameBuffer()
        self.count("source_restarted")
        self._put([Renewed(self.shown)])

    def lens(self, size_px: tuple[int, int], focal_px: tuple[float, float]) -> None:
        """The tracker told its camera's intrinsics."""
        self._put([Lens(size_px, focal_px)])

    def say(self, text: str) -> None:
        """Tell a person."""
        self._put([Notice(text)])

    def count(self, name: str, by: int = 1) -> None:
        """Something was wrong and is survived."""
        with self._changed:
            self._counts[name] += by

    def fail(self, error: ClientError) -> None:
        """It is over."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify()

    def _put(self, items: Iterable[Item]) -> None:
        with self._changed:
            for item in items:
                if len(self._items) >= self._capacity:
                    self._drop_one()
                self._items.append(item)
            self._changed.notify()

    def _drop_one(self) -> None:
        """Make room by the oldest sample; what is no sample is rare and stays while there are any."""
        for at, item in enumerate(self._items):
            if isinstance(item, Sample):
                del self._items[at]
                self._counts["gaze_overrun"] += 1
                return
        self._items.popleft()
        self._counts["gaze_overrun"] += 1

    # --- the pipeline ----------------------------------------------------------------------------------------------

    def take(self, timeout_s: float) -> deque[Item]:
        """Everything that came, waiting for the first up to ``timeout_s``."""
        with self._changed:
            if not self._items and self.error is None:
                self._changed.wait(timeout_s)
            items, self._items = self._items, deque()
            return items

    def faults(self) -> dict[str, int]:
        """What was counted."""
        with self._changed:
            return dict(self._counts)


class Source(Protocol):
    """A tracker, or a camera. ``run`` is called in a thread of its own."""

    def run(self, feed: Feed, stop: threading.Event) -> None:
        """Bring gaze and frames until ``stop``. Raises :class:`ClientError` for what can't be survived."""

    def now_ns(self) -> int | None:
        """The present time in the source's clock; None while that is not known."""

    def words(self) -> str:
        """Where it stands, for people."""
