"""Block bootstrap: how far a number computed from a stream's errors could have come out otherwise.

From n rows in order, blocks of b consecutive rows are drawn with replacement (any start; after the last row comes the
first, so that every row counts alike), n/b blocks a resample: what hangs together in time stays together. The statistic
of each resample's mean row is taken, and its 2.5 and 97.5 percentiles are the interval (Politis and Romano 1992, the
circular block bootstrap).

It can't show a dependence longer than a block, nor that the stream will go on as it was; with few blocks
(under 2,000 rows b shrinks to n/4) the interval is a rough one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 500
RESAMPLES = 1000
AT_LEAST = 100
"""Fewer rows give no interval."""
_SEED = 0
_FEWEST_BLOCKS = 4
_FEWEST_GIVEN = 10


class Interval(NamedTuple):
    """A value with its 95 % interval; None where too little was seen."""

    value: float | None
    low: float | None
    high: float | None

    def told(self) -> dict[str, float | None]:
        """JSON-able."""
        return self._asdict()


NOTHING = Interval(None, None, None)


def block_size(rows: int) -> int:
    """Rows of one block: 500, or a quarter of the window while that is less."""
    return max(1, min(BLOCK, rows // _FEWEST_BLOCKS))


def resampled_means(rows: Tensor) -> Tensor:
    """The mean row of each of 1,000 resamples of ``rows`` (n x k, float64): 1,000 x k."""
    n, block = rows.shape[0], block_size(rows.shape[0])
    draws = -(-n // block)
    generator = torch.Generator().manual_seed(_SEED)
    starts = torch.randint(0, n, (RESAMPLES, draws), generator=generator)
    sums = torch.cat([rows.new_zeros(1, rows.shape[1]), rows, rows[: block - 1]]).cumsum(dim=0)
    blocks = (sums[block:] - sums[:-block]) / block
    return blocks[starts.reshape(-1)].view(RESAMPLES, draws, -1).mean(dim=1)


def block_interval(blocks: Tensor, statistic: Callable[[Tensor], Tensor]) -> Interval:
    """``statistic`` of the mean of ``blocks`` (B x k: one row of sums or means for each), with its interval.

    As :func:`interval`, but the blocks are given, such as scenes, and drawn whole, B a resample; they are taken to be
    independent. No value where there are fewer than ten.
    """
    blocks = blocks.to(torch.float64)
    if blocks.shape[0] < _FEWEST_GIVEN:
        return NOTHING
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.randint(0, blocks.shape[0], (RESAMPLES, blocks.shape[0]), generator=generator)
    weights = torch.zeros(RESAMPLES, blocks.shape[0], dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return _told(statistic(blocks.mean(dim=0, keepdim=True)), statistic(weights @ blocks / blocks.shape[0]))


def interval(rows: Tensor, statistic: Callable[[Tensor], Tensor]) -> Interval:
    """``statistic`` of the mean of ``rows`` (n x k), with its interval.

    ``statistic`` takes mean rows (R x k, float64) to R numbers. No value where there are fewer than 100
    rows or it is not finite.
    """
    rows = rows.to(torch.float64)
    if rows.shape[0] < AT_LEAST:
        return NOTHING
    return _told(statistic(rows.mean(dim=0, keepdim=True)), statistic(resampled_means(rows)))


def _told(value: Tensor, spread: Tensor) -> Interval:
    """From the statistic of the whole (1) and of each resample."""
    spread = spread[torch.isfinite(spread)]
    if not bool(torch.isfinite(value).all()) or spread.numel() == 0:
        return NOTHING
    low, high = torch.quantile(spread, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(value), low, high)
