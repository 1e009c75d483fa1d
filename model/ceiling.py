"""What there is to find in the last eight fixations: the stream's own ceiling, by regression, as it goes.

    d_t = z_t - zbar_t,  C_k <- lambda^b C_k + sum d_{t+1} d_{t+1-k}^T, k = 0..8          (1)
    d_{t+1} ~ W_1 d_t + ... + W_o d_{t+1-o},  o = 1, 2, 4, 8: the Yule-Walker equations    (2)

The blocks of (2) are C_{j-i}, so eight fixations' worth of regression takes nine matrices and not sixty-four. What
lies before a sequence's start counts as nothing. Of no regression, and four orders with three ridges, the one with
the smallest error of late is used; every score is of weights found on earlier fixations, as in model/readout.py.

It can't show what a nonlinear function, or more than eight fixations, would find; it is a ceiling of regressions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from model.readout import FORGETTING, SCORE_RATE, is_early, is_turn

LAGS = 8
_ORDERS = (1, 2, 4, 8)
_RIDGES = (100.0, 1000.0, 10_000.0)
_TURN = 2


class Ceiling:
    """The regressions on the last eight deviations of m numbers each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._covariances = torch.zeros(LAGS + 1, size, size)
        self._weights = [torch.zeros(len(_RIDGES), order * size, size) for order in _ORDERS]
        """Replaced, never changed: what scores with them may go on while others are found."""
        self._recent = torch.zeros(1 + len(_ORDERS) * len(_RIDGES), dtype=torch.float64)
        self._count = 0.0
        self._blocks = 0

    def frozen(self) -> Ceiling:
        """One that scores as this one does now, whatever becomes of it; it can't take."""
        found = copy.copy(self)
        found._recent = self._recent.clone()
        return found

    def scores(self, lags: Tensor, targets: Tensor) -> Tensor:
        """Each row's mean square error as it is now, from d_t to d_{t-7} (b x 8m) and d_{t+1} (b x m)."""
        return self._errors(lags, targets)[int(self._recent.argmin())]

    def take(self, lags: Tensor, targets: Tensor) -> Tensor:
        """:meth:`scores` of one whole block, which is then fitted."""
        errors = self._errors(lags, targets)
        found = errors[int(self._recent.argmin())]
        rows = lags.shape[0]
        self._recent.lerp_(errors.to(torch.float64).mean(dim=1), 1.0 - (1.0 - SCORE_RATE) ** rows)
        keep, newest = FORGETTING**rows, lags[:, : self._size]
        crossed = (targets.T @ lags).view(self._size, LAGS, self._size).transpose(0, 1)
        self._covariances.mul_(keep)
        self._covariances[0].addmm_(newest.T, newest)
        self._covariances[1:].add_(crossed)
        self._count = keep * self._count + rows
        self._blocks += 1
        if is_early(self._blocks) or is_turn(self._blocks, _TURN):
            self._solve()
        return found

    def _errors(self, lags: Tensor, targets: Tensor) -> Tensor:
        """(1 + orders * ridges) x b: of no regression at all, then of each."""
        found = [targets.square().mean(dim=1)]
        for weights in self._weights:
            inputs = lags[:, : weights.shape[1]]
            found += [(torch.mm(inputs, w) - targets).square_().mean(dim=1) for w in weights]
        return torch.stack(found)

    def _solve(self) -> None:
        """Equations (2). A system that can't be solved keeps the weights it had."""
        c, m = self._covariances.to(torch.float64), self._size
        whole = torch.empty(LAGS * m, LAGS * m, dtype=torch.float64)
        for i in range(LAGS):
            for j in range(i + 1):
                whole[i * m : (i + 1) * m, j * m : (j + 1) * m] = c[i - j].T if i > j else c[0]
        right = torch.cat([c[k].T for k in range(1, LAGS + 1)])
        scale = max(float(c[0].diagonal().mean()) / self._count, 1e-8)
        own, found = whole.diagonal().clone(), [weights.clone() for weights in self._weights]
        for index, ridge in enumerate(_RIDGES):
            whole.diagonal().copy_(own + ridge * scale)
            factor, failed = torch.linalg.cholesky_ex(whole)
            whole_failed = bool(failed)
            for weights in found:
                end = weights.shape[1]
                part = factor[:end, :end]  # a lower order's factor is a corner of the highest's
                if whole_failed:
                    part, failed = torch.linalg.cholesky_ex(whole[:end, :end])
                if not int(failed):
                    weights[index] = torch.cholesky_solve(right[:end], part)
        self._weights = found

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of everything it holds, and the rest, JSON-able."""
        tensors = {"covariances": self._covariances.clone(), "recent": self._recent.clone()}
        tensors |= {f"weights_{order}": w for order, w in zip(_ORDERS, self._weights, strict=True)}
        return tensors, {"count": self._count, "blocks": self._blocks}

    def unpack(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError or RuntimeError where it does not fit."""
        self._covariances.copy_(tensors["covariances"])
        self._recent.copy_(tensors["recent"])
        pairs = zip(_ORDERS, self._weights, strict=True)
        self._weights = [torch.zeros_like(old).copy_(tensors[f"weights_{order}"]) for order, old in pairs]
        self._count, self._blocks = float(meta["count"]), int(meta["blocks"])
