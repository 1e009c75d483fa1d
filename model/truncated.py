"""Truncated back-propagation through time, written by hand: what a step of forward propagation is timed against.

With the partial derivatives of model/rgc.py, t from now on backwards and T steps of the past,

    J_t         = direct_t + sum_g (d s' / d u_g)_t W_g                                    (1)
    delta_{t-1} = dE_{t-1}/ds_{t-1} + J_t^T delta_t                                        (2)
    du_g,t      = sum_k (d s'_k / d u_g)_t delta_k,t                                       (3)
    dE/dW_g     = sum_t du_g,t source_t^T, as one matrix product over all t; V alike       (4)

Step by step goes (2) alone, and the states where they are made anew; all else is done for all steps at once. Two-point
and modular gates keep J. Dense gates, whose J would be as many n x n matrices as steps, go through du and W^T instead.
Held against model/reference.py in tests. Letters: n units in N blocks of b, m features, K numbers of state, G gates,
F things that move a unit: the arguments of its gates, its own weights, its input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.config import ModelConfig
from model.learner import Learner
from model.one_pass import Step
from model.rfp import Sensitivities
from model.rgc import Circuit, Partials, Weights
from model.rivals import Credit

AT_ONCE = 16384
"""Units, of so many steps as have them: what is derived of them stays in the second cache."""


class Local:
    """The way back through gates that read their own unit or block alone: a product and a sum a step."""

    def __init__(self, circuit: Circuit, weights: Weights, moved: Tensor, reach: int) -> None:
        """``moved``: d s' / d u of the steps, G x K x T x n, which the owner fills; ``weights`` change in place."""
        self._gates, self._weights, self._moved = circuit.cell.gates, weights, moved
        k, b = circuit.components, circuit.block
        blocks = circuit.units // b
        self.jacobians = moved.new_zeros(reach, k, b, k, b, blocks)
        """Of each step; of a row of them each number is another block's, so that it is long."""
        self._deltas = moved.new_zeros(reach, k, b, blocks)
        self._room = moved.new_zeros(k * b, k * b, blocks)
        self._steps = list(  # views are made once
            zip(
                self.jacobians.view(reach, k * b, k * b, blocks).unbind(),
                self._deltas.view(reach, k * b, 1, blocks).unbind(),
                self._deltas.view(reach, k * b, blocks).unbind(),
                strict=True,
            )
        )

    def keep(self, at: slice, direct: Tensor) -> None:
        """The direct part of (1) for the steps ``at``: K x K x T x n."""
        jacobians = self.jacobians[at]
        if jacobians.shape[2] > 1:
            jacobians.zero_()
        on_itself = jacobians.diagonal(dim1=2, dim2=4)  # T x K x K x N x b
        on_itself.copy_(direct.reshape(*direct.shape[:3], *on_itself.shape[3:]).permute(2, 0, 1, 3, 4))

    def form(self, at: slice) -> None:
        """The gates' part of (1) for the steps ``at``, with the weights as they are."""
        jacobians = self.jacobians[at]
        b, blocks = jacobians.shape[-2:]
        moved = self._moved[:, :, at]
        moved = moved.view(*moved.shape[:3], blocks, b).permute(0, 2, 1, 4, 3).contiguous()
        for gate, each in zip(self._gates, moved, strict=True):  # T x K x b x N
            weight = self._weights[gate.name].view(blocks, b, b).permute(1, 2, 0).contiguous()
            jacobians[:, :, :, gate.reads].addcmul_(each.unsqueeze(3), weight)

    def back(self, slots: list[int], backs: dict[int, Tensor]) -> Tensor:
        """(2): delta after each step, K x T x n. ``slots``: oldest first; ``backs``: dE/ds after some of them."""
        newest = slots[-1]
        self._deltas[newest] = self._blocks_last(backs[newest])
        for earlier, later in zip(slots[-2::-1], slots[:0:-1], strict=True):
            delta = self._steps[earlier][-1]
            self._earlier(later, delta)
            if earlier in backs:
                delta.view(self._deltas.shape[1:]).add_(self._blocks_last(backs[earlier]))
        return self._deltas[: len(slots)].permute(1, 0, 3, 2).flatten(-2)

    def gradient(self, du: Tensor, sources: Tensor) -> Tensor:
        """(4) of one gate: du and what it reads, T x n each."""
        b = self._deltas.shape[2]
        if b == 1:
            return (du * sources).sum(dim=0)
        return torch.bmm(du.view(len(du), -1, b).permute(1, 2, 0), sources.view(len(du), -1, b).transpose(0, 1))

    def _earlier(self, later: int, delta: Tensor) -> None:
        """J^T delta of the step ``later`` into ``delta``, Kb x N."""
        jacobian, across, _ = self._steps[later]
        torch.mul(jacobian, across, out=self._room)
        torch.sum(self._room, dim=0, out=delta)

    def _blocks_last(self, back: Tensor) -> Tensor:
        """K x b x N of K x n."""
        return back.view(len(back), -1, self._deltas.shape[2]).transpose(1, 2)


class Dense(Local):
    """The way back through gates that read every unit, with the weights as they are."""

    def __init__(self, circuit: Circuit, weights: Weights, moved: Tensor, reach: int) -> None:
        """See :class:`Local`."""
        super().__init__(circuit, weights, moved, reach)
        self._moved_by_step = moved.unbind(2)
        self._turned = [(gate.reads, weights[gate.name].t()) for gate in self._gates]

    def form(self, at: slice) -> None:
        """Nothing: the direct part is all of J that is kept."""

    def gradient(self, du: Tensor, sources: Tensor) -> Tensor:
        """See :class:`Local`."""
        return du.t() @ sources

    def _earlier(self, later: int, delta: Tensor) -> None:
        super()._earlier(later, delta)
        du = (self._moved_by_step[later] * self._steps[later][-1]).sum(dim=1)
        for (reads, weight), each in zip(self._turned, du.unbind(), strict=True):
            delta[reads].addmv_(weight, each)


class Onward:
    """The next state alone, no derivative, of a cell with gates: (1) and (2), or (3) to (5), of model/rgc.py."""

    def __init__(self, config: ModelConfig, circuit: Circuit, weights: Weights) -> None:
        self._circuit, self._names = circuit, [gate.name for gate in circuit.cell.gates]
        self._reads = torch.tensor([gate.reads for gate in circuit.cell.gates], device=weights["V"].device)
        self._weights, self._config = weights, config

    def states(self, start: Tensor, x: Sequence[Tensor], states: Sequence[Tensor], arguments: Sequence[Tensor]) -> None:
        """From ``start`` (K x n) with each input (n): the states before the steps (K x n) and the gates' arguments
        (G x n), into the room given."""
        apply, retain = self._applied(), self._retained()
        biases = self._biases()
        state = start.clone()
        for each, before, u in zip(x, states, arguments, strict=True):
            before.copy_(state)
            apply(before, u)
            t = torch.tanh(u if biases is None else u + biases)
            state = torch.addcmul(retain(t[:2], before).add_(each), t[2:], each, value=-1.0)

    def _biases(self) -> Tensor | None:
        """G x n: of the gates that retain; those that let x pass have none."""
        if self._config.cell == "paper":
            return None
        biases = torch.stack([self._weights["beta_h"], self._weights["beta_c"]])
        return torch.cat([biases, torch.zeros_like(biases)])

    def _retained(self) -> Callable[[Tensor, Tensor], Tensor]:
        """From tanh of the retaining gates and the state, 2 x n each, to what is retained."""
        if self._config.cell == "paper":
            if self._config.retention == "tanh":
                return torch.mul
            return lambda t, state: torch.addcmul(state, t, state, value=-1.0)
        cos, sin = self._weights["theta"].cos(), self._weights["theta"].sin()
        turn = torch.stack([cos, -sin, sin, cos]).view(2, 2, -1) * self._config.bound
        return lambda t, state: (turn * (t * state)).sum(dim=1)

    def _applied(self) -> Callable[[Tensor, Tensor], object]:
        """From the state to the gates' arguments, into the room given."""
        b, weights = self._circuit.block, [self._weights[name] for name in self._names]
        if self._circuit.gates == "dense":
            reads = self._reads.tolist()

            def dense(state: Tensor, u: Tensor) -> None:
                for index, weight in enumerate(weights):
                    torch.mv(weight, state[reads[index]], out=u[index])

            return dense
        stacked = torch.stack(weights)
        if self._circuit.gates == "two-point":
            return lambda state, u: torch.mul(stacked, state[self._reads], out=u)
        blocks = stacked.view(-1, b, b)
        return lambda state, u: torch.bmm(blocks, state[self._reads].view(-1, b, 1), out=u.view(-1, b, 1))


class Truncated(Credit):
    """Back-propagation through ``reach`` steps, at every fixation or once in ``every``: then every loss of them counts.

    ``anew``: the steps are made again with today's weights, which is truncated back-propagation to the letter. Without,
    it goes back through the steps as they were made, which saves half and mixes weights of many steps, as RFP does:
    states and partial derivatives are those of their time, and so is J; dense gates' W alone is today's.
    """

    def __init__(self, learner: Learner, *, reach: int, every: int = 1, anew: bool = False) -> None:
        super().__init__(learner)
        self.reach, self._every, self._anew = reach, every, anew
        circuit, like = self._circuit, learner.parameters.flat
        cell, k, n = circuit.cell, circuit.components, circuit.units
        self._gates = len(cell.gates)
        self._effects = like.new_zeros(self._gates + len(cell.own) + 1, k, reach, n)
        """d s' / d each of the F things that move a unit."""
        self._states = like.new_zeros(reach, k, n)
        """Before each step."""
        self._z = like.new_zeros(reach, learner.config.features)
        self._backs: dict[int, Tensor] = {}
        moved = self._effects[: self._gates]
        self._way = (Dense if circuit.gates == "dense" else Local)(circuit, self._weights, moved, reach)
        self._onward = Onward(learner.config, circuit, self._weights)
        self._arguments = like.new_zeros(reach, self._gates, n)
        self._steps, self._formed = 0, 0

    def state_bytes(self) -> int:
        """The steps remembered."""
        kept = [self._states, self._z]
        if not self._anew:
            kept += [self._effects, self._way.jacobians]
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
        after: Tensor,
    ) -> Step:
        """See :class:`Credit`."""
        parts: Weights | None = None
        if back is not None:
            self._optimiser.begin()  # the weights no credit passes through learn at every step
            if self._every == 1:
                self._backs.clear()
            self._backs[(self._steps - 1) % self.reach] = back
            if self._steps % self._every == 0:
                parts = self._back()
        self._keep(partials, state, z)
        if parts is None:
            return Step(credit)
        self._form()  # the step just made too, before its weights change
        return Step(credit, self._use(parts, rates))

    def _keep(self, partials: Partials, state: Tensor, z: Tensor) -> None:
        slot = self._steps % self.reach
        self._backs.pop(slot, None)
        self._states[slot], self._z[slot] = state, z
        if not self._anew:
            effects = (partials.gates, partials.own, partials.passed.unsqueeze(0))
            torch.cat(effects, out=self._effects[:, :, slot])
            self._way.keep(slice(slot, slot + 1), partials.direct.unsqueeze(2))
        self._steps += 1

    def _form(self) -> None:
        """J of the steps that have none yet."""
        first = max(self._formed, self._steps - self.reach)
        self._formed = self._steps
        if self._anew or first == self._steps:
            return
        begin, end = first % self.reach, (self._steps - 1) % self.reach + 1
        for at in [slice(begin, end)] if begin < end else [slice(begin, self.reach), slice(0, end)]:
            self._way.form(at)

    def _slots(self) -> list[int]:
        """Of the steps held, the oldest first."""
        return [step % self.reach for step in range(max(0, self._steps - self.reach), self._steps)]

    def _again(self, slots: list[int]) -> Tensor:
        """The steps held, with today's weights from the state before the first of them; the states, T x K x n."""
        circuit, held = self._circuit, slice(0, len(slots))
        x = self._z[held] @ self._weights["V"].t()
        states, arguments = self._states[held].clone(), self._arguments[held]
        x_of, state_of, arguments_of = ([rows[slot] for slot in slots] for rows in (x, states, arguments))
        self._onward.states(self._states[slots[0]], x_of, state_of, arguments_of)
        some = max(1, AT_ONCE // circuit.units)
        for first in range(0, len(slots), some):
            at = slice(first, min(first + some, len(slots)))
            self._derive(at, x[at], states[at], arguments[at])
        return states

    def _derive(self, at: slice, x: Tensor, states: Tensor, arguments: Tensor) -> None:
        """The partial derivatives of the steps ``at``: a cell takes the units of several for as many units."""
        cell, names = self._circuit.cell, self._circuit.cell.own
        own = {name: self._weights[name].repeat(len(x)) for name in names}
        settled = cell.settle(own, arguments.transpose(0, 1).flatten(1), states.transpose(0, 1).flatten(1))
        partials = self._circuit.partials(settled, x.flatten())
        effects = torch.cat((partials.gates, partials.own, partials.passed.unsqueeze(0)))
        self._effects[:, :, at] = effects.view(*effects.shape[:2], *x.shape)
        self._way.keep(at, partials.direct.view(*partials.direct.shape[:2], *x.shape))
        self._way.form(at)

    def _back(self) -> Weights:
        """(1) to (4)."""
        slots = self._slots()
        held = slice(0, len(slots))  # of a sum over steps the order is no matter
        states = self._again(slots) if self._anew else self._states[held]
        self._form()
        deltas = self._way.back(slots, self._backs)
        moved = self._effects[:, 0, held] * deltas[0]  # F x T x n: (3), and alike of all else
        for effect, delta in zip(self._effects[:, :, held].unbind(1)[1:], deltas[1:], strict=True):
            moved.addcmul_(effect, delta)
        cell = self._circuit.cell
        parts = {
            gate.name: self._way.gradient(du, states[:, gate.reads])
            for gate, du in zip(cell.gates, moved[: self._gates], strict=True)
        }
        parts |= dict(zip(cell.own, moved[self._gates : -1].sum(dim=1), strict=True))
        parts["V"] = moved[-1].t() @ self._z[held]
        return parts
