"""Recurrent forward propagation: credit for the circuit's weights, carried forward and never stored.

Letters: n units, m features, K numbers of state per unit, b units of a block, F weights that reach one
unit (or block). For a unit's own pair s = (h, c), A the K x K Jacobian of a step, S = d s / d weights:

    S' = A S + drives                                                                     (advance)
    dE/dw = sum_k (dE/ds_k) S_k                                                           (Eq. 4)

    drives   gate W_ij:   (d s' / d u_i) source_j          with ``two-point`` j = i
             own weights: d s' / d w_i
             V_ij:        (d s' / d x_i) z_j
    A        direct part, plus (d s' / d u_i) W_ii for each gate, in the column of what it reads

``two-point`` and ``dense`` carry K x n x F: only the effect on a unit's own pair. For two-point gates that
is all there is, and the gradient is exact; for dense ones it is an approximation (SnAp-1 with K x K
blocks; Menick et al. 2020), exact only while the off-diagonal Jacobian vanishes. ``modular`` carries whole
blocks, n/b x Kb x F, and is exact. (Checked against back-propagation through time in tests/model.)
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from model.config import ModelConfig
from model.rgc import Circuit, Partials, Weights

Drives = dict[str, Tensor]


class Sensitivities(NamedTuple):
    """d state / d weights: of each weight, only on its own unit's (or block's) state."""

    values: Tensor
    """K x n x F (two-point, dense) or n/b x Kb x F (modular); F runs over the weights in the order of ``widths``."""


def is_exact(config: ModelConfig) -> bool:
    """Whether the gradients equal back-propagation through time, weights held fixed over the window."""
    return config.gates != "dense" and config.learning.credit == "rfp"


class Propagation(Protocol):
    """Zero, advance and gradient of the sensitivities of one circuit."""

    widths: dict[str, int]
    """Weights by name, V last, and how many of each reach one unit (or block)."""

    def zero(self, like: Tensor) -> Sensitivities:
        """No weight has had an effect yet; dtype and device of ``like``."""
        ...

    def jacobian(self, partials: Partials, weights: Weights) -> Tensor:
        """A, K x K x n (or n/b x Kb x Kb): d state' / d state within a unit (or block)."""
        ...

    def drives(self, partials: Partials, state: Tensor, z: Tensor) -> Drives:
        """What each weight does to the next state at once; ``state`` is the one before the step."""
        ...

    def advance(self, sensitivities: Sensitivities, jacobian: Tensor | None, drives: Drives) -> Sensitivities:
        """S' = A S + drives; with no Jacobian the past is dropped (the one-step gradient, a control)."""
        ...

    def gradient(self, sensitivities: Sensitivities, back: Tensor) -> Weights:
        """Eq. 4: dE/dw by name, shaped as the weights, from ``back`` = dE/d state (K x n)."""
        ...

    def cut(self, sensitivities: Sensitivities, limit: float) -> tuple[Sensitivities, int]:
        """Units (blocks) whose sensitivities pass ``limit`` or are not finite start again from zero; how many units."""
        ...


def make_propagation(circuit: Circuit, features: int) -> Propagation:
    """The sensitivities of ``circuit`` with V of n x ``features``."""
    kind = BlockPropagation if circuit.gates == "modular" else UnitPropagation
    return kind(circuit, features)


class UnitPropagation:
    """Two-point gates (exact) and dense gates (approximate): K x n x F."""

    def __init__(self, circuit: Circuit, features: int) -> None:
        self._circuit = circuit
        self._features = features
        self._dense = circuit.gates == "dense"
        width = circuit.units if self._dense else 1
        self.widths = (
            {name: width for name in circuit.gate_names} | {name: 1 for name in circuit.cell.own} | {"V": features}
        )

    def zero(self, like: Tensor) -> Sensitivities:
        """See :class:`Propagation`."""
        return Sensitivities(like.new_zeros(self._circuit.components, self._circuit.units, sum(self.widths.values())))

    def jacobian(self, partials: Partials, weights: Weights) -> Tensor:
        """A_i, K x K x n."""
        a = partials.direct.clone()
        for gate, moved in zip(self._circuit.cell.gates, partials.gates, strict=True):
            weight = weights[gate.name]
            a[:, gate.reads] += moved * (weight.diagonal() if self._dense else weight)
        return a

    def drives(self, partials: Partials, state: Tensor, z: Tensor) -> Drives:
        """K x n x width by name."""
        found: Drives = {}
        for gate, moved in zip(self._circuit.cell.gates, partials.gates, strict=True):
            source = state[gate.reads]
            found[gate.name] = moved.unsqueeze(-1) * source if self._dense else (moved * source).unsqueeze(-1)
        for name, moved in zip(self._circuit.cell.own, partials.own, strict=True):
            found[name] = moved.unsqueeze(-1)
        found["V"] = partials.passed.unsqueeze(-1) * z
        return found

    def advance(self, sensitivities: Sensitivities, jacobian: Tensor | None, drives: Drives) -> Sensitivities:
        """S_k' = sum_l A_kl S_l + drives_k, row by row."""
        driven = torch.cat([drives[name] for name in self.widths], dim=-1)
        if jacobian is None:
            return Sensitivities(driven)
        for k in range(self._circuit.components):
            for l in range(self._circuit.components):  # noqa: E741 - A_kl
                driven[k].addcmul_(jacobian[k, l].unsqueeze(-1), sensitivities.values[l])
        return Sensitivities(driven)

    def gradient(self, sensitivities: Sensitivities, back: Tensor) -> Weights:
        """Eq. 4."""
        total = back[0].unsqueeze(-1) * sensitivities.values[0]
        for k in range(1, self._circuit.components):
            total.addcmul_(back[k].unsqueeze(-1), sensitivities.values[k])
        return _named(self._circuit, self._features, self.widths, total)

    def cut(self, sensitivities: Sensitivities, limit: float) -> tuple[Sensitivities, int]:
        """See :class:`Propagation`."""
        values = sensitivities.values
        if _within(values, limit):
            return sensitivities, 0
        over = ~(values.abs().amax(dim=(0, 2)) <= limit)
        return Sensitivities(values.masked_fill(over.view(1, -1, 1), 0.0)), int(over.sum())


class BlockPropagation:
    """Modular gates (exact): n/b x Kb x F, a block's Kb numbers of state ordered component by component."""

    def __init__(self, circuit: Circuit, features: int) -> None:
        self._circuit = circuit
        self._features = features
        b = circuit.block
        self.widths = {n: b * b for n in circuit.gate_names} | {n: b for n in circuit.cell.own} | {"V": b * features}

    def zero(self, like: Tensor) -> Sensitivities:
        """See :class:`Propagation`."""
        circuit = self._circuit
        blocks = circuit.units // circuit.block
        return Sensitivities(like.new_zeros(blocks, circuit.components * circuit.block, sum(self.widths.values())))

    def jacobian(self, partials: Partials, weights: Weights) -> Tensor:
        """A of a block, n/b x Kb x Kb."""
        circuit = self._circuit
        b, components = circuit.block, circuit.components
        # direct: K x K x n -> blocks x K x K x b, laid on the diagonals of blocks x K x b x K x b
        direct = partials.direct.reshape(components, components, -1, b).permute(2, 0, 1, 3)
        a = torch.diag_embed(direct).permute(0, 1, 3, 2, 4).contiguous()
        for gate, moved in zip(circuit.cell.gates, partials.gates, strict=True):
            by_block = moved.view(components, -1, b).permute(1, 0, 2)
            a[:, :, :, gate.reads] += by_block.unsqueeze(-1) * weights[gate.name].unsqueeze(1)
        return a.view(-1, components * b, components * b)

    def drives(self, partials: Partials, state: Tensor, z: Tensor) -> Drives:
        """n/b x Kb x width by name: a weight of row i moves unit i's numbers alone."""
        found: Drives = {}
        for gate, moved in zip(self._circuit.cell.gates, partials.gates, strict=True):
            found[gate.name] = self._spread(moved, state[gate.reads].view(-1, 1, 1, self._circuit.block))
        one = state.new_ones(1, 1, 1, 1)
        for name, moved in zip(self._circuit.cell.own, partials.own, strict=True):
            found[name] = self._spread(moved, one)
        found["V"] = self._spread(partials.passed, z.view(1, 1, 1, -1))
        return found

    def _spread(self, moved: Tensor, source: Tensor) -> Tensor:
        """(K x n) by what it reads -> blocks x Kb x (b * len), zero where row and unit differ."""
        b, components = self._circuit.block, self._circuit.components
        by_row = torch.diag_embed(moved.view(components, -1, b).permute(1, 0, 2))  # blocks x K x b x b
        spread = by_row.unsqueeze(-1) * source.unsqueeze(1)  # blocks x K x b x b x len
        return spread.reshape(spread.shape[0], components * b, -1)

    def advance(self, sensitivities: Sensitivities, jacobian: Tensor | None, drives: Drives) -> Sensitivities:
        """S' = A S + drives, block by block."""
        driven = torch.cat([drives[name] for name in self.widths], dim=-1)
        return Sensitivities(driven if jacobian is None else torch.baddbmm(driven, jacobian, sensitivities.values))

    def gradient(self, sensitivities: Sensitivities, back: Tensor) -> Weights:
        """Eq. 4, summed over the block's numbers of state."""
        circuit = self._circuit
        by_block = (
            back.view(circuit.components, -1, circuit.block)
            .permute(1, 0, 2)
            .reshape(-1, 1, circuit.components * circuit.block)
        )
        total = torch.bmm(by_block, sensitivities.values).squeeze(1)
        return _named(circuit, self._features, self.widths, total)

    def cut(self, sensitivities: Sensitivities, limit: float) -> tuple[Sensitivities, int]:
        """See :class:`Propagation`."""
        values = sensitivities.values
        if _within(values, limit):
            return sensitivities, 0
        over = ~(values.abs().amax(dim=(1, 2)) <= limit)
        return Sensitivities(values.masked_fill(over.view(-1, 1, 1), 0.0)), int(over.sum()) * self._circuit.block


def _named(circuit: Circuit, features: int, widths: dict[str, int], total: Tensor) -> Weights:
    """Rows of all weights side by side, taken apart by name and shaped as the weights."""
    shapes = {name: circuit.gate_shape for name in circuit.gate_names} | {"V": (circuit.units, features)}
    parts = zip(widths, torch.split(total, list(widths.values()), dim=-1), strict=True)
    return {name: part.reshape(shapes.get(name, (circuit.units,))) for name, part in parts}


def _within(values: Tensor, limit: float) -> bool:
    """Whether every number is finite and within ``limit`` (false where there is a NaN)."""
    return float(values.abs().amax()) <= limit
