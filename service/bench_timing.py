"""Times of several things done in turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LEAST_ROUNDS = 5


def interleaved(things: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each of ``things``, by turns for about ``seconds`` (5 rounds at least), after one untimed round.

    Each round begins with another one, so that none always comes after the same neighbour.
    """
    names = list(things)
    for name in names:
        things[name]()
    took: dict[str, list[float]] = {name: [] for name in names}
    ends_s = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < ends_s:
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            begun_s = time.perf_counter()
            things[name]()
            took[name].append(1000.0 * (time.perf_counter() - begun_s))
        rounds += 1
    return took


def medians(took: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(each) for name, each in took.items()}


def ratios(took: Mapping[str, list[float]], name: str, over: str) -> Iterator[float]:
    """Of each round how many times as long ``name`` took as ``over``."""
    return (one / other for one, other in zip(took[name], took[over], strict=True))
