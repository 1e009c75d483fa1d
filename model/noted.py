"""What is kept of a step until the measures take it in: vectors alone, nothing as large as the weights."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from model.outcome import Watched


class Noted(NamedTuple):
    """One step; letters as in model/network.py, the tensors must not be changed."""

    stream: str
    position: int
    z: Tensor
    """m: z_{t+1}."""
    carry: Tensor
    """m: zbar at the step."""
    told: Tensor
    """What the predictor read besides y and the constant 1; empty at position 0."""
    before: Tensor | None
    """m: z_t; None where nothing came before."""
    state: Tensor
    """K x n: s_t."""
    y_before: Tensor
    """q: its embedding."""
    prediction: Tensor | None
    """q: p_t; None where nothing came before."""
    after: Tensor
    """K x n: s_{t+1}."""
    y: Tensor
    """q: its embedding."""


def note(seen: Watched) -> Noted:
    """Of a step seen from the inside."""
    assert seen.made is not None
    own, new, attempt = seen.made
    prediction = None if attempt is None else attempt.predicted.p
    return Noted(
        seen.stream, seen.position, seen.z, seen.carry, seen.told, own.kept, own.state, new.y_before, prediction,
        new.state, new.y,
    )  # fmt: skip
