"""Effective rank: the participation ratio of the embeddings of the last 1,000 fixations, at a constant cost.

    rank = (tr C)^2 / tr(C C),  C their covariance                                       (1)

A ring holds the embeddings and a float64 Gram matrix their products; each fixation adds one outer product
and takes the oldest away, and every time round the matrix is summed anew, so that no rounding is left over
from a large value long gone. It can't show that anything was learned: chaos raises the rank, and slow context
lowers it honestly.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from model.host import Later

WINDOW = 1000
_AT_LEAST = 100


class RankWindow:
    """The last embeddings of all streams, q numbers each."""

    def __init__(self, size: int, like: Tensor) -> None:
        self.ring = like.new_zeros(WINDOW, size)
        self.gram = torch.zeros(size, size, dtype=torch.float64, device=like.device)
        self.total = torch.zeros(size, dtype=torch.float64, device=like.device)
        self.count = 0
        """Embeddings ever taken in."""

    def add(self, y: Tensor) -> None:
        """Take in ``y``; the oldest goes where there are more than the window holds."""
        place = self.count % WINDOW
        if self.count >= WINDOW:
            oldest = self.ring[place].to(torch.float64)
            self.gram.addr_(oldest, oldest, alpha=-1.0)
            self.total.sub_(oldest)
        self.ring[place] = y
        self.count += 1
        if self.count % WINDOW == 0:
            held = self.ring.to(torch.float64)
            torch.mm(held.T, held, out=self.gram)
            torch.sum(held, dim=0, out=self.total)
        else:
            newest = y.to(torch.float64)
            self.gram.addr_(newest, newest)
            self.total.add_(newest)

    def rank(self) -> float | None:
        """Equation (1); None before there are 100 embeddings, or where they don't differ or are too large to say."""
        later = Later()
        rank = self.ask(later)
        later.read()
        return rank()

    def ask(self, later: Later) -> Callable[[], float | None]:
        """:meth:`rank` of what is held now, to be asked when ``later`` was read."""
        held = min(self.count, WINDOW)
        if held < _AT_LEAST:
            return lambda: None
        mean = self.total / held
        flat = self.gram.view(-1)
        terms = mean @ mean, self.gram.diagonal().sum(), flat @ flat, mean @ (self.gram @ mean)
        places = [later.ask(term) for term in terms]
        return lambda: self._rank(held, *(later.one(place) for place in places))

    def _rank(self, held: int, inner: float, diagonal: float, whole: float, along: float) -> float | None:
        trace = diagonal / held - inner
        squared = whole / held**2 - 2.0 * along / held + inner * inner
        if not (math.isfinite(squared) and squared > 0.0 and trace > 1e-9 * inner):
            return None
        return min(max(trace * trace / squared, 1.0), float(self.total.numel()))

    def tensors(self) -> dict[str, Tensor]:
        """Everything it remembers but ``count``, by name; the tensors themselves."""
        return {"ring": self.ring, "gram": self.gram, "total": self.total}
