"""What forward propagation competes with, in its place in the same learner: truncated back-propagation, and full RTRL.

Each stands where model/one_pass.py does: given dE/ds_t it finds the gradient of every weight through time, takes the
optimiser's step and remembers what it needs. All else of the learner stays, so that two of them differ in this alone.
With the partial derivatives of model/rgc.py, t from now on backwards and T steps of the past,

    du_g,t      = sum_k (d s'_k / d u_g) delta_k,t                                         (1)
    delta_{t-1} = dE_{t-1}/ds_{t-1} + direct^T delta_t + sum_g W_g^T du_g,t                (2)
    dE/dW_g     = sum_t du_g,t source_t^T, as one matrix product over all t; V alike       (3)
    full RTRL:  M <- J M + drives,  dE/dw = dE/ds M                                        (4)

Written for speed: (1) to (3) by hand and not by automatic differentiation, and what can wait is done for all steps at
once. Held against model/reference.py in tests. One stream only, without a new sequence. Letters: n units, m features,
K numbers of state, G gates, E weights of a unit's own, w numbers that one row of a weight reads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.config import ModelConfig
from model.guard import energy
from model.learner import Learner
from model.one_pass import Step
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

    def surely_finite(self, credit: Sensitivities, back: Tensor, rest: Tensor) -> bool:
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
    ) -> Step:
        """As :meth:`model.one_pass.OnePass.step`; ``credit`` is left alone."""
        raise NotImplementedError

    def _use(self, parts: Weights, rates: dict[str, float]) -> float:
        """The optimiser's step with the gradient ``parts``; sum dw^2."""
        self.gradient = parts
        gathered = self._parameters.gather(parts, self._names)
        delta = self._optimiser.change(gathered, self._parameters.rates(rates)[self._place], self._place)
        self._parameters.flat[self._place].add_(delta)
        return energy(delta)


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


class Truncated(Credit):
    """Back-propagation through ``reach`` steps, at every fixation or once in ``every``: then every loss of them counts.

    ``anew``: the steps are made again with today's weights, which is truncated back-propagation to the letter; without,
    it propagates through them as they were made, which saves half and mixes weights of many steps, as RFP does.
    """

    def __init__(self, learner: Learner, *, reach: int, every: int = 1, anew: bool = False) -> None:
        super().__init__(learner)
        self.reach, self._every, self._anew = reach, every, anew
        circuit, like = self._circuit, learner.parameters.flat
        k, n, gates, own = circuit.components, circuit.units, len(circuit.cell.gates), len(circuit.cell.own)
        self._direct = like.new_zeros(reach, k, k, n)
        self._gates = like.new_zeros(reach, gates, k, n)
        self._own = like.new_zeros(reach, own, k, n)
        self._passed = like.new_zeros(reach, k, n)
        self._states = like.new_zeros(reach, k, n)
        self._z = like.new_zeros(reach, learner.config.features)
        self._backs = like.new_zeros(reach, k, n)
        self._deltas, self._du = like.new_zeros(reach, k, n), like.new_zeros(reach, gates, n)
        self._steps = 0

    def state_bytes(self) -> int:
        """The steps remembered."""
        kept = (self._direct, self._gates, self._own, self._passed, self._states, self._z, self._backs)
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def step(
        self,
        credit: Sensitivities,
        partials: Partials,
        weights: Weights,
        state: Tensor,
        z: Tensor,
        back: Tensor | None,
        rates: dict[str, float],
    ) -> Step:
        """See :class:`Credit`."""
        squares = 0.0
        if back is not None:
            self._optimiser.begin()  # the weights no credit passes through learn at every step
            if self._every == 1:
                self._backs.zero_()
            self._backs[(self._steps - 1) % self.reach] = back
            if self._steps % self._every == 0:
                if self._anew:
                    self._again()
                squares = self._use(self._back(), rates)
        self._keep(self._steps % self.reach, partials, state)
        self._z[self._steps % self.reach] = z
        self._steps += 1
        return Step(credit, squares, 0)

    def _keep(self, slot: int, partials: Partials, state: Tensor) -> None:
        self._direct[slot], self._gates[slot] = partials.direct, partials.gates
        self._own[slot], self._passed[slot] = partials.own, partials.passed
        self._states[slot] = state

    def _slots(self) -> list[int]:
        """Of the steps held, the oldest first."""
        return [step % self.reach for step in range(max(0, self._steps - self.reach), self._steps)]

    def _again(self) -> None:
        """The steps held, with today's weights from the state before the first of them."""
        slots, circuit = self._slots(), self._circuit
        x = self._z @ self._weights["V"].t()
        state = self._states[slots[0]].clone()
        for slot in slots:
            settled = circuit.settle(self._weights, state)
            self._keep(slot, circuit.partials(settled, x[slot]), state)
            state = circuit.step(settled, x[slot])

    def _back(self) -> Weights:
        """(1) to (3)."""
        slots = self._slots()
        through = self._through()
        delta = torch.zeros_like(self._backs[0])
        for slot in reversed(slots):
            delta = torch.add(delta, self._backs[slot], out=self._deltas[slot])
            du = torch.sum(self._gates[slot] * delta, dim=1, out=self._du[slot])
            delta = through(du, (self._direct[slot] * delta.unsqueeze(1)).sum(dim=0))
        held = slice(0, len(slots))  # of a sum over steps the order is no matter
        deltas, du, states = self._deltas[held], self._du[held], self._states[held]
        parts = {
            gate.name: self._gate_gradient(du[:, index], states[:, gate.reads])
            for index, gate in enumerate(self._circuit.cell.gates)
        }
        own = (self._own[held] * deltas.unsqueeze(1)).sum(dim=(0, 2))
        parts |= dict(zip(self._circuit.cell.own, own, strict=True))
        parts["V"] = (self._passed[held] * deltas).sum(dim=1).t() @ self._z[held]
        return parts

    def _through(self) -> Callable[[Tensor, Tensor], Tensor]:
        """From du (G x n) and what came directly (K x n, changed) to delta one step earlier, equation (2)."""
        circuit, gates = self._circuit, self._circuit.cell.gates
        if circuit.gates == "dense":
            turned = [(gate.reads, self._weights[gate.name].t()) for gate in gates]

            def dense(du: Tensor, delta: Tensor) -> Tensor:
                for index, (reads, weight) in enumerate(turned):
                    delta[reads].addmv_(weight, du[index])
                return delta

            return dense
        reads = torch.tensor([gate.reads for gate in gates], device=self._backs.device)
        stacked = torch.stack([self._weights[gate.name] for gate in gates])
        if circuit.gates == "two-point":
            return lambda du, delta: delta.index_add_(0, reads, stacked * du)
        blocks = stacked.transpose(-1, -2)

        def modular(du: Tensor, delta: Tensor) -> Tensor:
            moved = blocks @ du.view(len(gates), -1, circuit.block, 1)
            return delta.index_add_(0, reads, moved.view(len(gates), -1))

        return modular

    def _gate_gradient(self, du: Tensor, sources: Tensor) -> Tensor:
        """(3) of one gate: du and what it reads, T x n each."""
        if self._circuit.gates == "dense":
            return du.t() @ sources
        if self._circuit.gates == "two-point":
            return (du * sources).sum(dim=0)
        b = self._circuit.block
        return torch.einsum("tib,tic->ibc", du.view(len(du), -1, b), sources.reshape(len(du), -1, b))


class FullRtrl(Credit):
    """Equation (4): the effect of every weight on every number of the state."""

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
        return Step(credit, self._use(parts, rates) if parts else 0.0, 0)

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
