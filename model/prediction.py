"""Distances and predictors: from what is known before the next fixation is seen to its embedding.

Letters: q embedding, d what the predictor reads (phi), e the error's gradient at the prediction.

    half_mse    D(p, y) = sum (p - y)^2 / 2q          dD/dp = (p - y) / q
    cosine      D(p, y) = 1 - p.y / (|p| |y|)         |a| = sqrt(a.a + 1e-8), so that zero has a gradient

    phi = [(y - mu) / sqrt(var + 1e-4); action; near; place and its confidence; 1]
    linear      P phi                                 dphi = P^T e,  dP = e phi^T
    mlp         P_out [f(P_in phi); 1], f tanh or relu
    rls         P phi, P by recursive least squares (model/rls.py): the optimiser leaves it alone

    p = carry + y (if residual) + what the predictor gives

The target, the carry, mu and var are constants: no gradient passes through them.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from model.config import ModelConfig
from model.rls import RecursiveLeastSquares

_NORM_FLOOR = 1e-8
VARIANCE_FLOOR = 1e-4
"""Added to a running variance before its root is divided by."""


def distances(predictions: Tensor, target: Tensor, kind: str) -> Tensor:
    """D of each row of ``predictions`` (B x q) to ``target`` (q): B numbers."""
    if kind == "half_mse":
        return (predictions - target).square_().mean(dim=-1) * 0.5
    norms = ((predictions * predictions).sum(-1) + _NORM_FLOOR).sqrt() * ((target * target).sum() + _NORM_FLOOR).sqrt()
    return 1.0 - (predictions @ target) / norms


def distance_gradient(prediction: Tensor, target: Tensor, kind: str) -> Tensor:
    """dD/dp, q numbers."""
    if kind == "half_mse":
        return (prediction - target) / prediction.numel()
    squared = (prediction @ prediction) + _NORM_FLOOR
    norms = squared.sqrt() * ((target @ target) + _NORM_FLOOR).sqrt()
    return prediction * ((prediction @ target) / (norms * squared)) - target / norms


class Reading(NamedTuple):
    """What the predictor reads before fixation t+1 is looked at."""

    phi: Tensor
    """d numbers: the embedding's part first (q), the constant 1 last."""
    scale: Tensor | None
    """q: d phi[:q] / d y, or None for 1."""
    base: Tensor
    """q: carry, plus y where the predictor is residual: what the prediction starts from."""


class Predicted(NamedTuple):
    """A prediction and what its gradient needs."""

    p: Tensor
    """q numbers: the prediction of y_{t+1}."""
    hidden: Tensor
    """Hidden activities (``mlp``), else empty."""


class Predictor(Protocol):
    """From a reading to a prediction, and back."""

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights the optimiser learns, float64, by name."""
        ...

    def predict(self, weights: dict[str, Tensor], reading: Reading) -> Predicted:
        """p."""
        ...

    def back(
        self, weights: dict[str, Tensor], reading: Reading, predicted: Predicted, e: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """dE/dphi of the embedding's part (q) and the gradients of its weights, from ``e`` = dE/dp."""
        ...


def make_predictor(config: ModelConfig, reads: int, least_squares: RecursiveLeastSquares | None) -> Predictor:
    """The predictor ``config`` names, reading ``reads`` numbers."""
    if least_squares is not None:
        return RlsPredictor(least_squares)
    if config.predictor.kind == "linear":
        return LinearPredictor(config.embedding_size, reads)
    return MlpPredictor(config.embedding_size, reads, config.predictor.hidden, config.predictor.activation)


class LinearPredictor:
    """P phi; P starts at zero."""

    def __init__(self, outputs: int, reads: int) -> None:
        self._shape = (outputs, reads)

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See :class:`Predictor`."""
        return {"P": torch.zeros(self._shape, dtype=torch.float64)}

    def predict(self, weights: dict[str, Tensor], reading: Reading) -> Predicted:
        """See :class:`Predictor`."""
        return Predicted(torch.addmv(reading.base, weights["P"], reading.phi), reading.phi.new_empty(0))

    def back(
        self, weights: dict[str, Tensor], reading: Reading, predicted: Predicted, e: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Predictor`."""
        return weights["P"][:, : e.numel()].T @ e, {"P": torch.outer(e, reading.phi)}


class MlpPredictor:
    """One hidden layer; its last layer starts at zero."""

    def __init__(self, outputs: int, reads: int, hidden: int, activation: str) -> None:
        self._outputs, self._reads, self._hidden = outputs, reads, hidden
        self._tanh = activation == "tanh"

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See :class:`Predictor`. P_in: normal, of variance 1/d for tanh and 2/d for relu."""
        spread = math.sqrt((1.0 if self._tanh else 2.0) / self._reads)
        incoming = torch.randn(self._hidden, self._reads, generator=generator, dtype=torch.float64) * spread
        return {"P_in": incoming, "P_out": torch.zeros(self._outputs, self._hidden + 1, dtype=torch.float64)}

    def predict(self, weights: dict[str, Tensor], reading: Reading) -> Predicted:
        """See :class:`Predictor`."""
        argument = weights["P_in"] @ reading.phi
        hidden = torch.tanh(argument) if self._tanh else torch.relu(argument)
        out = weights["P_out"]
        return Predicted(torch.addmv(reading.base + out[:, -1], out[:, :-1], hidden), hidden)

    def back(
        self, weights: dict[str, Tensor], reading: Reading, predicted: Predicted, e: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Predictor`."""
        hidden = predicted.hidden
        slope = 1.0 - hidden * hidden if self._tanh else (hidden > 0).to(hidden.dtype)
        inner = (weights["P_out"][:, :-1].T @ e) * slope
        outgoing = torch.outer(e, torch.cat([hidden, hidden.new_ones(1)]))
        return weights["P_in"][:, : e.numel()].T @ inner, {"P_in": torch.outer(inner, reading.phi), "P_out": outgoing}


class RlsPredictor:
    """P phi in float64, P by recursive least squares: nothing in it is the optimiser's."""

    def __init__(self, least_squares: RecursiveLeastSquares) -> None:
        self._rls = least_squares

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See :class:`Predictor`."""
        return {}

    def predict(self, weights: dict[str, Tensor], reading: Reading) -> Predicted:
        """See :class:`Predictor`."""
        out = self._rls.weights @ reading.phi.to(torch.float64)
        return Predicted(reading.base + out.to(reading.base.dtype), reading.phi.new_empty(0))

    def back(
        self, weights: dict[str, Tensor], reading: Reading, predicted: Predicted, e: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`Predictor`."""
        return (self._rls.weights[:, : e.numel()].T @ e.to(torch.float64)).to(e.dtype), {}
