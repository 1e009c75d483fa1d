"""Recurrent forward propagation: credit for the circuit's weights, carried forward and never stored.

Letters: n units, m features, K numbers of state per unit, b units of a block, F weights that reach one
unit (or block). For a unit's own pair s = (h, c), A the K x K Jacobian of a step, S = d s / d weights:

    S' = A S + drives                                                                     (advance)
    dE/dw = sum_k (dE/ds_k) S_k                                                           (Eq. 4)

    drives   gate W_ij:   (d s' / d u_i) source_j          with ``two-point`` j = i
             own weights: d s' / d w_i
             V_ij:        (d s' / d x_i) z_j
    A        direct part, plus (d s' / d u_i) W_ii for each gate, in the column of what it reads

``two-point`` carries K x F for each unit: all there is, so the gradient is exact. ``modular`` carries whole
blocks, Kb x F for each, and is exact too. ``dense`` carries K x F for each unit as well, only the effect on a
unit's own pair: an approximation (SnAp-1 with K x K blocks; Menick et al. 2020), exact only while the
off-diagonal Jacobian vanishes. (Checked against back-propagation through time in tests/model.)
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import ModelConfig
from model.rgc import Circuit, Partials, Weights


class Sensitivities(NamedTuple):
    """d state / d weights: of each weight, only on its own unit's (or block's) state."""

    values: Tensor
    """n/b x Kb x F: blocks, their numbers of state (component by component), weights as ``columns`` has them."""
    within: float | None = None
    """What no number of them passes, where that is known."""


def is_exact(config: ModelConfig) -> bool:
    """Whether the gradients equal back-propagation through time, weights held fixed over the window."""
    return config.gates != "dense" and config.learning.credit == "rfp"


@cache
def _places(of: tuple[int, ...], device: torch.device) -> Tensor:
    """``of`` as an index, which goes to a device once; not to be changed."""
    return torch.tensor(of, dtype=torch.long, device=device)


class Propagation:
    """Zero, advance and gradient of the sensitivities of one circuit, with V of n x ``features``.

    ``columns``: by name, which of the F columns are a weight's; of a block's rows, row by row.
    """

    def __init__(self, circuit: Circuit, features: int) -> None:
        self.circuit = circuit
        cell, b = circuit.cell, circuit.block
        self._reads = tuple(gate.reads for gate in cell.gates)
        per_row = circuit.units if circuit.gates == "dense" else b
        widths = {name: b * per_row for name in circuit.gate_names} | {name: b for name in cell.own}
        widths["V"] = b * features
        self.columns: dict[str, slice] = {}
        end = 0
        for name, width in widths.items():
            self.columns[name] = slice(end, end := end + width)
        self._widths = list(widths.values())

    def zero(self, like: Tensor) -> Sensitivities:
        """No weight has had an effect yet; dtype and device of ``like``."""
        circuit = self.circuit
        rows, numbers = circuit.units // circuit.block, circuit.components * circuit.block
        return Sensitivities(like.new_zeros(rows, numbers, sum(self._widths)), 0.0)

    def jacobian(self, partials: Partials, weights: Weights) -> Tensor:
        """A, n/b x Kb x Kb: d state' / d state within a unit (or block)."""
        circuit, gates = self.circuit, self.circuit.cell.gates
        if circuit.gates == "modular":
            return self._block_jacobian(partials, weights)
        a = partials.direct
        if gates:
            dense = circuit.gates == "dense"
            own = torch.stack([weights[gate.name].diagonal() if dense else weights[gate.name] for gate in gates])
            through = partials.gates * own.unsqueeze(1)  # G x K x n
            a = a.index_add(1, _places(self._reads, a.device), through.transpose(0, 1))
        return a.permute(2, 0, 1).contiguous()

    def _block_jacobian(self, partials: Partials, weights: Weights) -> Tensor:
        circuit = self.circuit
        b, components = circuit.block, circuit.components
        a = partials.direct.new_zeros(circuit.units // b, components, b, components, b)
        # direct: K x K x n -> blocks x K x K x b, laid on the diagonals
        direct = partials.direct.reshape(components, components, -1, b).permute(2, 0, 1, 3)
        a.diagonal(dim1=2, dim2=4).copy_(direct)
        moved = partials.gates.view(-1, components, circuit.units // b, b).permute(2, 1, 3, 0)
        blocks = torch.stack([weights[gate.name] for gate in circuit.cell.gates], dim=2)  # n/b x b x G x b
        a.index_add_(3, _places(self._reads, a.device), moved.unsqueeze(-1) * blocks.unsqueeze(1))
        return a.view(-1, components * b, components * b)

    def drives(self, partials: Partials, state: Tensor, z: Tensor, room: Tensor | None = None) -> Tensor:
        """n/b x Kb x F: what each weight does to the next state at once; ``state`` is the one before the step.

        ``room`` of that shape is where they are written; without one they are given memory.
        """
        circuit, gates = self.circuit, self.circuit.cell.gates
        sources = torch.stack([state[gate.reads] for gate in gates]) if gates else state.new_zeros(0, circuit.units)
        if circuit.gates == "modular":
            return self._block_drives(partials, sources, z, room)
        if circuit.gates == "dense":  # n x K x G x n, what is read last
            driven = partials.gates.permute(2, 1, 0).unsqueeze(-1) * sources
            moved = driven.reshape(circuit.units, circuit.components, -1)
        else:
            moved = (partials.gates * sources.unsqueeze(1)).permute(2, 1, 0)
        own, passed = partials.own.permute(2, 1, 0), partials.passed.t().unsqueeze(-1)
        return torch.cat([moved, own, passed * z], dim=-1, out=room)

    def _block_drives(self, partials: Partials, sources: Tensor, z: Tensor, room: Tensor | None) -> Tensor:
        """A weight of row i moves unit i's numbers alone: zero where row and unit differ."""
        circuit = self.circuit
        b, components = circuit.block, circuit.components
        gates, own, blocks = len(partials.gates), len(partials.own), circuit.units // b
        first = gates * b * b  # columns: gate, row, what it reads; then own weight, row; then row of V, feature
        shape = (blocks, components, b, sum(self._widths))
        drives = z.new_zeros(shape) if room is None else room.view(shape).zero_()
        on_itself = drives[..., :first].view(blocks, components, b, gates, b, b).diagonal(dim1=2, dim2=4)
        factors = partials.gates.view(gates, components, blocks, b).permute(2, 1, 0, 3)  # blocks x K x G x b
        read = sources.view(gates, blocks, b).transpose(0, 1)[:, None].unsqueeze(-1)  # blocks x 1 x G x b x 1
        torch.mul(factors.unsqueeze(3), read, out=on_itself)
        on_itself = drives[..., first : first + own * b].view(blocks, components, b, own, b).diagonal(dim1=2, dim2=4)
        on_itself.copy_(partials.own.view(own, components, blocks, b).permute(2, 1, 0, 3))
        on_itself = drives[..., first + own * b :].view(blocks, components, b, b, z.numel()).diagonal(dim1=2, dim2=3)
        passed = partials.passed.view(components, blocks, b).transpose(0, 1)
        torch.mul(passed.unsqueeze(-1), z, out=on_itself.transpose(2, 3))
        return drives.view(-1, components * b, sum(self._widths))

    def advance(self, sensitivities: Sensitivities, jacobian: Tensor | None, drives: Tensor) -> Sensitivities:
        """S' = A S + drives, in the place of ``drives``; with no Jacobian the past is dropped (one-step, a control)."""
        if jacobian is None:
            return Sensitivities(drives)
        return Sensitivities(drives.baddbmm_(jacobian, sensitivities.values))

    def gradient(self, sensitivities: Sensitivities, back: Tensor, room: Tensor | None = None) -> Weights:
        """Eq. 4: dE/dw by name from ``back`` = dE/d state (K x n); n/b x (a block's rows, as ``columns`` has them).

        ``room`` of the shape of S is where its terms are written; without one they are given memory."""
        by_block = (
            back.reshape(back.shape[0], -1, self.circuit.block)
            .transpose(0, 1)
            .reshape(-1, sensitivities.values.shape[1])
        )
        total = torch.mul(by_block.unsqueeze(-1), sensitivities.values, out=room).sum(dim=1)
        return dict(zip(self.columns, torch.split(total, self._widths, dim=1), strict=True))

    def cut(self, sensitivities: Sensitivities, limit: float, strength: float) -> tuple[Sensitivities, int]:
        """Units (blocks) whose sensitivities pass ``limit`` or are not finite start again from zero; how many units.

        ``strength``: the sum of all their squares.
        """
        values = sensitivities.values
        if strength < 0.5 * limit * limit:  # then no number passes it, and all are finite
            return sensitivities, 0
        low, high = torch.aminmax(values)
        if float(low) >= -limit and float(high) <= limit:
            return sensitivities, 0
        over = ~(values.abs().amax(dim=(1, 2)) <= limit)
        return Sensitivities(values.masked_fill(over.view(-1, 1, 1), 0.0)), int(over.sum()) * self.circuit.block
