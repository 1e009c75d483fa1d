"""How fast a recording is played: at real pace, so many times it, or as fast as it goes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from clients.errors import OptionError


def parse_speed(text: str) -> float:
    """``1``, ``10``, ``0.5`` or ``max`` (infinity). Raises :class:`OptionError`."""
    if text.strip().lower() == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not speed > 0 or math.isinf(speed):
        raise OptionError(f"--speed {text!r}: a number above 0 (1 is real pace) or max is wanted")
    return speed


class Pace:
    """Lets source time pass ``speed`` times as fast as real time, from its first :meth:`wait` on."""

    def __init__(
        self,
        speed: float,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._speed = speed
        self._stop = stop
        self._clock = clock
        self._sleep = sleep or stop.wait
        self._begin: tuple[int, float] | None = None

    def wait(self, time_ns: int) -> None:
        """Return when source time ``time_ns`` has come, or the stop was asked for. A step back begins anew."""
        if math.isinf(self._speed):
            return
        now_s = self._clock()
        if self._begin is None or time_ns < self._begin[0]:
            self._begin = time_ns, now_s
        due_s = self._begin[1] + (time_ns - self._begin[0]) * 1e-9 / self._speed
        if due_s - now_s > 0.002 and not self._stop.is_set():
            self._sleep(due_s - now_s)
