"""The last rows of an endless table, in memory that is taken once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

SCORED = 5000
"""Rows a measure is taken over ..."""
WARM = 500
"""... and how many at the start are left out while there are fewer."""


class Ring:
    """The last ``capacity`` rows of ``width`` numbers each, on the CPU."""

    def __init__(self, capacity: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        self.capacity = capacity
        self.count = 0
        """Rows ever added."""
        self._rows = torch.zeros(capacity, width, dtype=dtype).numpy()

    @property
    def held(self) -> int:
        """Rows there are now."""
        return min(self.count, self.capacity)

    def add(self, row: Tensor | Sequence[float]) -> None:
        """Take in one row, on the CPU; the oldest goes where there are ``capacity``."""
        self._rows[self.count % self.capacity] = row.numpy() if isinstance(row, Tensor) else row
        self.count += 1

    def rows(self, most: int | None = None) -> Tensor:
        """A copy of the last rows, at most ``most`` of them, oldest first."""
        wanted = self.held if most is None else max(0, min(self.held, most))
        first = (self.count - wanted) % self.capacity
        parts = (self._rows[first : first + wanted], self._rows[: max(0, first + wanted - self.capacity)])
        return torch.from_numpy(np.concatenate(parts))

    def scored(self) -> Tensor:
        """The rows a measure is taken over: the last 5,000, all but the first 500 while there are fewer."""
        return self.rows(min(SCORED, self.count - WARM))

    def pack(self) -> tuple[Tensor, int]:
        """What it holds, oldest first, and how many it ever took in."""
        return self.rows(), self.count

    def unpack(self, rows: Tensor, count: int) -> None:
        """Go on from what :meth:`pack` gave. Raises ValueError where that is of another shape."""
        if rows.shape != (min(count, self.capacity), self._rows.shape[1]):
            raise ValueError(f"{tuple(rows.shape)} rows of {count} don't fit {tuple(self._rows.shape)}")
        self.count = count
        self._rows[np.arange(count - rows.shape[0], count) % self.capacity] = rows.numpy()


def pack_rings(rings: dict[str, Ring]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and the counts by the same names, JSON-able."""
    packed = {name: ring.pack() for name, ring in rings.items()}
    return {name: rows for name, (rows, _) in packed.items()}, {name: count for name, (_, count) in packed.items()}


def unpack_rings(rings: dict[str, Ring], tensors: dict[str, Tensor], counts: dict[str, Any]) -> None:
    """Go on from what :func:`pack_rings` gave. Raises KeyError or ValueError where it does not fit."""
    for name, ring in rings.items():
        ring.unpack(tensors[name], int(counts[name]))
