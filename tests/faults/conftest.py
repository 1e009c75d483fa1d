from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import judge
from tests.faults.nursery import Nursery
from tests.faults.story import nursery_of, undisturbed
from tests.faults.whole import ORDER, Whole


@pytest.fixture(scope="session")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nursery, Path]]:
    """A nursery for the tests of networks and clients, and a data directory in which nothing was learned."""
    with nursery_of(tmp_path_factory.mktemp("connected")) as both:
        yield both


@pytest.fixture(scope="session")
def whole(connected: tuple[Nursery, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What a worker that is never disturbed comes to, and what others begin with."""
    nursery, made = connected
    fixations = [(name, number, 0.25 * number) for name, number in ORDER]
    plain = undisturbed(nursery, made, tmp_path_factory.mktemp("whole") / "plain", fixations)
    return Whole(nursery, made, judge.read(plain).records, judge.newest(plain)[1])
