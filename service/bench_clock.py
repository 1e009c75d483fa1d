"""Things timed side by side: a round lets each run in turn, so that what else the machine does falls on all of them.

What one leaves behind must not fall on the next. Threads of some libraries look for work for some milliseconds after
a run (onnxruntime's, openvino's) and hold the cores meanwhile, caches hold another's numbers: so each is given a pause
before it, and runs once without being counted. Every round begins with another one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

_LEAST_S = 0.004
_ENOUGH = 3
"""Samples after which what takes long is let off."""
PAUSE_S = 0.02
"""Before each sample: until then, the threads of the one before have fallen asleep."""
_LONG_S = 0.1
"""What takes longer needs no run before the one that is counted."""


@dataclass
class Timed:
    """One of them; ``run`` does it ``per_run`` times."""

    name: str
    run: Callable[[], object]
    per_run: int = 1
    warm_s: float = 0.0
    """Before each sample it runs so long uncounted, until threads and caches are its own again."""
    least_s: float = _LEAST_S
    """Of one sample: what is shorter is repeated in it."""
    samples: list[float] = field(default_factory=list)
    """Seconds of one time each."""
    spent_s: float = 0.0

    @property
    def median_s(self) -> float:
        """Of one time."""
        return statistics.median(self.samples)

    def sample(self, wait: Callable[[], None], pause_s: float = 0.0) -> None:
        """Run it, long enough for the clock; ``wait`` until the device has done it.

        With ``pause_s``, after that pause and, unless it takes long, a run that is not counted.
        """
        if pause_s > 0.0:
            time.sleep(pause_s)
            if not self.samples or self.samples[-1] * self.per_run < _LONG_S:
                self.run()
        wait()
        if self.warm_s > 0.0:
            self._run_for(self.warm_s, wait)
        runs, took = self._run_for(self.least_s, wait)
        self.samples.append(took / (runs * self.per_run))
        self.spent_s += took

    def _run_for(self, seconds: float, wait: Callable[[], None]) -> tuple[int, float]:
        """How often it ran, and in how many seconds."""
        runs, begun, now = 0, time.perf_counter(), 0.0
        while now < seconds:
            self.run()
            runs += 1
            wait()
            now = time.perf_counter() - begun
        return runs, now


def side_by_side(
    timed: list[Timed],
    *,
    repeats: int,
    most_s: float,
    device: str,
    told: Callable[[], object],
    pause_s: float = PAUSE_S,
) -> None:
    """``repeats`` rounds; one that has used up ``most_s`` seconds sits out, once it has three samples."""
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    for turn in range(repeats):
        first = turn % len(timed)
        for each in timed[first:] + timed[:first]:
            if each.spent_s < most_s or len(each.samples) < _ENOUGH:
                each.sample(wait, pause_s)
        told()


def _nothing() -> None:
    return
