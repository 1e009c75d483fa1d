"""Things timed side by side: a round lets each run in turn, so that what else the machine does falls on all of them.

What one leaves behind must not fall on the next. Threads of some libraries look for work for some milliseconds after
a run (onnxruntime's, openvino's) and hold the cores meanwhile, caches hold another's numbers: so one that is to be
warm runs a while uncounted, and every round begins with another one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

_LEAST_S = 0.004
_TRIED = 9
"""Samples by which the number of threads is chosen, of what is quick."""
_ENOUGH = 3
"""Samples after which what takes long is let off."""


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
    threads: int | None = None
    """Of torch while it runs; None for as many as there are."""
    samples: list[float] = field(default_factory=list)
    """Seconds of one time each."""
    firsts: list[float] = field(default_factory=list)
    """Seconds of the first run in each turn, for one time: what was before it has filled the caches."""
    spent_s: float = 0.0

    @property
    def median_s(self) -> float:
        """Of one time."""
        return statistics.median(self.samples)

    @property
    def first_s(self) -> float:
        """The median of the first runs."""
        return statistics.median(self.firsts)

    def sample(self, wait: Callable[[], None]) -> None:
        """Run it, long enough for the clock; ``wait`` until the device has done it. The first run counts where it is
        as long and nothing is to be warm."""
        most = torch.get_num_threads()
        torch.set_num_threads(self.threads or most)
        wait()
        runs, took = self._run_for(0.0, wait)
        self.firsts.append(took / self.per_run)
        short = took < self.least_s
        if took < self.warm_s:
            self._run_for(self.warm_s - took, wait)
        if short or self.warm_s > 0.0:
            runs, took = self._run_for(self.least_s, wait)
        torch.set_num_threads(most)
        self.samples.append(took / (runs * self.per_run))
        self.spent_s += took

    def _run_for(self, seconds: float, wait: Callable[[], None]) -> tuple[int, float]:
        """How often it ran, once at least, and in how many seconds."""
        runs, begun, now = 0, time.perf_counter(), 0.0
        while runs == 0 or now < seconds:
            self.run()
            runs += 1
            wait()
            now = time.perf_counter() - begun
        return runs, now


def side_by_side(timed: list[Timed], *, repeats: int, most_s: float, device: str, told: Callable[[], object]) -> None:
    """``repeats`` rounds; one that has used up ``most_s`` seconds sits out, once it has three samples."""
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    for turn in range(repeats):
        first = turn % len(timed)
        for each in timed[first:] + timed[:first]:
            if each.spent_s < most_s or len(each.samples) < _ENOUGH:
                each.sample(wait)
        told()


def choose_threads(timed: list[Timed], *, most_s: float, device: str) -> None:
    """Let each have one thread of torch or all of them, whichever it is faster with."""
    most = torch.get_num_threads()
    for each in timed if most > 1 else []:
        tried = [replace(each, threads=threads, samples=[], firsts=[]) for threads in (1, most)]
        side_by_side(tried, repeats=_TRIED, most_s=most_s, device=device, told=_nothing)
        each.threads = min(tried, key=lambda one: one.median_s).threads


def _nothing() -> None:
    return
