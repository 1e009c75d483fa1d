"""Sequences for learning offline: cut from what was seen, a part of them held out.

A sequence is ``length`` consecutive fixations of one stream. It runs over no mark: where a trial begins or a fixation
was lost, the next sequence begins, and what is too short for one is left over. Which are held out follows from the
seed alone, always whole sequences; so does the order of an epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.action import Look
from model.errors import ModelError

_SPLIT = 0
"""Beside the seed, in the generator of the split; an epoch's order has 1 and the epoch's number there."""


class SeenStream(NamedTuple):
    """What one stream saw, in order: N fixations."""

    name: str
    z: NDArray[np.float32]
    """(N, m)."""
    looks: Sequence[Look | None]
    """N: where the eye was."""
    starts: NDArray[np.bool_]
    """(N,): nothing before it belongs to it: a trial begins, or something was lost."""


class FixationSequence(NamedTuple):
    """One sequence: T fixations, T the same for all of them."""

    stream: str
    first: int
    """The place of its first fixation in the stream."""
    z: NDArray[np.float32]
    """(T, m)."""
    looks: Sequence[Look | None]
    """T."""


class Parts(NamedTuple):
    """What is learned from, and what never is."""

    learned: list[FixationSequence]
    held_out: list[FixationSequence]


def cut(streams: Sequence[SeenStream], length: int) -> list[FixationSequence]:
    """Every whole sequence of ``length`` fixations, in order. Raises :class:`ModelError` where there is none."""
    found: list[FixationSequence] = []
    longest = 0
    for stream in streams:
        edges = [*sorted({0, *np.flatnonzero(stream.starts).tolist()}), len(stream.z)]
        for begin, end in itertools.pairwise(edges):
            longest = max(longest, end - begin)
            for first in range(begin, end - length + 1, length):
                place = slice(first, first + length)
                found.append(FixationSequence(stream.name, first, stream.z[place], stream.looks[place]))
    if not found:
        raise ModelError(
            f"no sequence of {length} fixations: the longest stretch without a break has {longest}; "
            "say a smaller sequence length, or give more recordings"
        )
    return found


def split(sequences: Sequence[FixationSequence], held_out: float, seed: int) -> Parts:
    """``held_out`` of them, from 0 to below 1, drawn by ``seed``: with more than 0 at least one, and never all.

    Raises :class:`ModelError` where there are too few.
    """
    count = len(sequences)
    held = 0 if held_out == 0.0 else min(max(1, round(held_out * count)), count - 1)
    if held_out > 0.0 and held < 1:
        raise ModelError(
            f"{count} sequence is too few to hold one out and learn from another: say a smaller sequence length, "
            "give more recordings, or hold nothing out"
        )
    drawn = set(_generator(seed, _SPLIT).permutation(count)[:held].tolist())
    learned = [sequence for index, sequence in enumerate(sequences) if index not in drawn]
    return Parts(learned, [sequences[index] for index in sorted(drawn)])


def groups(count: int, size: int, seed: int, epoch: int) -> list[list[int]]:
    """The order of ``epoch`` over ``count`` sequences, in groups of ``size``; the last may be smaller.

    Epoch 0, in which nothing is learned, has them in their own order.
    """
    order: list[int] = list(range(count))
    if epoch > 0:
        order = _generator(seed, 1, epoch).permutation(count).tolist()
    return [order[first : first + size] for first in range(0, count, size)]


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.default_rng(list(seeds))


def describe(sequences: Sequence[FixationSequence], streams: Sequence[SeenStream]) -> dict[str, Any]:
    """How much there is and how much is left over, JSON-able."""
    fixations = sum(len(stream.z) for stream in streams)
    used = sum(len(sequence.z) for sequence in sequences)
    return {
        "streams": len(streams), "fixations": fixations, "sequences": len(sequences), "left_over": fixations - used,
    }  # fmt: skip
