"""A thread beside the learner's, for what takes long and is wanted later.

What is computed on it must not depend on when: one thread, in the order it was asked, and one thread of torch's own
however many the learner's has, so that the same sums come out to the last bit.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def helper(name: str) -> ThreadPoolExecutor:
    """One thread called ``name``, started when it is first asked; it ends with the last reference to it."""
    torch.get_num_threads()  # the number of a thread that was never asked for it follows what another one sets
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=_alone)


def _alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()
