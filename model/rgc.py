"""The recurrent circuit: one step, and the partial derivatives recurrent forward propagation needs.

Letters: n units, m features, K numbers of state per unit (h and c: 2), G gates, b units of a block.
All else before the step, x = V z the new input, ``*`` elementwise:

    paper (Nayebi et al. 2022, as in arXiv 2411.16695)
        h' = (1 - tanh(W_ch c)) * x + g(W_hh h) * h                                       (1)
        c' = (1 - tanh(W_hc h)) * x + g(W_cc c) * c                                       (2)
        g = tanh, or 1 - tanh
    bounded (named deviation: a bound rho, retention biases beta, a rotation theta)
        rh = rho tanh(W_hh h + beta_h),  rc = rho tanh(W_cc c + beta_c)                   (3)
        h' = (1 - tanh(W_ch c)) * x + cos(theta) rh h - sin(theta) rc c                   (4)
        c' = (1 - tanh(W_hc h)) * x + sin(theta) rh h + cos(theta) rc c                   (5)
        With rho = 1, beta = theta = 0 it is the paper's. |s'| <= |input| + rho |s| per unit.
    time decay (the paper's Appendix A.4, read as)
        s' = lambda s + x,  lambda = sigmoid(decay)                                       (6)

W_ab reads a and gates the update of b. The argument u_ab of a gate is W_ab applied by one of three
connectivities: ``two-point`` (W is n), ``modular`` (n/b x b x b, block-diagonal), ``dense`` (n x n).

The contract of a cell: given the arguments and the state, a step is affine in x, and so are its partial
derivatives. Gates that retain come first (their partials do not depend on x), then gates that let x pass
(theirs are proportional to it). :class:`Settled` holds all that is known before x, :class:`Partials` the rest.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from model.config import ModelConfig
from model.host import number

Weights = dict[str, Tensor]


class Gate(NamedTuple):
    """One gate: the name of its weights and the component of the state (0 is h, 1 is c) it reads."""

    name: str
    reads: int


class Settled(NamedTuple):
    """A step before its input is known."""

    retained: Tensor
    """K x n: what of the next state does not depend on x."""
    passed: Tensor
    """K x n: d state' / d x."""
    direct: Tensor
    """K x K x n: d state'_k / d state_l of the same unit, the gates' arguments held."""
    retaining: Tensor
    """R x K x n: d state'_k / d u_g of the gates that retain."""
    passing: Tensor
    """Q x K x n: the same of the gates that let x pass, per unit of x."""
    own: Tensor
    """E x K x n: d state'_k / d the weights that read nothing (biases, rotation, decay)."""


class Partials(NamedTuple):
    """The partial derivatives of one step, its input known."""

    direct: Tensor
    """K x K x n, as in :class:`Settled`."""
    gates: Tensor
    """G x K x n: d state'_k / d u_g."""
    own: Tensor
    """E x K x n, as in :class:`Settled`."""
    passed: Tensor
    """K x n, as in :class:`Settled`."""


class Cell(Protocol):
    """The two-point interaction of one unit: everything but where its gates read."""

    components: int
    gates: tuple[Gate, ...]
    """Those that retain first, then those that let x pass."""
    own: tuple[str, ...]
    """Names of the weights that read nothing, n numbers each."""

    def settle(self, weights: Weights, arguments: Tensor, state: Tensor) -> Settled:
        """The step from ``state`` (K x n) with the gates' ``arguments`` (G x n)."""
        ...

    def start(self, units: int, generator: torch.Generator) -> Weights:
        """The weights that read nothing, at the start: float64, n each."""
        ...


_CIRCUIT_GATES = (Gate("W_hh", 0), Gate("W_cc", 1), Gate("W_ch", 1), Gate("W_hc", 0))


def _crosswise(pair: Tensor) -> Tensor:
    """2 x 2 x n with ``pair`` (2 x n) on the diagonal: gate g moves component g alone."""
    return pair.unsqueeze(1) * _one_by_one(pair.dtype, pair.device)


@cache
def _one_by_one(dtype: torch.dtype, device: torch.device) -> Tensor:
    """2 x 2 x 1: the identity; not to be changed."""
    return torch.eye(2, dtype=dtype, device=device).unsqueeze(-1)


class PaperCell:
    """Equations (1) and (2)."""

    components = 2
    gates: tuple[Gate, ...] = _CIRCUIT_GATES
    own: tuple[str, ...] = ()

    def __init__(self, retention: str) -> None:
        self._sign = 1.0 if retention == "tanh" else -1.0
        self._offset = 0.0 if retention == "tanh" else 1.0

    def settle(self, weights: Weights, arguments: Tensor, state: Tensor) -> Settled:
        """Equations (1) and (2): g = tanh is +tanh + 0, g = 1 - tanh is -tanh + 1."""
        t = torch.tanh(arguments)
        slope = 1.0 - t * t
        keep = self._sign * t[:2] + self._offset
        retaining = _crosswise(self._sign * slope[:2] * state)
        nothing = state.new_zeros(0, *state.shape)
        return Settled(keep * state, 1.0 - t[2:], _crosswise(keep), retaining, _crosswise(-slope[2:]), nothing)

    def start(self, units: int, generator: torch.Generator) -> Weights:
        """Nothing: this cell has no weights but its gates."""
        return {}


class BoundedCell:
    """Equations (3) to (5)."""

    components = 2
    gates: tuple[Gate, ...] = _CIRCUIT_GATES
    own: tuple[str, ...] = ("beta_h", "beta_c", "theta")

    def __init__(self, bound: float, spans: tuple[float, float], rotation: float) -> None:
        self._rho = bound
        self._spans = spans
        self._rotation = rotation

    def settle(self, weights: Weights, arguments: Tensor, state: Tensor) -> Settled:
        """Equations (3) to (5); ``turn`` is the rotation by theta, 2 x 2 x n."""
        cos, sin = weights["theta"].cos(), weights["theta"].sin()
        turn = torch.stack([cos, -sin, sin, cos]).view(2, 2, -1)
        biases = torch.stack([weights["beta_h"], weights["beta_c"]])
        t = torch.tanh(torch.cat([arguments[:2] + biases, arguments[2:]]))
        slope = 1.0 - t * t
        direct = turn * (self._rho * t[:2])
        retained = (direct * state).sum(dim=1)
        retaining = (turn * (self._rho * slope[:2] * state)).transpose(0, 1)
        turned = torch.stack([-retained[1], retained[0]])
        own = torch.cat([retaining, turned.unsqueeze(0)])
        return Settled(retained, 1.0 - t[2:], direct, retaining, _crosswise(-slope[2:]), own)

    def start(self, units: int, generator: torch.Generator) -> Weights:
        """rho tanh(beta) evenly over the spans in random order; theta uniform in [0, rotation]."""
        low, high = self._spans
        spans = torch.linspace(low, high, units, dtype=torch.float64) / self._rho
        betas = {name: torch.atanh(spans[torch.randperm(units, generator=generator)]) for name in ("beta_h", "beta_c")}
        theta = torch.rand(units, generator=generator, dtype=torch.float64) * self._rotation
        return {**betas, "theta": theta}


class TimeDecayCell:
    """Equation (6): one number of state per unit, and no gate."""

    components = 1
    gates: tuple[Gate, ...] = ()
    own: tuple[str, ...] = ("decay",)

    def settle(self, weights: Weights, arguments: Tensor, state: Tensor) -> Settled:
        """Equation (6)."""
        keep = torch.sigmoid(weights["decay"])
        none = state.new_zeros(0, *state.shape)
        own = (keep * (1.0 - keep) * state).unsqueeze(0)
        return Settled(keep * state, torch.ones_like(state), keep.view(1, 1, -1), none, none, own)

    def start(self, units: int, generator: torch.Generator) -> Weights:
        """lambda evenly over [0.05, 0.95], in random order."""
        spans = torch.linspace(0.05, 0.95, units, dtype=torch.float64)
        return {"decay": torch.logit(spans[torch.randperm(units, generator=generator)])}


class Circuit:
    """A cell with its gates' connectivity.

    ``weights`` are by name: the gates' W in the connectivity's shape, the cell's own (n each). They may
    be any float dtype; what comes out has the same.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.units = config.units
        self.gates = config.gates
        self.block = config.block if config.gates == "modular" else 1
        """b: units whose state a gate's weight can reach, as far as sensitivities are carried."""
        self.cell = make_cell(config)
        self.components = self.cell.components
        self.gate_names = tuple(gate.name for gate in self.cell.gates)

    @property
    def gate_shape(self) -> tuple[int, ...]:
        """Of one W."""
        if self.gates == "modular":
            return (self.units // self.block, self.block, self.block)
        return (self.units,) if self.gates == "two-point" else (self.units, self.units)

    def start(self, generator: torch.Generator) -> Weights:
        """All weights at the start, float64: the gates zero, the cell's own as it says."""
        gates = {gate.name: torch.zeros(self.gate_shape, dtype=torch.float64) for gate in self.cell.gates}
        return {**gates, **self.cell.start(self.units, generator)}

    def arguments(self, weights: Weights, state: Tensor) -> Tensor:
        """u = W source of every gate, G x n."""
        gates = self.cell.gates
        if not gates:
            return state.new_zeros(0, self.units)
        sources = [state[gate.reads] for gate in gates]
        if self.gates == "two-point":
            return torch.stack([weights[gate.name] for gate in gates]) * torch.stack(sources)
        if self.gates == "dense":
            return torch.stack([weights[gate.name] @ source for gate, source in zip(gates, sources, strict=True)])
        stacked = torch.stack([weights[gate.name] for gate in gates])
        return (stacked @ torch.stack(sources).view(len(gates), -1, self.block, 1)).view(len(gates), -1)

    def settle(self, weights: Weights, state: Tensor, arguments: Tensor | None = None) -> Settled:
        """The step from ``state`` (K x n), its input still unknown; the gates' ``arguments`` where they are known."""
        return self.cell.settle(weights, self.arguments(weights, state) if arguments is None else arguments, state)

    def step(self, settled: Settled, x: Tensor) -> Tensor:
        """The next state, K x n; for several inputs (B x n) from the same state, B x K x n."""
        return settled.retained + settled.passed * x.unsqueeze(-2)

    def partials(self, settled: Settled, x: Tensor) -> Partials:
        """The partial derivatives of the step with input ``x`` (n)."""
        gates = torch.cat([settled.retaining, settled.passing * x])
        return Partials(settled.direct, gates, settled.own, settled.passed)


def make_cell(config: ModelConfig) -> Cell:
    """The cell ``config`` names."""
    if config.cell == "paper":
        return PaperCell(config.retention)
    if config.cell == "bounded":
        return BoundedCell(config.bound, config.spans, config.rotation)
    return TimeDecayCell()


def orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Random, rows x columns, float64: orthonormal rows, or stacked orthogonal maps where there are more rows.

    More rows than columns but no multiple: orthonormal columns, scaled so that a row has norm 1 on average.
    """
    if rows > columns and rows % columns == 0:
        return torch.cat([orthogonal(columns, columns, generator) for _ in range(rows // columns)])
    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    found = torch.linalg.qr(tall)
    q: Tensor = found.Q * torch.sign(torch.diagonal(found.R))
    return q.T.contiguous() if rows <= columns else q * math.sqrt(rows / columns)


def way_to_orthogonal(v: Tensor, most: float) -> tuple[Tensor, float]:
    """(I - V V^T max(1, n/m)^-1) V, and the share of it, at most ``most``, that brings V (n x m) nearer to orthogonal.

    A singular value s (of V over sqrt(n/m), where it is tall) becomes s (1 - share (s^2 - 1)). Past s^2 = 1 + 2/share
    that is a larger one of the other sign, and V runs away; so of the largest no more than half is taken. It is
    held under by the largest sum of a row of V V^T, which near orthogonality is about 1.
    """
    n, m = v.shape
    scale = max(1.0, n / m)
    gram = v.T @ v if n > m else v @ v.T
    squared = v @ gram if n > m else gram @ v
    largest = number(gram.abs().sum(dim=1).amax()) / scale
    return v - squared / scale, min(most, 0.5 / max(largest - 1.0, 0.5))
