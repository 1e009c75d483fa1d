"""The dense step in one pass over memory: gradient, optimiser and sensitivities together, row by row, in place.

With n x n gates the sensitivities (two numbers for each of some 4 n^2 weights), the weights and the optimiser's moments
are larger than any cache, and each pass over them costs as much as all the arithmetic. What of a unit i is read and
written lies in row i of each, so for each row, in the order of the learning step:

    g   = dh S_h + dc S_c                       Eq. 4, with S before it advances
    m, v, w                                     the optimiser's step (model/optimiser.py)
    S   <- A_i S + drive_i source               with A and drives of the weights before this step

Nothing as large is allocated in a step; S, weights and moments are changed where they lie. Two ways, by the choice
``dense_step``: ``torch``, on tiles of rows that stay in cache, on any device; ``compiled``, by
model/one_pass_compiled.py. Both give what model/rfp.py and the optimiser give, up to rounding.

Because it writes as it goes, it must be known beforehand that no number of the gradient is anything but finite. Of g

    sum g^2 <= 2 F b^2 sum_i (dh_i^2 + dc_i^2),     b a bound of |S|, F weights of a unit                           (1)

and S has a bound since what passes the limit is cut. Where (1) does not settle it, or the gradient is to be shown, it
is computed on its own first.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from model.config import ModelConfig
from model.guard import squares
from model.optimiser import Optimiser, Rule
from model.parameters import GROUPS, Parameters
from model.rfp import Propagation, Sensitivities
from model.rgc import Partials, Weights

_TILE = 262144
"""Numbers of one weight in a tile of rows on the CPU: so many that asking torch for an operation is little beside doing
it, and few enough that what twenty of them read and write again is near."""


class Segment(NamedTuple):
    """One weight's part of every row."""

    name: str
    column: int
    """Its first column in a row of S."""
    width: int
    place: int
    """Where its rows begin in the flat parameters; -1 where it is not learned."""


class Known(NamedTuple):
    """What a step knows of every row, F columns in segments."""

    jacobian: Tensor
    """n x 2 x 2: A."""
    factors: Tensor
    """segments x 2 x n: what of a source moves h and c."""
    sources: Tensor
    """segments x max(n, m): what each weight of a segment reads, from the left."""
    back: Tensor | None
    """2 x n: dE/ds; None where nothing is learned."""
    rates: list[float]
    """Of each segment."""
    after: Tensor
    """2 x n: the state after the step."""


class Step(NamedTuple):
    """What one pass made."""

    credit: Sensitivities
    """S, where it was."""
    squares: Tensor | None = None
    """sum dw^2 of the weights in it; None where nothing was learned."""
    reach: Tensor | None = None
    """2: the least and the largest number of S, not yet looked at; None where what passed the limit was cut."""
    cut: int = 0
    """Units whose sensitivities passed the limit and start again from zero."""


class Pass(Protocol):
    """What finds the gradient through time and learns from it in one go."""

    rest: slice
    """Of the flat parameters: those through which no credit passes, and which are not its own."""
    rest_names: list[str]

    def surely_finite(self, credit: Sensitivities, back: float, rest: float) -> bool:
        """Whether no number of the gradient can be anything but finite; from the sums of squares of dE/ds, and of the
        gradient of the other weights."""
        ...

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
        """One step of the optimiser begun, its weights changed, the credit carried on. ``after``: the next state."""
        ...

    def arguments(self, weights: Weights, state: Tensor) -> Tensor | None:
        """The gates' arguments in ``state``, where they are known or made here."""
        ...

    def learn_rest(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """The rest of that step: sum dw^2. ``gradient`` and ``rates`` are of the weights at ``rest``."""
        ...


class Kernel(Protocol):
    """One way through memory: changes S, weights and moments."""

    def run(self, credit: Sensitivities, known: Known, rule: Rule | None, limit: float) -> Step:
        """With the rows past ``limit`` cut, or S's reach told. ``credit``: n x 2 x F."""
        ...

    def arguments(self, state: Tensor) -> Tensor | None:
        """W s of each gate, G x n; None where that is left to others."""
        ...

    def learn_rest(self, place: slice, gradient: Tensor, rates: Tensor) -> Tensor:
        """The step begun, of the weights at ``place``, whose gradient is known: sum dw^2."""
        ...


def fits(config: ModelConfig) -> bool:
    """Whether each step's gradient is used at that step and nowhere else: then no step has to keep it."""
    choices = config.learning
    return config.gates == "dense" and choices.credit == "rfp" and choices.update == "step" and choices.losses == "step"


class OnePass:
    """One circuit's dense step; its scratch is made once."""

    def __init__(
        self,
        config: ModelConfig,
        propagation: Propagation,
        parameters: Parameters,
        optimiser: Optimiser,
    ) -> None:
        self._propagation, self._optimiser = propagation, optimiser
        self._limit = config.sensitivity_limit
        self._segments = [
            Segment(name, columns.start, columns.stop - columns.start, parameters.place(name))
            for name, columns in propagation.columns.items()
        ]
        self._reads = [gate.reads for gate in propagation.circuit.cell.gates]
        flat, widest = parameters.flat, max(config.units, config.features)
        self._read = torch.tensor(self._reads, device=flat.device)
        self._sources = flat.new_ones(len(self._segments), widest)
        ends = [part.place + part.width * config.units for part in self._segments if part.place >= 0]
        self.rest = slice(max(ends, default=0), flat.numel())
        """Of the flat parameters: those through which no credit passes."""
        self.rest_names = [name for name in parameters.learned if name not in propagation.columns]
        self._weights = parameters.by_name
        self._kernel = _kernel(config, self._segments, flat, optimiser, self._reads)

    def surely_finite(self, credit: Sensitivities, back: float, rest: float) -> bool:
        """Whether (1) says so, and ``rest``; half the range is left to rounding."""
        if credit.within is None:
            return False
        most = 2.0 * credit.values.shape[-1] * credit.within * credit.within * back
        return most + rest < torch.finfo(credit.values.dtype).max / 2.0

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
        """S advanced, and with ``back`` = dE/ds_t (2 x n) every weight in it learned.

        ``partials`` and ``state`` (2 x n) are those of the step before which S was; ``rates`` by group.
        """
        jacobian = self._propagation.jacobian(partials, weights)
        factors = torch.cat([partials.gates, partials.own, partials.passed.unsqueeze(0)])
        units = state.shape[1]
        torch.index_select(state, 0, self._read, out=self._sources[: len(self._reads), :units])
        self._sources[-1, : z.numel()] = z
        rule = None if back is None else self._optimiser.begin()
        chosen = [rates.get(GROUPS[part.name], 0.0) for part in self._segments]
        known = Known(jacobian, factors, self._sources, back, chosen, after)
        return self._kernel.run(Sensitivities(credit.values, self._limit), known, rule, self._limit)

    def arguments(self, weights: Weights, state: Tensor) -> Tensor | None:
        """See :class:`Pass`: of the weights that it changes itself, and no copy of them."""
        return self._kernel.arguments(state) if weights is self._weights else None

    def learn_rest(self, gradient: Tensor, rates: Tensor) -> Tensor:
        """See :class:`Pass`."""
        return self._kernel.learn_rest(self.rest, gradient, rates)


def change(flat: Tensor, optimiser: Optimiser, place: slice, gradient: Tensor, rates: Tensor) -> Tensor:
    """The weights at ``place`` changed in the step begun: sum dw^2."""
    delta = optimiser.change(gradient, rates, place)
    flat[place].add_(delta)
    return squares(delta)


def cut(credit: Sensitivities, limit: float) -> int:
    """Units whose sensitivities pass ``limit`` or are not finite start again from zero, in place; how many."""
    over = ~(credit.values.abs().amax(dim=(1, 2)) <= limit)
    credit.values.masked_fill_(over.view(-1, 1, 1), 0.0)
    return int(over.sum())


def _kernel(
    config: ModelConfig, segments: list[Segment], flat: Tensor, optimiser: Optimiser, reads: list[int]
) -> Kernel:
    if config.dense_step == "compiled":
        from model.one_pass_compiled import Compiled

        return Compiled(segments, flat, optimiser.state, reads)
    return Tiles(segments, flat, optimiser)


class Tiles:
    """In torch, some rows at a time."""

    def __init__(self, segments: list[Segment], flat: Tensor, optimiser: Optimiser) -> None:
        self._segments, self._flat, self._optimiser, self._moments = segments, flat, optimiser, optimiser.state
        widest = max(part.width for part in segments)
        tile = max(_TILE, widest)
        self._scratch = flat.new_empty(2, tile if flat.device.type == "cpu" else 0)
        self._widest = widest

    def run(self, credit: Sensitivities, known: Known, rule: Rule | None, limit: float) -> Step:
        """See :class:`Kernel`."""
        values = credit.values
        units = values.shape[0]
        if self._scratch.shape[1] == 0:  # one tile: caches are no concern there
            self._scratch = self._flat.new_empty(2, units * self._widest)
        rows = min(units, self._scratch.shape[1] // self._widest)
        changes, ends = [], []
        for first in range(0, units, rows):
            tile = slice(first, min(units, first + rows))
            back = None if known.back is None else known.back[:, tile]
            for index, part in enumerate(self._segments):
                pair = values[tile, :, part.column : part.column + part.width]
                if rule is not None and back is not None and part.place >= 0:
                    changes.append(self._learn(pair, part, tile, back, rule, known.rates[index]))
                source = known.sources[index, : part.width]
                self._advance(pair, known.jacobian[tile], known.factors[index, :, tile], source)
            ends.append(torch.stack(torch.aminmax(values[tile])))
        low, high = torch.stack(ends).unbind(dim=1)
        reach = torch.stack([low.min(), high.max()])
        return Step(credit, torch.stack(changes).sum() if changes else None, reach)

    def arguments(self, state: Tensor) -> Tensor | None:
        """See :class:`Kernel`: torch's own product."""
        return None

    def learn_rest(self, place: slice, gradient: Tensor, rates: Tensor) -> Tensor:
        """See :class:`Kernel`."""
        return change(self._flat, self._optimiser, place, gradient, rates)

    def _spare(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Two scratch matrices of the shape of ``like``."""
        first, second = self._scratch[:, : like.numel()].view(2, *like.shape).unbind()
        return first, second

    def _learn(self, pair: Tensor, part: Segment, tile: slice, back: Tensor, rule: Rule, rate: float) -> Tensor:
        """Gradient and the optimiser's step of one weight's rows: sum dw^2."""
        h, c = pair.unbind(dim=1)
        g, spare = self._spare(h)

        def rows(flat: Tensor) -> Tensor:
            return flat[part.place + tile.start * part.width :][: h.numel()].view_as(h)

        torch.mul(h, back[0].unsqueeze(1), out=g)
        g.addcmul_(c, back[1].unsqueeze(1))
        if rule.adam:
            m, v = rows(self._moments["m"]), rows(self._moments["v"])
            m.mul_(rule.keep_m).add_(g, alpha=1.0 - rule.keep_m)
            v.mul_(rule.keep_v).addcmul_(g, g, value=1.0 - rule.keep_v)
            torch.sqrt(v, out=spare).mul_(rule.root).add_(rule.epsilon)
            torch.div(m, spare, out=g)
        rate *= rule.scale
        rows(self._flat).add_(g, alpha=-rate)
        flat = g.view(-1)
        return (flat @ flat) * (rate * rate)

    def _advance(self, pair: Tensor, jacobian: Tensor, factors: Tensor, source: Tensor) -> None:
        """S <- A S + factors source, of one weight's rows."""
        h, c = pair.unbind(dim=1)
        spare, _ = self._spare(h)
        to_h, to_c = jacobian.unsqueeze(-1).unbind(dim=1)  # rows x 2 x 1: from h, from c
        torch.mul(h, to_c[:, 0], out=spare)
        h.mul_(to_h[:, 0]).addcmul_(c, to_h[:, 1]).addcmul_(factors[0].unsqueeze(1), source)
        c.mul_(to_c[:, 1]).add_(spare).addcmul_(factors[1].unsqueeze(1), source)
