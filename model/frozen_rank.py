"""Effective rank of what is embedded, against the frozen network on the same fixations.

    rank    = (tr C)^2 / tr(C C), C the covariance of y over the last 1,000 fixations          (participation ratio)
    frozen  = the same of y0 = U0 (V0 z, V0 z): the network as it began, with no memory

U0 and V0 are the weights of the start. The paper reports about 50 of 120; how many there are to be had depends
on the stream, hence the frozen network beside it.

What it can't show: that anything was learned. Chaos raises the rank, slow context lowers it honestly: a ratio
under 0.8 is an alarm only if the probe falls too, and one over 1.4 while skill falls is one as well.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

WINDOW = 1000
_AT_LEAST = 100
_PICTURE = 32


class Rank(NamedTuple):
    """None until there are 100 fixations, or where they don't differ."""

    now: float | None
    frozen: float | None

    @property
    def ratio(self) -> float | None:
        """Now over frozen."""
        return None if self.now is None or self.frozen is None else self.now / self.frozen


def frozen_map(weights: dict[str, Tensor], components: int) -> Tensor:
    """q x n: from V0 z to y0, ``weights`` those of the start."""
    u = weights["U"]
    return u.view(u.shape[0], components, -1).sum(dim=1).cpu()


def covariance(rows: Tensor) -> Tensor:
    """Of ``rows`` (N x k), k x k, float64."""
    rows = rows.to(torch.float64)
    offset = rows - rows.mean(dim=0)
    return offset.T @ offset / max(rows.shape[0], 1)


def participation(rows: Tensor) -> float | None:
    """(tr C)^2 / tr(C C) of ``rows`` (N x k)."""
    found = _small_gram(rows)
    if found is None:
        return None
    gram, inner = found
    trace, squared = float(gram.diagonal().sum()), float(gram.view(-1) @ gram.view(-1))
    if not trace > 1e-9 * inner or not squared > 0.0:
        return None
    return trace * trace / squared


def measure(embeddings: Tensor, inputs: Tensor, frozen: Tensor) -> Rank:
    """From y (N x q) and V0 z (N x n) of the same fixations, and :func:`frozen_map` (q x n)."""
    return Rank(participation(embeddings), participation(inputs.to(frozen.dtype) @ frozen.T))


def spectrum(rows: Tensor) -> list[float]:
    """The eigenvalues of the covariance of ``rows`` (N x k), largest first; at most min(N, k)."""
    found = _small_gram(rows)
    if found is None or not bool(torch.isfinite(found[0]).all()):
        return []
    values = torch.linalg.eigvalsh(found[0]).flip(0) / rows.shape[0]
    return [float(value) for value in values.clamp_min(0.0)]


def picture(found: Tensor) -> list[list[float]]:
    """The correlations of a covariance (q x q) as at most 32 x 32 tiles, each the root mean square of its part.

    A diagonal alone is an even embedding; tiles bright all over are one that has collapsed to few directions.
    """
    scale = found.diagonal().clamp_min(0.0).sqrt()
    correlation = found / (torch.outer(scale, scale) + 1e-30)
    side = min(_PICTURE, found.shape[0])
    tiles = torch.nn.functional.adaptive_avg_pool2d(correlation.square().unsqueeze(0), side)[0].sqrt()
    return [[round(float(value), 4) for value in line] for line in tiles]


def _small_gram(rows: Tensor) -> tuple[Tensor, float] | None:
    """The smaller of the centred rows' two Gram matrices (their nonzero eigenvalues agree), and N |mean|^2."""
    if rows.shape[0] < _AT_LEAST:
        return None
    rows = rows.to(torch.float64)
    mean = rows.mean(dim=0)
    offset = rows - mean
    gram = offset @ offset.T if rows.shape[0] < rows.shape[1] else offset.T @ offset
    return gram, float(mean @ mean) * rows.shape[0]
