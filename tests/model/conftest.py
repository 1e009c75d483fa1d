from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.model import retinas


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """The learner's operations are small: a second thread waits more than it works."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> retinas.SmallRetina:
    """A random retina of 16 features, calibrated on 320 synthetic patches."""
    return retinas.small_retina()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> retinas.TrainedFiles:
    """A backbone with batch-norm statistics, as a SimSiam checkpoint and as a file of ours."""
    return retinas.trained_files(tmp_path_factory.mktemp("weights"))
