"""The loss curve as numbers: smoothed, compared with the best trivial predictor, and thinned for drawing.

All arrays run over the fixations of one stream that have an error, ascending by seq. Letters: n such
fixations, k the trivial predictors (:data:`service.schema.TRIVIAL_ERRORS`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FEWEST_SHARE = 0.5
"""A trivial predictor that has an error for fewer of the fixations than this share is no candidate."""

ROWS_AT_ONCE = 1 << 14
"""Of the trivial predictors' errors: what a processor's cache holds."""


@dataclass(frozen=True)
class Errors:
    """What a curve is made of. ``trivial`` is (n, k), NaN where a predictor had nothing to say; ``time_s`` unix s."""

    seq: Integers
    time_s: Floats
    position: Integers
    error: Floats
    trivial: Floats

    def __len__(self) -> int:
        return len(self.seq)

    def part(self, first: int, last: int) -> Errors:
        """The fixations with index ``first`` up to, without, ``last``; shares memory."""
        cut = slice(first, last)
        return Errors(self.seq[cut], self.time_s[cut], self.position[cut], self.error[cut], self.trivial[cut])


def running_mean(values: Floats, window: int) -> Floats:
    """The mean of each value and up to ``window - 1`` before it; NaN counts for nothing, and alone gives NaN."""
    return mean_at(values, np.arange(len(values)), window)


def mean_at(values: Floats, at: Integers, window: int) -> Floats:
    """:func:`running_mean` at the indices ``at`` alone, where only those are shown; the same bits."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    first = np.maximum(0, at + 1 - window)
    number = counts[at + 1] - counts[first]
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, (sums[at + 1] - sums[first]) / np.maximum(number, 1), np.nan)


def best_trivial(errors: Errors) -> int | None:
    """The trivial predictor (column) with the least error; None where there is no candidate.

    Each is compared with the learner over the fixations it has an error for, so that one that is silent on
    hard fixations gains nothing by it.
    """
    if len(errors) == 0:
        return None
    counts, sums = np.zeros(errors.trivial.shape[1]), np.zeros(errors.trivial.shape[1])
    for first in range(0, len(errors), ROWS_AT_ONCE):
        trivial, error = (values[first : first + ROWS_AT_ONCE] for values in (errors.trivial, errors.error))
        known = np.isfinite(trivial)
        counts += known.sum(axis=0)
        sums += np.where(known, trivial - error[:, None], 0.0).sum(axis=0)
    excess = sums / np.maximum(counts, 1)
    candidates = counts >= max(1.0, FEWEST_SHARE * len(errors))
    if not candidates.any():
        return None
    return int(np.argmin(np.where(candidates, excess, np.inf)))


def thin(values: Floats, points: int) -> Integers:
    """Indices, ascending, of at most ``points`` values (at least 2): the first minimum and maximum of each bin.

    The bins are ``points // 2`` runs of equal length; where all values fit, all are kept.
    """
    if len(values) <= points:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), points // 2 + 1).astype(np.int64)
    kept: set[int] = set()
    for first, last in itertools.pairwise(edges):
        cut = values[first:last]
        kept.update((int(first + np.argmin(cut)), int(first + np.argmax(cut))))
    return np.array(sorted(kept), dtype=np.int64)


def by_position(errors: Errors, positions: int) -> list[tuple[int, float, int]]:
    """(position, mean error, count) of the first ``positions`` positions of a sequence that have any."""
    chosen = (errors.position >= 0) & (errors.position < positions)
    at = errors.position[chosen]
    if len(at) == 0:
        return []
    counts = np.bincount(at)
    sums = np.bincount(at, weights=errors.error[chosen])
    return [(int(i), float(sums[i] / counts[i]), int(counts[i])) for i in np.flatnonzero(counts)]
