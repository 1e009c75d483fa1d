"""How far another clock is from ours, by asking it: the midpoint of the shortest round trip."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

WINDOW = 10
"""Round trips of which the shortest is believed."""
MILLION = 1e6
DRIFT_PPM = 200.0
"""A clock that drifts faster is worth a word: 0.7 s an hour. Quartz is good for 50."""


class RoundTrip(NamedTuple):
    """Asked and answered in our clock (ns), and what the other clock told between."""

    asked_ns: int
    answered_ns: int
    told_ns: int

    @property
    def length_ns(self) -> int:
        """How long it took; half of it is the most that the offset can be wrong by."""
        return self.answered_ns - self.asked_ns

    @property
    def middle_ns(self) -> int:
        """When the other clock was probably read."""
        return (self.asked_ns + self.answered_ns) // 2

    @property
    def offset_ns(self) -> int:
        """Other clock minus ours."""
        return self.told_ns - self.middle_ns


class ClockOffset:
    """Follows another clock; ``add`` and the questions may come from different threads."""

    def __init__(self, window: int = WINDOW) -> None:
        self._recent: deque[RoundTrip] = deque(maxlen=window)
        self._first: RoundTrip | None = None
        self._best: RoundTrip | None = None
        self._lock = threading.Lock()

    def add(self, trip: RoundTrip) -> None:
        """Take one more round trip."""
        with self._lock:
            self._recent.append(trip)
            self._best = min(self._recent, key=lambda one: one.length_ns)
            if self._first is None and len(self._recent) == self._recent.maxlen:
                self._first = self._best

    def reset(self) -> None:
        """It is another clock now."""
        with self._lock:
            self._recent.clear()
            self._first = self._best = None

    @property
    def offset_ns(self) -> int | None:
        """Other clock minus ours; None before anything was told."""
        best = self._best
        return None if best is None else best.offset_ns

    @property
    def error_ns(self) -> int:
        """The most by which the offset can be wrong."""
        best = self._best
        return 0 if best is None else best.length_ns // 2

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the other clock goes, in millionths; None until a minute has passed."""
        with self._lock:
            first, best = self._first, self._best
        if first is None or best is None or best.middle_ns - first.middle_ns < 60_000_000_000:
            return None
        return (best.offset_ns - first.offset_ns) / (best.middle_ns - first.middle_ns) * MILLION

    @property
    def drifts(self) -> bool:
        """Whether it drifts so fast that a person should know."""
        return abs(self.drift_ppm or 0.0) > DRIFT_PPM

    def words(self) -> str:
        """For people."""
        offset_ns, drift_ppm = self.offset_ns, self.drift_ppm
        if offset_ns is None:
            return "clock unknown"
        drift = "" if drift_ppm is None else f", drifting {drift_ppm:+.0f} ppm"
        return f"clock {offset_ns * 1e-9:+.3f} s from ours, to {self.error_ns * 1e-6:.2f} ms{drift}"
