"""What forward propagation competes with, in its place in the same learner: truncated back-propagation, and full RTRL.

Each stands where model/one_pass.py does: given dE/ds_t it finds the gradient of every weight through time, takes the
optimiser's step and remembers what it needs. All else of the learner stays, so that two of them differ in this alone.
Truncated back-propagation is model/truncated.py; here is what it shares with the other,

    full RTRL:  M <- J M + drives,  dE/dw = dE/ds M                                        (1)

Written for speed, by hand and not by automatic differentiation. Held against model/reference.py in tests. One stream
only, without a new sequence. Letters: n units, K numbers of state, w numbers that one row of a weight reads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.config import ModelConfig
from model.learner import Learner
from model.one_pass import Step, change
from model.rfp import Sensitivities
from model.rgc import Partials, Weights


class Credit:
    """What they share: the optimiser's step of the weights that credit passes through. Made by ``learner``."""

    reach = 1
    """Steps of the past after which one costs no more than any later one."""

    def __init__(self, learner: Learner) -> None:
        network = learner.network
        self._parameters, self._optimiser = learner.parameters, learner.optimiser
        self._circuit, self._weights = network.circuit, network.weights
        columns = network.propagation.columns
        self._names = [name for name in self._parameters.learned if name in columns]
        size = sum(self._weights[name].numel() for name in self._names)
        self.rest_names = [name for name in self._parameters.learned if name not in columns]
        self.rest = slice(size, self._parameters.flat.numel())
        self._place = slice(0, size)
        self.gradient: Weights = {}
        """The last one, by name."""

    def surely_finite(self, credit: Sensitivities, back: float, rest: float) -> bool:
        """A benchmark's features are: nothing is looked for."""
        return True

    def state_bytes(self) -> int:
        """What is kept of the past."""
        raise NotImplementedError

    def step(
        self,
        credit: Sensitivities,
        partials: Partials,
        weights: Weights,
        state: Tensor,
        z: Tensor,
        back: Tensor | None,
        rates: dict[str, float],
        after: Tensor,
    ) -> Step:
        """As :meth:`model.one_pass.OnePass.step`; ``credit`` is left alone."""
        raise NotImplementedError

    def _use(self, parts: Weights, rates: dict[str, float]) -> Tensor:
        """The optimiser's step with the gradient ``parts``; sum dw^2."""
        self.gradient = parts
        gathered = self._parameters.gather(parts, self._names)
        of_these = self._parameters.rates(rates)[self._place]
        return change(self._parameters.flat, self._optimiser, self._place, gathered, of_these)

    def arguments(self, weights: Weights, state: Tensor) -> Tensor | None:
        """See :class:`model.one_pass.Pass`."""
        return None

    def learn_rest(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """See :class:`model.one_pass.Pass`."""
        return change(self._parameters.flat, self._optimiser, self.rest, gradient, rates)


class Rival(Learner):
    """A learner whose credit is another's."""

    def __init__(
        self,
        config: ModelConfig,
        make: Callable[[Learner], Credit],
        *,
        seed: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        measured: bool = True,
    ) -> None:
        super().__init__(config, seed=seed, device=device, dtype=dtype, measured=measured)
        self.credit = make(self)
        self.network.one_pass = self.credit


class FullRtrl(Credit):
    """Equation (1): the effect of every weight on every number of the state."""

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner)
        circuit, like = self._circuit, learner.parameters.flat
        k, n = circuit.components, circuit.units
        sizes = {name: self._weights[name].numel() for name in self._names}
        self._influence = {name: like.new_zeros(k * n, size) for name, size in sizes.items()}
        self._next = {name: torch.empty_like(part) for name, part in self._influence.items()}
        self._jacobian = like.new_zeros(k, n, k, n)
        b = circuit.block
        self._block = torch.arange(n, device=like.device).view(-1, b).repeat_interleave(b, dim=0)  # n x b

    def state_bytes(self) -> int:
        """M."""
        return sum(part.numel() * part.element_size() for part in self._influence.values())

    def step(
        self,
        credit: Sensitivities,
        partials: Partials,
        weights: Weights,
        state: Tensor,
        z: Tensor,
        back: Tensor | None,
        rates: dict[str, float],
        after: Tensor,
    ) -> Step:
        """See :class:`Credit`."""
        jacobian = self._whole(partials)
        parts = {}
        if back is not None:
            self._optimiser.begin()
            parts = {name: (back.flatten() @ part).view_as(weights[name]) for name, part in self._influence.items()}
        for name, part in self._influence.items():
            torch.mm(jacobian, part, out=self._next[name])
        self._influence, self._next = self._next, self._influence
        self._drive(partials, state, z)
        return Step(credit, self._use(parts, rates) if parts else None)

    def _whole(self, partials: Partials) -> Tensor:
        """J, Kn x Kn."""
        circuit, j = self._circuit, self._jacobian
        j.zero_()
        j.diagonal(dim1=1, dim2=3).copy_(partials.direct)
        n, b = circuit.units, circuit.block
        for gate, moved in zip(circuit.cell.gates, partials.gates, strict=True):
            weight, to = self._weights[gate.name], j[:, :, gate.reads]
            if circuit.gates == "dense":
                to.addcmul_(moved.unsqueeze(-1), weight)
            else:
                blocks = to.view(len(j), n // b, b, n // b, b).diagonal(dim1=1, dim2=3)  # K x b x b x n/b
                blocks.add_(weight.view(-1, b, b).permute(1, 2, 0) * moved.view(-1, n // b, 1, b).permute(0, 3, 2, 1))
        return j.view(len(j) * n, -1)

    def _drive(self, partials: Partials, state: Tensor, z: Tensor) -> None:
        """What each weight does to its own unit at once."""
        k, n = state.shape
        gates = {gate.name: index for index, gate in enumerate(self._circuit.cell.gates)}
        for name, part in self._influence.items():
            if name in gates:
                factor = partials.gates[gates[name]]
                source = state[self._circuit.cell.gates[gates[name]].reads]
                source = source.unsqueeze(0) if self._circuit.gates == "dense" else source[self._block]
            elif name == "V":
                factor, source = partials.passed, z.unsqueeze(0)
            else:
                factor, source = partials.own[self._circuit.cell.own.index(name)], z.new_ones(1, 1)
            on_itself = part.view(k, n, n, -1).diagonal(dim1=1, dim2=2)  # K x w x n
            on_itself.addcmul_(factor.unsqueeze(1), source.t().unsqueeze(0))
