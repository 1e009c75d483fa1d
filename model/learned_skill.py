"""Learned skill: what learning the circuit added beyond a random reservoir, told by a target it can't move.

The target is z_{t+1} itself, so no embedding can flatter it. Two readouts, each scored before it is fitted
(model/evidence.py): B from [1, z_t, z_{t-1}, running mean, what is told of the next gaze], M from [B, s_t, p_t]; the
same M' with the state and prediction of an untrained twin of the circuit on the same fixations:

    learned skill = (1 - E(M)/E(B)) - (1 - E(M')/E(B)) = (E(M') - E(M)) / E(B)

with its 95 % interval, over the last 5,000 fixations, all but the first 500 while there are fewer.

It is None while the twin began beside a trained learner and its predictor has not learned from as much yet.

What it can't show: what the predictor learned, for the twin's predictor learns too; and anything where a random
reservoir already holds all there is: then 0 is the best there is.
"""

from __future__ import annotations

from torch import Tensor

from model.bootstrap import Interval, interval
from model.evidence import COLUMNS

_BASE, _CIRCUIT, _TWIN = (COLUMNS.index(name) for name in ("base", "circuit", "twin"))


def measure(rows: Tensor) -> Interval:
    """Over ``rows`` of errors (n x :data:`~model.evidence.COLUMNS`, oldest first)."""
    return interval(rows, lambda means: (means[:, _TWIN] - means[:, _CIRCUIT]) / means[:, _BASE])
