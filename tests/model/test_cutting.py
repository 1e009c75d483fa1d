from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ModelError
from model.sequences import FixationSequence, SeenStream, cut, groups, split


def numbered(fixations: int, *starts: int, name: str = "anna") -> SeenStream:
    """A stream whose features are the fixations' numbers."""
    marks = np.zeros(fixations, bool)
    marks[list(starts)] = True
    return SeenStream(name, np.arange(fixations, dtype=np.float32)[:, None], [None] * fixations, marks)


def places(sequences: list[FixationSequence]) -> list[tuple[str, list[int]]]:
    return [(one.stream, one.z[:, 0].astype(int).tolist()) for one in sequences]


def test_sequences_run_over_no_mark_and_what_is_too_short_is_left_over() -> None:
    found = cut([numbered(14, 5, 7), numbered(4, 0, name="ben")], 3)
    assert places(found) == [
        ("anna", [0, 1, 2]),
        ("anna", [7, 8, 9]),
        ("anna", [10, 11, 12]),
        ("ben", [0, 1, 2]),
    ]
    assert [one.first for one in found] == [0, 7, 10, 0]
    assert all(len(one.looks) == 3 for one in found)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.lists(st.integers(0, 39))), min_size=1, max_size=4),
    st.integers(2, 12),
)
def test_every_fixation_is_in_one_sequence_at_most(shapes: list[tuple[int, list[int]]], length: int) -> None:
    streams = [
        numbered(size, *[start for start in starts if start < size], name=str(index))
        for index, (size, starts) in enumerate(shapes)
    ]
    try:
        found = cut(streams, length)
    except ModelError:
        return
    for stream in streams:
        used = [number for name, numbers in places(found) if name == stream.name for number in numbers]
        assert len(used) == len(set(used))
        for name, numbers in places(found):
            if name == stream.name:
                assert numbers == list(range(numbers[0], numbers[0] + length))
                assert not stream.starts[numbers[1:]].any()


def test_too_short_says_how_long_the_longest_is() -> None:
    with pytest.raises(ModelError, match="no sequence of 100 fixations: the longest stretch without a break has 30"):
        cut([numbered(50, 30)], 100)


def test_the_held_out_part_follows_from_the_seed_and_is_never_learned() -> None:
    every = cut([numbered(60)], 3)
    learned, held = split(every, 0.2, seed=7)
    assert (len(learned), len(held)) == (16, 4)
    assert sorted(one.first for one in (*learned, *held)) == [one.first for one in every]
    assert [one.first for one in split(every, 0.2, seed=7).held_out] == [one.first for one in held]
    assert [one.first for one in split(every, 0.2, seed=8).held_out] != [one.first for one in held]
    assert split(every, 0.0, seed=7).held_out == []
    assert len(split(every, 0.001, seed=7).held_out) == 1
    assert len(split(every, 0.999, seed=7).learned) == 1
    with pytest.raises(ModelError, match="1 sequence is too few to hold one out"):
        split(every[:1], 0.2, seed=0)


def test_an_epoch_has_every_sequence_once_in_an_order_of_its_own() -> None:
    orders = [groups(10, 4, seed=3, epoch=epoch) for epoch in range(4)]
    assert orders[0] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(sorted(index for group in order for index in group) == list(range(10)) for order in orders)
    assert len({str(order) for order in orders}) == 4
    assert groups(10, 4, seed=3, epoch=2) == orders[2]
    assert groups(10, 4, seed=4, epoch=2) != orders[2]
