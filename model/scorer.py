"""Every readout of evidence's table and the ceiling, together: a block's scores, then what is learned from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.ceiling import Ceiling
from model.readout import Readouts

COLUMNS = ("mean", "base", "circuit", "twin", "prediction", "untrained", "now", "embedding", "ceiling")
"""Errors of a row: of the running mean, then of each readout."""


class Block(NamedTuple):
    """Rows of the table in order, float32: features, what came less the running mean (m), the last deviations (8 m)."""

    rows: Tensor
    targets: Tensor
    lags: Tensor

    def first(self, held: int) -> Block:
        """Copies of the first ``held`` rows."""
        return Block(*(table[:held].clone() for table in self))


class Taken(NamedTuple):
    """What came of a whole block."""

    errors: Tensor
    """rows x :data:`COLUMNS`."""
    after: Scorer
    """Scores as the readouts do from now on."""


class Scorer:
    """Belongs to one thread at a time; a :meth:`frozen` one to any."""

    def __init__(self, readouts: Readouts, ceiling: Ceiling) -> None:
        self._readouts = readouts
        self._ceiling = ceiling

    @torch.no_grad()
    def scores(self, block: Block) -> Tensor:
        """The errors of each row as the readouts are now: rows x :data:`COLUMNS`. Changes nothing."""
        errors = self._readouts.scores(block.rows, block.targets)
        return _table(block, errors, self._ceiling.scores(block.lags, block.targets))

    @torch.no_grad()
    def take(self, block: Block) -> Taken:
        """:meth:`scores` of one whole block, which is then fitted: up to half a second."""
        errors = self._readouts.take(block.rows, block.targets)
        ceiling = self._ceiling.take(block.lags, block.targets)
        return Taken(_table(block, errors, ceiling), self.frozen())

    def frozen(self) -> Scorer:
        """One that scores as this one does now, whatever becomes of it; it can't take."""
        return Scorer(self._readouts.frozen(), self._ceiling.frozen())

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of everything it holds, and the rest, JSON-able."""
        readouts, told = self._readouts.pack()
        ceiling, told_ceiling = self._ceiling.pack()
        tensors = {f"readouts/{name}": tensor for name, tensor in readouts.items()}
        tensors |= {f"ceiling/{name}": tensor for name, tensor in ceiling.items()}
        return tensors, {"readouts": told, "ceiling": told_ceiling}

    def unpack(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError or RuntimeError where it does not fit."""
        self._readouts.unpack(_under("readouts/", tensors), meta["readouts"])
        self._ceiling.unpack(_under("ceiling/", tensors), meta["ceiling"])


def _table(block: Block, errors: dict[str, Tensor], ceiling: Tensor) -> Tensor:
    columns = {**errors, "mean": block.targets.square().mean(dim=1), "ceiling": ceiling}
    return torch.stack([columns[name] for name in COLUMNS], dim=1)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
