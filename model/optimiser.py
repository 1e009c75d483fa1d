"""Gradient descent and Adam on one flat vector, with their state in the open.

    sgd     dw = -rate g
    adam    m <- .9 m + .1 g,  v <- .999 v + .001 g^2,
            dw = -rate (m / (1 - .9^t)) / (sqrt(v / (1 - .999^t)) + epsilon)        (Kingma and Ba 2015)

A step returns the change and applies nothing: the caller adds it, and knows its norm. Where a caller makes the step of
some weights itself (model/one_pass.py), :meth:`Optimiser.begin` counts it and tells its numbers, and the others change
by :meth:`Optimiser.change`.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

_BETA_M, _BETA_V = 0.9, 0.999


class Rule(NamedTuple):
    """The numbers of one step: with Adam, m <- keep_m m + (1 - keep_m) g, v alike, and

    dw = -rate scale m / (root sqrt(v) + epsilon); without, dw = -rate scale g.
    """

    adam: bool
    scale: float = 1.0
    keep_m: float = 0.0
    keep_v: float = 0.0
    root: float = 1.0
    epsilon: float = 0.0


class Optimiser(Protocol):
    """One rule from gradients to changes of weights."""

    state: dict[str, Tensor]
    """What it remembers, by name, each laid out as the weights."""
    steps: int
    """How many steps it has made."""

    def step(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """The change of the weights; all three laid out alike. ``gradient`` must be finite."""
        ...

    def begin(self) -> Rule:
        """Count a step; what it is made with."""
        ...

    def change(self, gradient: Tensor, rates: Tensor, place: slice) -> Tensor:
        """The change of the weights at ``place`` in the step begun."""
        ...


class Sgd:
    """Plain gradient descent."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.steps = 0

    def step(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """See :class:`Optimiser`."""
        self.begin()
        return self.change(gradient, rates, slice(None))

    def begin(self) -> Rule:
        """See :class:`Optimiser`."""
        self.steps += 1
        return Rule(adam=False)

    def change(self, gradient: Tensor, rates: Tensor, place: slice) -> Tensor:
        """See :class:`Optimiser`."""
        return -rates * gradient


class Adam:
    """Adam with bias correction."""

    def __init__(self, like: Tensor, epsilon: float) -> None:
        self.state = {"m": torch.zeros_like(like), "v": torch.zeros_like(like)}
        self.steps = 0
        self._epsilon = epsilon

    def step(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """See :class:`Optimiser`."""
        self.begin()
        return self.change(gradient, rates, slice(None))

    def begin(self) -> Rule:
        """See :class:`Optimiser`."""
        self.steps += 1
        scale, root = 1.0 / (1.0 - _BETA_M**self.steps), 1.0 / math.sqrt(1.0 - _BETA_V**self.steps)
        return Rule(True, scale, _BETA_M, _BETA_V, root, self._epsilon)

    def change(self, gradient: Tensor, rates: Tensor, place: slice) -> Tensor:
        """See :class:`Optimiser`."""
        m, v = self.state["m"][place], self.state["v"][place]
        m.mul_(_BETA_M).add_(gradient, alpha=1.0 - _BETA_M)
        v.mul_(_BETA_V).addcmul_(gradient, gradient, value=1.0 - _BETA_V)
        deviation = v.sqrt().div_(math.sqrt(1.0 - _BETA_V**self.steps)).add_(self._epsilon)
        return (m * rates).div_(deviation).mul_(-1.0 / (1.0 - _BETA_M**self.steps))
