"""Probe: how much of the next features can be read, linearly, from the prediction.

    R^2 = 1 - E(ridge readout) / E(running mean), of z_{t+1}, each readout scored before it is fitted

from p_t; beside it from z_t and y_t, from the untrained twin's p_t, and the stream's own ceiling: the best regression
on the last eight fixations, and with what is told of the next gaze (the base of learned skill). So "nothing
to learn" (a ceiling near 0) is told apart from "did not learn" (p under z_t).

What it can't show: what is in p but not linear; and a carry in p brings the memory's own z_t with it, so p at the
height of z_t is no achievement, p above it is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.bootstrap import AT_LEAST, Interval, interval
from model.evidence import COLUMNS


class Probe(NamedTuple):
    """R^2 each; None until there are 600 fixations."""

    prediction: float | None
    now: float | None
    embedding: float | None
    untrained: float | None
    ceiling: float | None
    ceiling_told: float | None


def measure(rows: Tensor) -> Probe:
    """Over ``rows`` of errors (n x :data:`~model.evidence.COLUMNS`)."""
    if rows.shape[0] < AT_LEAST:
        return Probe(None, None, None, None, None, None)
    means = dict(zip(COLUMNS, rows.to(torch.float64).mean(dim=0).tolist(), strict=True))
    if not means["mean"] > 0.0:
        return Probe(None, None, None, None, None, None)
    r2 = {name: 1.0 - means[name] / means["mean"] for name in COLUMNS}
    ceiling = max(r2["ceiling"], r2["now"])
    return Probe(r2["prediction"], r2["now"], r2["embedding"], r2["untrained"], ceiling, max(r2["base"], ceiling))


def lost(rows: Tensor) -> Interval:
    """R^2 from p_t less that from the untrained twin's, with its interval."""
    mean, own, twin = (COLUMNS.index(name) for name in ("mean", "prediction", "untrained"))
    return interval(rows, lambda means: (means[:, twin] - means[:, own]) / means[:, mean])
