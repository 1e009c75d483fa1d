from __future__ import annotations

import os
import sys
import threading

import pytest
import torch

from model.helper import NICE, helper


def _there() -> tuple[int, int]:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), torch.get_num_threads()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the threads of a process stand alike")
def test_it_stands_behind_the_thread_that_asked_and_computes_alone() -> None:
    before = _there()
    with helper("behind") as beside:
        assert beside.submit(_there).result() == (min(19, before[0] + NICE), 1)
    assert _there() == before, "who asked stands where it stood"
