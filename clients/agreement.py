"""How well the events of a detector agree with an expert's.

- F1 by overlap: an expert's event is found where an event overlaps it, each taken once; 2 matched / (expert + found).
  The stricter one counts a match only where intersection over union is above one half.
- Cohen's kappa by sample: in an event or not, beyond chance.
- The error of the onset: how far apart the beginnings of two matched events are, in ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Events = list[tuple[int, int]]
"""First and last time of each, in ns."""
_MS = 1_000_000


@dataclass
class Agreement:
    """Counts, summed over recordings. ``table``: samples by (in an expert's event, in one found)."""

    expert: int = 0
    found: int = 0
    matched: int = 0
    matched_half: int = 0
    """Matched with an intersection over union above one half."""
    table: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 2), np.int64))
    onset_errors_ms: list[float] = field(default_factory=list)

    def add(self, expert: Events, found: Events, times_ns: NDArray[np.int64]) -> None:
        """Count one recording, whose samples are at ``times_ns``."""
        self.expert += len(expert)
        self.found += len(found)
        free = dict(enumerate(found))
        for begin, end in expert:
            overlaps = {at: min(end, e) - max(begin, b) for at, (b, e) in free.items()}
            best = max(overlaps, key=lambda at: overlaps[at], default=None)
            if best is not None and overlaps[best] >= 0:
                b, e = free.pop(best)
                self.matched += 1
                self.matched_half += overlaps[best] > 0.5 * (max(end, e) - min(begin, b))
                self.onset_errors_ms.append(abs(b - begin) / _MS)
        here, there = _mask(expert, times_ns), _mask(found, times_ns)
        np.add.at(self.table, (here.astype(int), there.astype(int)), 1)

    @property
    def f1(self) -> float:
        """By any overlap."""
        return 2 * self.matched / (self.expert + self.found)

    @property
    def f1_half(self) -> float:
        """By an intersection over union above one half."""
        return 2 * self.matched_half / (self.expert + self.found)

    @property
    def kappa(self) -> float:
        """Cohen's, by sample."""
        total = self.table.sum()
        agreed = np.trace(self.table) / total
        chance = float((self.table.sum(0) * self.table.sum(1)).sum()) / float(total) ** 2
        return float((agreed - chance) / (1 - chance))

    @property
    def onset_error_ms(self) -> float:
        """The mean."""
        return float(np.mean(self.onset_errors_ms))


def together(parts: Iterable[Agreement]) -> Agreement:
    """The sum."""
    total = Agreement()
    for part in parts:
        total.expert += part.expert
        total.found += part.found
        total.matched += part.matched
        total.matched_half += part.matched_half
        total.table = total.table + part.table
        total.onset_errors_ms = total.onset_errors_ms + part.onset_errors_ms
    return total


def expert_events(times_ns: NDArray[np.int64], labels: NDArray[np.int64], which: tuple[int, ...] = (1, 4)) -> Events:
    """Stretches of samples with these labels, fixations and pursuits by default."""
    edges = np.flatnonzero(np.diff(np.r_[0, np.isin(labels, which).astype(int), 0]))
    return [(int(times_ns[a]), int(times_ns[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _mask(events: Events, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(times_ns), np.bool_)
    for begin, end in events:
        inside |= (times_ns >= begin) & (times_ns <= end)
    return inside
