from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.nursery import Nursery
from tests.faults.story import nursery_of


@pytest.fixture(scope="session")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nursery, Path]]:
    """A nursery for the tests of networks and clients, and a data directory in which nothing was learned."""
    with nursery_of(tmp_path_factory.mktemp("connected")) as both:
        yield both
