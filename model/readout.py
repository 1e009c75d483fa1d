"""Linear readouts of one table of features, each scored before it is fitted, at a cost that does not grow.

    G <- lambda^b G + F^T F,  C <- lambda^b C + F^T T      for each block of b = 128 rows               (1)
    W = (G + ridge diag(scale))^-1 C                       now and then, of a readout's own columns     (2)

F are the rows' features, T their targets, lambda = 0.9999, ``scale`` the mean square of the kind of feature a column
belongs to. The ridge is in rows: as many fixations' worth of doubt; of four (the last: infinite) the one with the
smallest error of late is used. A block's rows are scored with the weights found before the block began, then taken in:
so every score is of a readout fitted on earlier fixations only. (Recursive least squares would give a fresh readout at
every row, at a hundred times the cost: 1,200 features squared.)

An extension is a readout with further columns x beside those b of its base. Only x's weights have the extension's
ridge, the base's have the base's: so with much doubt it is the base, and not worse for having more columns.

    [G_bb + ridge_b, G_bx; G_xb, G_xx + ridge_x] [W_b; W_x] = [C_b; C_x]                                 (3)

by the Schur complement of the first block (then each further ridge is cheap).

float32 sums, float64 solutions; of G the lower triangle alone is ever read.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK = 128
RIDGES = (100.0, 1000.0, 10_000.0, math.inf)
"""In rows: how many fixations' worth of doubt; with the last the columns say nothing at all."""
FORGETTING = 0.9999
SCORE_RATE = 1.0 / 1000.0
"""Of the recent error that chooses the ridge."""
_SOLVED_EARLY = (2, 4, 8, 12, 16)
"""Blocks after which everything is solved; later each group in its turn."""
_ROUND = 8
"""Blocks from one turn to the next."""
_STRIPE = 64
_LEAST_SCALE = 1e-8
_MOST_DOUBT = 1e9


def is_early(blocks: int) -> bool:
    """Whether everything is solved after so many blocks."""
    return blocks in _SOLVED_EARLY


def is_turn(blocks: int, turn: int) -> bool:
    """Whether it is the turn of group ``turn`` after so many blocks: once every 1,024 rows, not all at once."""
    return blocks > _SOLVED_EARLY[-1] and blocks % _ROUND == (3 * turn) % _ROUND


class Kind(NamedTuple):
    """Neighbouring columns of one kind."""

    name: str
    size: int
    scale: str | None = None
    """The kind whose mean square its ridge is measured in; its own without one."""


class Layout:
    """Which columns are of which kind."""

    def __init__(self, kinds: list[Kind]) -> None:
        self.kinds = kinds
        self.places: dict[str, slice] = {}
        end = 0
        for kind in kinds:
            self.places[kind.name] = slice(end, end := end + kind.size)
        self.size = end

    def columns(self, names: tuple[str, ...]) -> Tensor:
        """The columns of these kinds, ascending."""
        found = [torch.arange(self.places[name].start, self.places[name].stop) for name in names]
        return torch.cat(found).sort().values

    def scales(self, squares: Tensor) -> Tensor:
        """The mean square a column's ridge is measured in, from every column's mean square."""
        found = torch.empty_like(squares)
        for kind in self.kinds:
            of = self.places[kind.scale or kind.name]
            found[self.places[kind.name]] = squares[of].mean() if of.stop > of.start else 0.0
        return found.clamp_min_(_LEAST_SCALE)


class Readout:
    """One readout: its columns, its weights for each ridge, and which ridge is used."""

    def __init__(self, columns: Tensor, targets: int) -> None:
        self.columns = columns
        self.weights = torch.zeros(len(RIDGES), columns.numel(), targets)
        """Replaced, never changed: what scores with them may go on while others are found."""
        self.recent = torch.zeros(len(RIDGES), dtype=torch.float64)
        """The recent error with each ridge."""

    @property
    def used(self) -> int:
        """The ridge that has had the smallest error of late."""
        return int(self.recent.argmin())

    def errors(self, rows: Tensor, targets: Tensor) -> Tensor:
        """The mean square error of each row (b x features) with each ridge: ridges x b."""
        inputs = rows[:, self.columns]
        return torch.stack([(torch.mm(inputs, w) - targets).square_().mean(dim=1) for w in self.weights])

    def remember(self, errors: Tensor) -> None:
        """Take in what :meth:`errors` gave."""
        rate = 1.0 - (1.0 - SCORE_RATE) ** errors.shape[1]
        self.recent.lerp_(errors.to(torch.float64).mean(dim=1), rate)

    def frozen(self) -> Readout:
        """One that scores as this one does now, whatever becomes of it; can't be solved."""
        found = copy.copy(self)
        found.recent = self.recent.clone()
        return found

    def solve(self, gram: Tensor, cross: Tensor, scales: Tensor) -> None:
        """Equation (2). A system that can't be solved keeps the weights it had."""
        square = gram[self.columns][:, self.columns].to(torch.float64)
        right = cross[self.columns].to(torch.float64)
        diagonal = square.diagonal()
        own, weights = diagonal.clone(), self.weights.clone()
        for index, ridge in enumerate(RIDGES[:-1]):
            diagonal.copy_(own + ridge * scales[self.columns])
            factor, failed = torch.linalg.cholesky_ex(square)
            if not int(failed):
                weights[index] = torch.cholesky_solve(right, factor)
        self.weights = weights


class Extension(Readout):
    """``base`` with further ``columns``, all of them behind those of the base."""

    def __init__(self, base: Readout, columns: Tensor, targets: int) -> None:
        super().__init__(torch.cat([base.columns, columns]), targets)
        self._base = base
        self._further = columns

    def solve(self, gram: Tensor, cross: Tensor, scales: Tensor) -> None:
        """Equation (3). A system that can't be solved keeps the weights it had."""
        b, x = self._base.columns, self._further
        first = gram[b][:, b].to(torch.float64)
        first.diagonal().add_(min(RIDGES[self._base.used], _MOST_DOUBT) * scales[b])
        factor, failed = torch.linalg.cholesky_ex(first)
        if int(failed):
            return
        right = torch.cat([gram[x][:, b].T, cross[b]], dim=1).to(torch.float64)
        right = torch.linalg.solve_triangular(factor, right, upper=False)
        mixed, right_b = right[:, : x.numel()], right[:, x.numel() :]
        schur = gram[x][:, x].to(torch.float64).addmm_(mixed.T, mixed, alpha=-1.0)
        right_x = cross[x].to(torch.float64).addmm_(mixed.T, right_b, alpha=-1.0)
        diagonal = schur.diagonal()
        own, weights = diagonal.clone(), self.weights.clone()
        alone = torch.linalg.solve_triangular(factor.T, right_b, upper=True)
        weights[-1] = torch.cat([alone, torch.zeros_like(right_x)])
        for index, ridge in enumerate(RIDGES[:-1]):
            diagonal.copy_(own + ridge * scales[x])
            second, failed = torch.linalg.cholesky_ex(schur)
            if int(failed):
                continue
            w_x = torch.cholesky_solve(right_x, second)
            w_b = torch.linalg.solve_triangular(factor.T, right_b - mixed @ w_x, upper=True)
            weights[index] = torch.cat([w_b, w_x])
        self.weights = weights


class Readouts:
    """All readouts of one table, in groups that are solved together."""

    def __init__(self, layout: Layout, groups: list[dict[str, Readout]], targets: int) -> None:
        self._layout = layout
        self._groups = groups
        self.all = {name: readout for group in self._groups for name, readout in group.items()}
        self._gram = torch.zeros(layout.size, layout.size)
        self._cross = torch.zeros(layout.size, targets)
        self._weight = 0.0
        self._blocks = 0

    def frozen(self) -> Readouts:
        """One that scores as this one does now, whatever becomes of it; it can't take."""
        found = copy.copy(self)
        found.all = {name: readout.frozen() for name, readout in self.all.items()}
        return found

    def scores(self, rows: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Each readout's mean square error of each of ``rows``, as it is now; changes nothing."""
        return {name: readout.errors(rows, targets)[readout.used] for name, readout in self.all.items()}

    def take(self, rows: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """:meth:`scores` of one whole block, which is then fitted."""
        found: dict[str, Tensor] = {}
        for name, readout in self.all.items():
            errors = readout.errors(rows, targets)
            found[name] = errors[readout.used]
            readout.remember(errors)
        keep = FORGETTING ** rows.shape[0]
        self._gram.addmm_(rows.T, rows, beta=keep)
        self._cross.addmm_(rows.T, targets, beta=keep)
        self._weight = keep * self._weight + rows.shape[0]
        self._blocks += 1
        self._solve()
        return found

    def _solve(self) -> None:
        blocks = self._blocks
        due = [group for turn, group in enumerate(self._groups) if is_early(blocks) or is_turn(blocks, turn)]
        if not due:
            return
        squares = self._gram.diagonal().to(torch.float64) / self._weight
        scales = self._layout.scales(squares)
        for group in due:
            for readout in group.values():
                readout.solve(self._gram, self._cross, scales)

    def _stripes(self) -> list[Tensor]:
        """Views of G, 64 rows each as far as the diagonal: the lower triangle, and little more."""
        return [self._gram[at : at + _STRIPE, : at + _STRIPE] for at in range(0, self._layout.size, _STRIPE)]

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of everything it holds, and the rest, JSON-able."""
        tensors = {"gram": torch.cat([stripe.reshape(-1) for stripe in self._stripes()]), "cross": self._cross.clone()}
        for name, readout in self.all.items():
            tensors |= {f"{name}/weights": readout.weights, f"{name}/recent": readout.recent.clone()}
        return tensors, {"weight": self._weight, "blocks": self._blocks}

    def unpack(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError or RuntimeError where it does not fit."""
        stripes = self._stripes()
        parts = torch.split(tensors["gram"], [stripe.numel() for stripe in stripes])
        for stripe, part in zip(stripes, parts, strict=True):
            stripe.copy_(part.view_as(stripe))
        self._cross.copy_(tensors["cross"])
        for name, readout in self.all.items():
            readout.weights = torch.zeros_like(readout.weights).copy_(tensors[f"{name}/weights"])
            readout.recent.copy_(tensors[f"{name}/recent"])
        self._weight, self._blocks = float(meta["weight"]), int(meta["blocks"])
