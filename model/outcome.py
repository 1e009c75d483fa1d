"""What one fixation came to: told to everyone, and to whoever watches the step from the inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from model.network import Made


@dataclass(frozen=True)
class Outcome:
    """What one fixation came to. Errors are None where there was no prediction (a sequence's first)."""

    prediction_error: float | None
    trivial: dict[str, float | None]
    """The trivial predictors' errors, by the names of :data:`TRIVIAL_ERRORS`."""
    embedding: np.ndarray[Any, np.dtype[np.float32]]
    """q; of a repeat that of the fixation it repeats, of a refused step the zero state's."""
    position: int
    """In its sequence, from 0; of a repeat that of the fixation it repeats."""
    effective_rank: float | None
    """Participation ratio of y over the last 1,000 fixations of all streams; None before there are 100."""
    update_norm: float
    """l2 of all changes of weights."""
    skipped: str | None = None
    """None, ``refused`` or ``repeat``."""
    reason: str | None = None
    """Why it was refused."""
    action_error: float | None = None
    """Half mean square error of the action head, where there is one."""
    cut_units: int = 0
    """Units whose sensitivities passed the limit and start again from zero."""


class Watched(NamedTuple):
    """One step as the learner made it, for whoever holds it against another algorithm.

    The weights are those before the step; the tensors must not be changed.
    """

    stream: str
    position: int
    z: Tensor
    carry: Tensor
    """m: zbar at the step."""
    mean: Tensor
    """q: mu of y at the step ..."""
    deviation: Tensor
    """... and sqrt(var + 1e-4)."""
    told: Tensor
    """What the predictor read besides y and the constant 1; empty at position 0."""
    aim: Tensor | None
    """The action head's target."""
    error: float | None
    gradient: dict[str, Tensor] | None
    """dE/dw by name, as used; None where nothing was learned from."""
    made: Made | None = None
    """The step from the inside."""
