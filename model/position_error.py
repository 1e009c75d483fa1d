"""Error by position in the sequence (Fig. 4 of arXiv 2411.16695): does more context make a better prediction?

For each position 1 to 999, and 1,000 for all later ones: how often, the mean error, the recent mean error (rate
1/100), and the mean error of the untrained twin (model/twin.py), whose curve shows what the stream and the
predictor alone make of the position.

What it can't show on a stream without marked sequences: each position but the last comes once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

LAST = 1000
_RECENT = 1.0 / 100.0
_COUNT, _MEAN, _RECENTLY, _TWINS, _TWIN = range(5)


class PositionErrors:
    """One stream's, or all streams'."""

    def __init__(self) -> None:
        self._table = np.zeros((LAST + 1, 5))

    def add(self, position: int, error: float, twin: float | None) -> None:
        """Take in the ``error`` at ``position`` (0 has none), and the untrained twin's."""
        row = min(position, LAST)
        count, mean, recently, twins, twin_mean = self._table[row].tolist()
        count += 1.0
        mean += (error - mean) / count
        recently += (error - recently) * max(1.0 / count, _RECENT)
        if twin is not None:
            twins += 1.0
            twin_mean += (twin - twin_mean) / twins
        self._table[row] = count, mean, recently, twins, twin_mean

    def told(self) -> list[dict[str, Any]]:
        """{position, count, mean, recent, untrained} of each position there was; JSON-able."""
        return [
            {
                "position": position,
                "count": int(row[_COUNT]),
                "mean": row[_MEAN],
                "recent": row[_RECENTLY],
                "untrained": row[_TWIN] if row[_TWINS] else None,
            }
            for position, row in enumerate(self._table.tolist())
            if row[_COUNT]
        ]

    def pack(self) -> Tensor:
        """A copy of everything it holds."""
        return torch.from_numpy(self._table.copy())

    def unpack(self, table: Tensor) -> None:
        """Go on from what :meth:`pack` gave. Raises ValueError where that is of another shape."""
        if table.shape != self._table.shape:
            raise ValueError(f"a table of {tuple(table.shape)} does not fit {tuple(self._table.shape)}")
        self._table[:] = table.numpy()
