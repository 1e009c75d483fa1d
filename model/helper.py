"""A thread beside the learner's, for what takes long and is wanted later.

What is computed on it must not depend on when: one thread, in the order it was asked, and one thread of torch's own
however many the learner's has, so that the same sums come out to the last bit.

It stands back: a fixation that waits is learned first. Where every core is taken it still has a tenth of one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

NICE = 10
"""How far behind the learner's thread it stands, as ``nice`` counts; on Linux, where a thread has a number of its own
there. Elsewhere all threads of a process stand alike."""


def helper(name: str) -> ThreadPoolExecutor:
    """One thread called ``name``, started when it is first asked; it ends with the last reference to it."""
    torch.get_num_threads()  # the number of a thread that was never asked for it follows what another one sets
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_alone)


def _alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()
    stand_back()


def stand_back() -> None:
    """Put the calling thread behind the learner's, for as long as it lasts."""
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a system that lets nobody step back
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + NICE))
