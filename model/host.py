"""Between the host and a learner's device: numbers go there without waiting, and come back together.

A graphics card works off what it was asked for while the host asks for more, and each number read back waits until
it has caught up. So a step reads back twice: what decides whether it may be learned from, and at its end what is
told of it. What goes there lies in pinned memory, from which it is copied while the host goes on. On the CPU all is
in place already, nothing is copied, and nothing waits.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

Number = float | Tensor
"""One number: on a device where reading it would mean to wait."""


def upload(numbers: Tensor, like: Tensor) -> Tensor:
    """``numbers`` of the host in the dtype of ``like``, on its device."""
    there = numbers.to(like.dtype)
    return there if not like.is_cuda else _pinned(there).to(like.device, non_blocking=True)


def number(of: Tensor) -> float:
    """The single number in ``of``, waited for."""
    return float(of) if not of.is_cuda else _fetched(of.reshape(1))[0]


def unwaited(of: Tensor) -> Number:
    """The single number in ``of`` where nothing has to be waited for, ``of`` itself elsewhere."""
    return float(of) if not of.is_cuda else of


class Later:
    """Numbers of a step that are read together, once all of them were asked for."""

    def __init__(self) -> None:
        self._found: list[Number | list[float]] = []

    def ask(self, numbers: Number) -> int:
        """Have ``numbers`` read with the others; the place by which they are told. They must not change until then."""
        self._found.append(numbers)
        return len(self._found) - 1

    def read(self) -> None:
        """Wait for all of them."""
        away = {at: found for at, found in enumerate(self._found) if isinstance(found, Tensor) and found.is_cuda}
        if away:
            told = iter(_fetched(torch.cat([numbers.reshape(-1).to(torch.float64) for numbers in away.values()])))
            for at, numbers in away.items():
                self._found[at] = list(itertools.islice(told, numbers.numel()))

    def one(self, place: int) -> float:
        """The single number at ``place``."""
        found = self._found[place]
        return found[0] if isinstance(found, list) else float(found)

    def all(self, place: int) -> list[float]:
        """The numbers at ``place``, which were a vector."""
        found = self._found[place]
        return found if isinstance(found, list) else torch.as_tensor(found).tolist()

    def array(self, place: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The same as a new array."""
        found = self._found[place]
        if isinstance(found, Tensor):
            return found.to(torch.float32, copy=True).numpy()
        return np.array(found, np.float32)


def _pinned(numbers: Tensor) -> Tensor:
    return numbers.pin_memory()


def _fetched(numbers: Tensor) -> list[float]:
    """From a device, by way of pinned memory: the one wait of a read."""
    here = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    here.copy_(numbers, non_blocking=True)
    torch.cuda.current_stream(numbers.device).synchronize()
    found: list[float] = here.tolist()
    return found
