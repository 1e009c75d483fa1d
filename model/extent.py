"""How far states and sensitivities went: what a bounded circuit promises, and what running away looks like.

It can't show why: a large state may be a large input.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.ring import Ring

_WINDOW = 1000


class Extent(NamedTuple):
    """None where nothing was seen."""

    largest: float | None
    """The largest number of a state over the last 1,000 fixations ..."""
    largest_ever: float | None
    """... and ever."""
    rms: float | None
    """Root mean square over the last 1,000 fixations."""
    cut_units: int
    """Units whose sensitivities were cut, ever."""


def row(state: Tensor) -> tuple[float, float]:
    """The largest number of ``state`` (K x n) and its mean square."""
    flat = state.flatten().to("cpu", torch.float32)
    return float(flat.abs().max()), float(flat @ flat) / flat.numel()


class Extents:
    """One stream's, or all streams'."""

    def __init__(self) -> None:
        self._rows = Ring(_WINDOW, 2)
        self._ever = 0.0
        self._cut = 0

    def add(self, row: tuple[float, float], cut: int) -> None:
        """Take in the :func:`row` of a state, and how many units were cut at its step."""
        self._rows.add(row)
        self._ever = max(self._ever, row[0])
        self._cut += cut

    def measure(self) -> Extent:
        """Of what was taken in."""
        if not self._rows.count:
            return Extent(None, None, None, self._cut)
        rows = self._rows.rows().to(torch.float64)
        return Extent(float(rows[:, 0].max()), self._ever, float(rows[:, 1].mean().sqrt()), self._cut)

    def pack(self) -> tuple[Tensor, dict[str, Any]]:
        """A copy of everything it holds, and the rest, JSON-able."""
        rows, count = self._rows.pack()
        return rows, {"count": count, "ever": self._ever, "cut": self._cut}

    def unpack(self, rows: Tensor, meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError or ValueError where it does not fit."""
        self._rows.unpack(rows, int(meta["count"]))
        self._ever, self._cut = float(meta["ever"]), int(meta["cut"])
