"""Back-propagation through time in the place of credit carried forward: the paper's comparison, as a learner uses it.

Spatial back-propagation is the learner's own: at each step it gives dE/dy_t, with the predictor, the statistics and
the targets of that step. What remains is linear in the states, so over a sequence from the zero state

    d/dw sum_t E_t = d/dw sum_t (dE/dy_t) . U s_t(w),    U and dE/dy_t constants                 (1)

for every weight w of the circuit and V, by automatic differentiation of the reference's step; several sequences side
by side in one graph. Each step is stored, which is what forward propagation avoids. Letters: K numbers of state per
unit, n units, m features, q embedding, B sequences, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model import reference
from model.learner import Learner, Watched
from model.parameters import CREDITED, GROUPS


class _Step(NamedTuple):
    z: Tensor
    """m."""
    back: Tensor | None
    """q: dE/dy_t; None where nothing was learned from."""


class ThroughTime:
    """Keeps the present sequence of every stream of ``learner``, and gives its gradient through time.

    It takes the learner's ``watch``. A sequence that begins, also because a step was refused, forgets what was before.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._names = [name for name in learner.parameters.learned if GROUPS[name] in CREDITED]
        self._steps: dict[str, list[_Step]] = {}
        learner.watch = self._watch

    def forget(self) -> None:
        """Drop every stream's sequence."""
        self._steps.clear()

    def in_place_of_forward(self, gradient: Tensor, streams: Sequence[str]) -> Tensor:
        """``gradient``, laid out as the parameters, with (1) summed over ``streams`` where credit was carried."""
        if not self._names:
            return gradient
        parts = {name: part.clone() for name, part in self._learner.parameters.split(gradient).items()}
        return self._learner.parameters.gather(parts | self.gradient(streams))

    @torch.enable_grad()
    def gradient(self, streams: Sequence[str]) -> dict[str, Tensor]:
        """Equation (1) by name, summed over the present sequences of ``streams``."""
        learner = self._learner
        weights = {name: weight.detach() for name, weight in learner.network.weights.items()}
        leaves = {name: weights[name].clone().requires_grad_() for name in self._names}
        total = self._total({**weights, **leaves}, [self._steps.get(stream, []) for stream in streams])
        wanted = list(leaves.values())
        parts = torch.autograd.grad(total, wanted, allow_unused=True) if total.requires_grad else [None] * len(wanted)
        return {
            name: torch.zeros_like(leaf) if part is None else part
            for (name, leaf), part in zip(leaves.items(), parts, strict=True)
        }

    def _total(self, weights: dict[str, Tensor], rows: list[list[_Step]]) -> Tensor:
        """The sum in (1). Shorter sequences go on with zeros, of which no loss counts."""
        config, state = self._learner.config, self._learner.blank().state
        length = max((len(row) for row in rows), default=0)
        total = state.new_zeros(())
        if length == 0:
            return total
        z, down = self._stacked(rows, length, state, weights["U"])
        states = state.expand(len(rows), *state.shape)
        whole = reference.written_out(config, weights)

        def step(state: Tensor, z: Tensor) -> Tensor:
            return reference.step(config, whole, state, z)

        side_by_side = torch.vmap(step)
        for t in range(length):
            total = total + (down[:, t] * states.flatten(1)).sum()
            if t + 1 < length:
                states = side_by_side(states, z[:, t])
        return total

    def _stacked(self, rows: list[list[_Step]], length: int, like: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """z, B x T x m, and dE/ds_t = U^T dE/dy_t, B x T x Kn."""
        z = like.new_zeros(len(rows), length, self._learner.config.features)
        back = like.new_zeros(len(rows), length, embedding.shape[0])
        for index, row in enumerate(rows):
            for t, (step, counts) in enumerate(zip(row, self._counted(row), strict=True)):
                z[index, t] = step.z
                if counts and step.back is not None:
                    back[index, t] = step.back
        return z, back @ embedding

    def _counted(self, row: list[_Step]) -> list[bool]:
        """Which losses of a sequence count, as the learner's configuration has it."""
        losses = self._learner.config.learning.losses
        if losses == "step":
            return [True] * len(row)
        if losses == "sequence":
            return [t + 1 == len(row) for t in range(len(row))]
        return [t % int(losses) == 0 for t in range(len(row))]

    def _watch(self, seen: Watched) -> None:
        if seen.position == 0:
            self._steps[seen.stream] = []
        attempt = seen.made.attempt if seen.made is not None else None
        self._steps.setdefault(seen.stream, []).append(_Step(seen.z, None if attempt is None else attempt.back))
