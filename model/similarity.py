"""Representational similarity: how alike two sets of responses to the same stimuli are, whatever their units.

Letters: n stimuli; X (n x d) and Y (n x e) responses, columns centred; K = X X^T, L = Y Y^T; k_i = K_ii, l_i = L_ii.

Linear CKA (Kornblith et al. 2019, "Similarity of neural network representations revisited", section 3):

    CKA = |X^T Y|^2 / (|X^T X| |Y^T Y|), Frobenius                                            (1)

It is 1 for the same up to rotation, shift and one scale, but its null is far above 0 where d and e are not small beside
n. Debiased: each |.|^2 is replaced by n (n - 3) times the unbiased HSIC (Song et al. 2012, "Feature selection via
dependence maximization", theorem 2, Eq. 5), which for centred columns comes to

    |X^T Y|^2 - n / (n - 2) sum_i k_i l_i + (tr K)(tr L) / ((n - 1)(n - 2))                   (2)

so that independent responses give 0 on average; it can be a little below 0.

RSA (Kriegeskorte, Mur and Bandettini 2008): dissimilarities of all pairs of stimuli, 1 - Pearson's r of their
responses over units, or Euclidean; between X's and Y's Spearman's rank correlation                                  (3)

Both say how alike, not what is alike, not which way anything flows, and not whether one explains the other; stimuli
that follow one another are alike in both whatever is represented, so the null shuffles *blocks* (:func:`compare`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError

Array = NDArray[np.float64]
Measure = Literal["cka", "rsa"]
Dissimilarity = Literal["correlation", "euclidean"]
MOST_STIMULI = 4000
"""n: a matrix of all pairs is held several times (128 MB each)."""
MOST_NUMBERS = 100_000_000
"""Of one side: 800 MB."""
LEAST_BLOCKS = 10
"""Fewer can't be shuffled in enough ways."""
_LEAST_STIMULI = 8
_PICTURE = 40


class Similarity(NamedTuple):
    """A similarity and what it is to be held against."""

    value: float
    p: float
    """Share of shuffled ones at least as high, the value itself among them: never 0."""
    null_mean: float
    null_low: float
    null_high: float
    """The middle 95 % of the shuffled ones."""
    low: float
    high: float
    """The middle 95 % of random halves."""
    null: list[float]
    halves: list[float]


@dataclass(frozen=True)
class _Columns:
    """X centred and scaled to |X| = 1, and k."""

    x: Array
    k: Array


@dataclass(frozen=True)
class _Ranks:
    """Ranks of all dissimilarities, n x n, mean 0 and norm 1 off the diagonal, 0 on it."""

    ranks: Array
    distances: Array


def cka(x: Array, y: Array) -> float:
    """Equations (1) and (2): linear, debiased. Raises :class:`ModelError`."""
    return _cka(*(_columns(side) for side in _checked(x, y)))


def cka_biased(x: Array, y: Array) -> float:
    """Equation (1) as it is, to be held against other people's numbers. Raises :class:`ModelError`."""
    one, other = (_columns(side).x for side in _checked(x, y))
    return float(_squared(one, other) / np.sqrt(_squared(one, one) * _squared(other, other)))


def rsa(x: Array, y: Array, dissimilarity: Dissimilarity = "correlation") -> float:
    """Equation (3). Raises :class:`ModelError`."""
    return _rsa(*(_ranked(dissimilarities(side, dissimilarity)) for side in _checked(x, y)))


def compare(
    measure: Measure, x: Array, y: Array, *, dissimilarity: Dissimilarity = "correlation", block: int = 1,
    draws: int = 1000, seed: int = 0, progress: Callable[[int], object] | None = None,
) -> Similarity:  # fmt: skip
    """The similarity, its permutation test and its interval.

    The test shuffles which stimulus of Y belongs to which of X, ``block`` neighbours at a time in their order: single
    ones (block 1) are exchangeable only where stimuli are independent. Where they follow one another in time,
    neighbours are alike on both sides whatever is represented; shuffling single ones destroys that, and p comes out far
    too small. Blocks some times as long as the responses remember keep most of it.

    The interval is of random halves of the blocks, drawn without replacement (the delete-half jackknife, Shao and Wu
    1989): their spread about the whole is that of a bootstrap, which itself can't be used, for a stimulus that is drawn
    twice would be its own nearest neighbour. Raises :class:`ModelError`.
    """
    x, y = _checked(x, y)
    if block < 1 or draws < 1:
        raise ModelError(f"block {block} and draws {draws} must be 1 or more")
    blocks = -(-len(x) // block)
    if blocks < LEAST_BLOCKS:
        raise ModelError(
            f"{len(x)} stimuli are {blocks} blocks of {block}; {LEAST_BLOCKS} are needed: say a shorter block"
        )
    random = np.random.default_rng(seed)
    told = progress or (lambda done: None)
    test: _Cka | _Rsa = _Cka(x, y) if measure == "cka" else _Rsa(x, y, dissimilarity)
    value = test.value()
    null, halves = [], []
    for order in _shuffled(len(x), block, draws, random):
        null.append(test.shuffled(order))
        told(1)
    for kept in _halves(len(x), block, draws, random):
        halves.append(test.part(kept))
        told(1)
    low, high = np.quantile(halves, [0.025, 0.975])
    null_low, null_high = np.quantile(null, [0.025, 0.975])
    at_least = sum(other >= value - 1e-12 for other in null)
    return Similarity(value, (1 + at_least) / (1 + draws), float(np.mean(null)), float(null_low), float(null_high),
                      float(low), float(high), null, halves)  # fmt: skip


class _Cka:
    def __init__(self, x: Array, y: Array) -> None:
        self._sides = x, y
        self._x, self._y = _columns(x), _columns(y)
        self._norm = np.sqrt(_norm(self._x) * _norm(self._y))

    def value(self) -> float:
        return float(_debiased(self._x, self._y) / self._norm)

    def shuffled(self, order: NDArray[np.int64]) -> float:
        return _debiased(self._x, replace(self._y, x=self._y.x[order], k=self._y.k[order])) / float(self._norm)

    def part(self, kept: NDArray[np.int64]) -> float:
        return _cka(*(_columns(side[kept]) for side in self._sides))


class _Rsa:
    def __init__(self, x: Array, y: Array, dissimilarity: Dissimilarity) -> None:
        self._x, self._y = (_ranked(dissimilarities(side, dissimilarity)) for side in (x, y))

    def value(self) -> float:
        return _rsa(self._x, self._y)

    def shuffled(self, order: NDArray[np.int64]) -> float:
        return float(np.vdot(self._x.ranks, self._y.ranks[np.ix_(order, order)]))

    def part(self, kept: NDArray[np.int64]) -> float:
        return _rsa(*(_ranked(side.distances[np.ix_(kept, kept)]) for side in (self._x, self._y)))


def dissimilarities(x: Array, kind: Dissimilarity = "correlation") -> Array:
    """n x n, zero on the diagonal: 1 - r of two stimuli's responses over units, or their distance.

    Raises :class:`ModelError` where a stimulus' responses are all alike, which have no correlation.
    """
    if kind == "euclidean":
        squares = np.square(x).sum(axis=1)
        found = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * (x @ x.T), 0.0))
    else:
        if x.shape[1] < 3:
            raise ModelError(f"{x.shape[1]} units have no correlation over units: say dissimilarity euclidean")
        offset = x - x.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(offset, axis=1, keepdims=True)
        flat = np.flatnonzero(norms[:, 0] <= 1e-12 * np.abs(x).max())
        if len(flat):
            raise ModelError(f"all units answer alike to stimulus {flat[0]} (from 0): leave it out, or say euclidean")
        found = 1.0 - (offset / norms) @ (offset / norms).T
    found = np.maximum(found, 0.0)
    np.fill_diagonal(found, 0.0)
    return np.asarray((found + found.T) / 2.0)


def picture(x: Array, kind: Dissimilarity = "correlation") -> list[list[float]]:
    """Ranks of the dissimilarities (0 least, 1 most) as at most 40 x 40 tiles, each the mean of its pairs."""
    found = dissimilarities(x, kind)
    upper = np.triu_indices(len(found), 1)
    ranks = np.zeros_like(found)
    ranks[upper] = average_ranks(found[upper]) / max(len(upper[0]), 1)
    ranks += ranks.T
    edges = np.linspace(0, len(found), min(_PICTURE, len(found)) + 1).round().astype(int)[:-1]
    counts = np.diff([*edges, len(found)])
    sums = np.add.reduceat(np.add.reduceat(ranks, edges, axis=0), edges, axis=1)
    return [[round(float(value), 3) for value in line] for line in sums / np.outer(counts, counts)]


def average_ranks(values: Array) -> Array:
    """1, 2, ... by size; of equal ones their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[place], dtype=np.float64)


def _checked(x: Array, y: Array) -> tuple[Array, Array]:
    """Both as float64. Raises :class:`ModelError` for what can't be compared."""
    sides = []
    for name, side in (("the first", np.asarray(x)), ("the second", np.asarray(y))):
        if side.ndim != 2 or not side.size or not np.issubdtype(side.dtype, np.number) or np.iscomplexobj(side):
            raise ModelError(
                f"{name} side has shape {side.shape} of {side.dtype}: wanted are stimuli x units, real numbers"
            )
        if side.size > MOST_NUMBERS:
            raise ModelError(
                f"{name} side has {side.size:,} numbers, more than {MOST_NUMBERS:,}: take fewer stimuli or units"
            )
        side = side.astype(np.float64)
        if not np.isfinite(side).all():
            where = int(np.flatnonzero(~np.isfinite(side).all(axis=1))[0])
            raise ModelError(f"{name} side has a number that is not finite, at stimulus {where} (from 0)")
        sides.append(side)
    one, other = sides
    if len(one) != len(other):
        raise ModelError(
            f"{len(one):,} stimuli on the first side, {len(other):,} on the second: they must be the same ones"
        )
    if not _LEAST_STIMULI <= len(one) <= MOST_STIMULI:
        raise ModelError(
            f"{len(one):,} stimuli: from {_LEAST_STIMULI} to {MOST_STIMULI:,} can be compared; take fewer, or more"
        )
    return one, other


def _columns(x: Array) -> _Columns:
    """Raises :class:`ModelError` where all stimuli are answered alike."""
    x = x - x.mean(axis=0)
    largest = float(np.abs(x).max())
    if not largest > 0.0:
        raise ModelError("all stimuli are answered alike: there is nothing to compare")
    x = x / largest
    if x.shape[1] > x.shape[0]:  # K is the same of n columns
        x = np.asarray(np.linalg.qr(x.T, mode="r")).T
    x = x / np.linalg.norm(x)
    return _Columns(x, np.square(x).sum(axis=1))


def _squared(x: Array, y: Array) -> float:
    return float(np.square(x.T @ y).sum())


def _debiased(one: _Columns, other: _Columns) -> float:
    """Equation (2)."""
    n = len(one.x)
    traces = float(one.k.sum() * other.k.sum()) / ((n - 1) * (n - 2))
    return _squared(one.x, other.x) - n / (n - 2) * float(one.k @ other.k) + traces


def _norm(side: _Columns) -> float:
    """Equation (2) of a side with itself. Raises :class:`ModelError` where nothing is left of it."""
    found = _debiased(side, side)
    if not found > 1e-12:
        raise ModelError(
            "one side has no structure beyond chance, too many units for its stimuli: debiased CKA has no value"
        )
    return found


def _cka(one: _Columns, other: _Columns) -> float:
    return float(_debiased(one, other) / np.sqrt(_norm(one) * _norm(other)))


def _ranked(distances: Array) -> _Ranks:
    """Raises :class:`ModelError` where all pairs are equally unlike."""
    upper = np.triu_indices(len(distances), 1)
    ranks = average_ranks(distances[upper])
    ranks -= ranks.mean()
    norm = float(np.linalg.norm(ranks))
    if not norm > 0.0:
        raise ModelError("all pairs of stimuli are equally unlike: there is nothing to compare")
    found = np.zeros_like(distances)
    found[upper] = ranks / (norm * np.sqrt(2.0))
    return _Ranks(found + found.T, distances)


def _rsa(one: _Ranks, other: _Ranks) -> float:
    return float(np.vdot(one.ranks, other.ranks))


def _blocks(n: int, block: int) -> list[NDArray[np.int64]]:
    """Neighbours that stay together; the last may be shorter."""
    return [np.arange(first, min(first + block, n)) for first in range(0, n, block)]


def _shuffled(n: int, block: int, draws: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    parts = _blocks(n, block)
    for _ in range(draws):
        yield np.concatenate([parts[place] for place in random.permutation(len(parts))])


def _halves(n: int, block: int, draws: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    parts = _blocks(n, block)
    for _ in range(draws):
        kept = np.sort(random.permutation(len(parts))[: (len(parts) + 1) // 2])
        yield np.concatenate([parts[place] for place in kept])
