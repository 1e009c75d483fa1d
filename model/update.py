"""How a step's gradients become a change of weights: at once, summed over a sequence, or in one pass over memory.

What is needed of a change but its doing is how far it went, and that is told when the step's other numbers are read
(model/host.py): hence each gives a :data:`Norm`, to be asked after that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from model.config import ModelConfig
from model.errors import ModelError
from model.guard import squares
from model.host import Later
from model.network import Attempt, Imagined, Network
from model.one_pass import OnePass, Pass, cut, fits
from model.optimiser import Adam, Optimiser, Sgd
from model.parameters import GROUPS
from model.rfp import Sensitivities
from model.rgc import way_to_orthogonal
from model.stream import StreamState

Norm = Callable[[], float]
"""How far the weights went: l2. To be asked when the step was read."""


def nowhere() -> float:
    """The norm where nothing changed."""
    return 0.0


class Learned(NamedTuple):
    """What a step came to."""

    own: StreamState
    """The stream before it, with the gradients that still wait."""
    credit: Sensitivities
    """Of the state after it."""
    changed: Norm
    settle: Callable[[], tuple[Sensitivities, int]]
    """Once the step was read: the credit without units past the limit, and how many these were."""


class Update:
    """The optimiser, the rates, and when weights change."""

    def __init__(self, config: ModelConfig, network: Network) -> None:
        self._choices, self._limit = config.learning, config.sensitivity_limit
        self._network, self._parameters = network, network.parameters
        groups = {GROUPS[name] for name in self._parameters.learned}
        rates = config.learning.rates.model_dump()
        self.rates: dict[str, float] = {group: rate for group, rate in rates.items() if group in groups}
        """By part; only what is learned has one."""
        self._rate_vector = self._parameters.rates(self.rates)
        self.optimiser: Optimiser = Sgd()
        if config.learning.optimiser == "adam":
            self.optimiser = Adam(self._parameters.flat, config.learning.adam_epsilon / config.embedding_size)
        if fits(config) and network.credited:
            network.one_pass = OnePass(config, network.propagation, self._parameters, self.optimiser)

    def set_rates(self, rates: dict[str, float]) -> None:
        """Change some; raises :class:`ModelError`, nothing changed, for an unknown part or a rate not in [0, 1]."""
        for name, rate in rates.items():
            if name not in self.rates:
                raise ModelError(f"no rate {name!r}; this model has {', '.join(self.rates) or 'none'}")
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate <= 1.0:
                raise ModelError(f"rate {name} is {rate!r}; it must be a number from 0 to 1")
        self.rates |= {name: float(rate) for name, rate in rates.items()}
        self._rate_vector = self._parameters.rates(self.rates)

    def step(
        self, own: StreamState, new: Imagined, attempt: Attempt | None, z: Tensor, room: Tensor | None, later: Later
    ) -> Learned:
        """6, 7 and 8 of the learning step; without ``attempt`` the credit alone is carried on.

        ``room``: see :meth:`model.rfp.Propagation.drives`.
        """
        if self._network.one_pass is not None:
            return self._in_one_pass(self._network.one_pass, own, new, attempt, z, later)
        credit, reach = self._network.credit(own, new, z, room)  # 8, with the weights of 2
        asked = None if reach is None else later.ask(reach)

        def settle() -> tuple[Sensitivities, int]:
            return (credit, 0) if asked is None else self._network.cut(credit, later.one(asked))

        own, changed = self._by_parts(own, new, attempt, later)  # 6, 7
        return Learned(own, credit, changed, settle)

    def _by_parts(
        self, own: StreamState, new: Imagined, attempt: Attempt | None, later: Later
    ) -> tuple[StreamState, Norm]:
        """Weights change, now or when the sequence or its k steps are over."""
        if attempt is None:
            return own, nowhere
        choices, position = self._choices, own.position
        last = position + 1 == choices.sequence_length
        pending = own.pending
        counts = choices.losses in ("step", "sequence") or position % int(choices.losses) == 0
        if attempt.gradient is not None and counts:
            summed = pending is not None and choices.losses != "sequence"
            pending = pending + attempt.gradient if summed and pending is not None else attempt.gradient
        due = choices.update == "step" or (choices.update != "sequence" and position % int(choices.update) == 0)
        applied = nowhere
        if pending is not None and (last or (due and choices.losses != "sequence")):
            applied, pending = self.apply(pending, later), None
        fitted = self._fit(new, attempt, later)
        own = own if pending is own.pending else replace(own, pending=pending)
        return own, lambda: math.hypot(applied(), fitted())

    def apply(self, gradient: Tensor, later: Later) -> Norm:
        """One step of the optimiser, with V's way back to orthonormal."""
        delta = self.optimiser.step(gradient, self._rate_vector)
        if self._goes_back(self.optimiser.steps):
            part = self._parameters.split(delta)["V"]
            way, share = way_to_orthogonal(self._network.weights["V"] + part, self._choices.retraction)
            part.add_(way, alpha=share)
        self._parameters.flat.add_(delta)
        asked = later.ask(squares(delta))
        return lambda: math.sqrt(later.one(asked))

    def _goes_back(self, step: int) -> bool:
        """Whether V goes towards orthonormal at this step of the optimiser."""
        choices = self._choices
        return choices.retraction > 0.0 and "V" in self._parameters.learned and step % choices.retraction_every == 0

    def _fit(self, new: Imagined, attempt: Attempt, later: Later) -> Norm:
        """7, where the predictor is fitted by least squares."""
        rls = self._network.rls
        return nowhere if rls is None else rls.learn_later(attempt.reading.phi, attempt.predicted.p - new.y, later)

    def _in_one_pass(
        self, one_pass: Pass, own: StreamState, new: Imagined, attempt: Attempt | None, z: Tensor, later: Later
    ) -> Learned:
        """Gradient, weights and sensitivities together, see model/one_pass.py."""
        passed = None if attempt is None else attempt.passed
        weights, v = self._network.weights, self._network.weights["V"]
        goes_back = passed is not None and self._goes_back(self.optimiser.steps + 1)
        before = v.clone() if goes_back else None
        partials = self._network.circuit.partials(new.settled, new.x)
        down = None if passed is None else passed.down
        made = one_pass.step(own.sensitivities, partials, weights, own.state, z, down, self.rates, new.state)
        terms = [] if made.squares is None else [(1.0, later.ask(made.squares))]
        if passed is not None and passed.rest.numel():
            rates = self._rate_vector[one_pass.rest]
            terms.append((1.0, later.ask(one_pass.learn_rest(passed.rest, rates))))
        if before is not None:
            way, share = way_to_orthogonal(v, self._choices.retraction)
            terms.append((-1.0, later.ask(squares(v - before))))
            terms.append((1.0, later.ask(squares(v.add_(way, alpha=share) - before))))
        fitted = nowhere if attempt is None else self._fit(new, attempt, later)
        reach, limit = None if made.reach is None else later.ask(made.reach), self._limit

        def changed() -> float:
            whole = sum(sign * later.one(place) for sign, place in terms)
            return math.hypot(math.sqrt(max(whole, 0.0)), fitted())

        def settle() -> tuple[Sensitivities, int]:
            if reach is None:
                return made.credit, made.cut
            low, high = later.all(reach)
            return made.credit, 0 if low >= -limit and high <= limit else cut(made.credit, limit)  # NaN is neither

        return Learned(own, made.credit, changed, settle)
