"""Gradient fidelity: is what recurrent forward propagation gives the gradient of the loss?

Of each stream the last 200 to 250 steps are kept as they were made, in a ring. Losses count in the last 100 to 150
(in whole blocks of 50 and the present one); what lies before gives the state and its past. Held against
back-propagation through time from the ring's start (model/reference.py), all at *today's* weights, in float64:

    exactness   RFP computed anew over the same steps by the learner's own network, S = 0 at the ring's start
    live        the gradients the learner really had, summed: S is a mixture over past weights, with a longer past
    credit      the same, but what is propagated back through time are the errors as the learner had them

as cosine and relative error over all weights that credit is carried for. Exactness of two-point and modular gates is
rounding (1e-13); of dense gates it is not. Live staleness is inherent in updating every step. The predictor has a part
in it: once it has been fitted to the window (with many inputs and few fixations, to every error in it) today's errors
are not those it was learned from, and live is low though nothing is wrong; credit is free of that. So an approximate
learner is doubtful where both are under 0.9, and any learner is lost where both are under 0.5.

What they can't show: whether the gradient leads anywhere (see skill), or dependences longer than the ring.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model import reference
from model.learner import Learner, Watched
from model.network import Network
from model.parameters import CREDITED, GROUPS
from model.reading import Told
from model.ring import Ring

BLOCK = 50
_KEPT_BLOCKS = 2
_LEAD = 100
STEPS = _LEAD + (_KEPT_BLOCKS + 1) * BLOCK
"""Steps kept of a stream."""
_POSITION, _COUNTS, _AIMED, _ERROR = range(4)


class Fidelity(NamedTuple):
    """One gradient held against another; None where that is zero, a cosine of 0 where one is not finite."""

    cosine: float | None
    relative_error: float | None

    def told(self) -> dict[str, float | None]:
        """JSON-able."""
        return self._asdict()


NOTHING = Fidelity(None, None)


class Kept(NamedTuple):
    """A stream's steps, ready to be held against another algorithm."""

    start: Tensor
    """K x n: the state before the first."""
    window: list[Watched]
    counts: list[bool]
    """Which losses are summed."""
    backs: Tensor
    """steps x q: dE/dy_t as the learner had it."""
    live: Tensor
    """The gradients the learner had for those, summed: one vector."""


def credited(learner: Learner) -> list[str]:
    """The weights whose gradient needs credit through time."""
    return [name for name in learner.parameters.learned if GROUPS[name] in CREDITED]


class FidelityWindow:
    """One stream's ring of steps, and the sums of its gradients by block."""

    def __init__(self, learner: Learner) -> None:
        config = learner.config
        self._names = credited(learner)
        told = learner.network.reader.size - config.embedding_size - 1
        self._state = (config.components, config.units)
        self._widths = [config.features] * 2 + [config.embedding_size] * 2
        self._widths += [told, 2, config.embedding_size, config.components * config.units]
        self._rows = Ring(STEPS, sum(self._widths), learner.dtype)
        self._notes = Ring(STEPS, 4, torch.float64)
        size = sum(learner.network.weights[name].numel() for name in self._names)
        self._sums = torch.zeros(_KEPT_BLOCKS + 1, size, dtype=learner.dtype)
        begins = min((learner.parameters.place(name) for name in self._names), default=0)
        self._credited = slice(begins, begins + size)
        """Where these weights lie in a gradient: side by side, in the order of their names."""

    def add(self, seen: Watched) -> None:
        """Take in a step."""
        if not self._names:
            return
        assert seen.made is not None
        if self._rows.count % BLOCK == 0:
            self._sums = torch.cat([self._sums[1:], torch.zeros_like(self._sums[:1])])
        attempt = seen.made.attempt
        gradient = None if attempt is None else attempt.gradient
        if gradient is not None:
            self._sums[-1].add_(gradient[self._credited].cpu())
        told = seen.told if seen.told.numel() else seen.z.new_zeros(self._widths[4])
        aim = seen.z.new_zeros(2) if seen.aim is None else seen.aim
        back = torch.zeros_like(seen.mean) if attempt is None or attempt.back is None else attempt.back
        parts = [seen.z, seen.carry, seen.mean, seen.deviation, told, aim, back, seen.made.own.state.flatten()]
        self._rows.add(torch.cat(parts).cpu())
        error = 0.0 if seen.error is None else seen.error
        self._notes.add((seen.position, gradient is not None, seen.aim is not None, error))

    def kept(self, stream: str) -> Kept | None:
        """What it holds, in float64; None where there is no gradient yet."""
        rows, notes, held = self._rows.rows(), self._notes.rows().tolist(), self._rows.held
        present = (self._rows.count - 1) % BLOCK + 1
        first = max(0, held - present - _KEPT_BLOCKS * BLOCK)
        counts = [index >= first and note[_COUNTS] > 0.0 for index, note in enumerate(notes)]
        if not any(counts):
            return None
        window = []
        rows = rows.to(torch.float64)
        for row, note in zip(rows, notes, strict=True):
            z, carry, mean, deviation, told, aim, _, _ = row.split(self._widths)
            position = int(note[_POSITION])
            error = note[_ERROR] if position else None
            aimed = aim if note[_AIMED] else None
            window.append(Watched(stream, position, z, carry, mean, deviation, told, aimed, error, None))
        start = rows[0, -self._widths[-1] :].view(self._state)
        backs = torch.split(rows, self._widths, dim=1)[-2]
        return Kept(start, window, counts, backs, self._sums.sum(dim=0))

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of everything it holds, and the rest, JSON-able."""
        (rows, count), (notes, _) = self._rows.pack(), self._notes.pack()
        return {"rows": rows, "notes": notes, "sums": self._sums.clone()}, {"count": count}

    def unpack(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError, ValueError or RuntimeError where it does not fit."""
        count = int(meta["count"])
        self._rows.unpack(tensors["rows"], count)
        self._notes.unpack(tensors["notes"], count)
        self._sums.copy_(tensors["sums"])


@torch.enable_grad()
def backward(learner: Learner, kept: Kept) -> Tensor:
    """Back-propagation through time of the losses, as one vector."""
    found = reference.bptt(learner.config, _weights(learner), kept.start, kept.window, kept.counts)
    return torch.cat([found[name].reshape(-1) for name in credited(learner)])


@torch.enable_grad()
def backward_of_errors(learner: Learner, kept: Kept) -> Tensor:
    """Back-propagation through time of sum_t (dE/dy_t) . U s_t, dE/dy_t as the learner had it, as one vector."""
    names, weights = credited(learner), _weights(learner)
    leaves = {name: weight.clone().requires_grad_(name in names) for name, weight in weights.items()}
    whole = reference.written_out(learner.config, leaves)
    state, total = kept.start, kept.start.new_zeros(())
    for seen, counted, back in zip(kept.window, kept.counts, kept.backs, strict=True):
        if seen.position == 0:
            state = torch.zeros_like(kept.start)
        elif counted:
            total = total + back @ (leaves["U"] @ state.flatten())
        state = reference.step(learner.config, whole, state, seen.z)
    wanted = [leaves[name] for name in names]
    found = torch.autograd.grad(total, wanted, allow_unused=True) if total.requires_grad else [None] * len(wanted)
    parts = [torch.zeros_like(leaf) if part is None else part for leaf, part in zip(wanted, found, strict=True)]
    return torch.cat([part.reshape(-1) for part in parts])


def _weights(learner: Learner) -> dict[str, Tensor]:
    """All of today's, float64 on the CPU."""
    weights = {name: weight.to("cpu", torch.float64) for name, weight in learner.network.weights.items()}
    if learner.network.rls is not None:
        weights["P"] = learner.network.rls.weights.cpu()
    return weights


@torch.no_grad()
def forward(learner: Learner, kept: Kept) -> Tensor:
    """RFP over the same steps from S = 0, as one vector: the learner's network, in float64."""
    network = Network(learner.config, torch.Generator(), kept.start)
    for name, weight in network.weights.items():
        weight.copy_(learner.network.weights[name])
    if network.rls is not None and learner.network.rls is not None:
        network.rls.weights.copy_(learner.network.rls.weights)
    blank = network.propagation.zero(kept.start)
    own = replace(learner.blank(), state=kept.start, sensitivities=blank, fresh=False)
    summed = torch.zeros_like(network.parameters.flat)
    for seen, counted in zip(kept.window, kept.counts, strict=True):
        if seen.position == 0:
            own = replace(own, state=torch.zeros_like(kept.start), sensitivities=blank)
        new = network.imagine(own, seen.carry.unsqueeze(0), seen.z)
        if counted:
            told = Told(seen.told, seen.aim, network.reader.moments)
            summed += network.gradient_again(own, new, told, seen.mean, seen.deviation)
        own = replace(own, state=new.state, sensitivities=network.credit(own, new, seen.z)[0])
    parts = network.parameters.split(summed)
    return torch.cat([parts[name].reshape(-1) for name in credited(learner)])


def compare(found: Tensor, truth: Tensor) -> Fidelity:
    """``found`` against ``truth``, of whatever size."""
    found, truth = found.to(torch.float64), truth.to(torch.float64)
    if not bool(torch.isfinite(found).all() and torch.isfinite(truth).all()):
        return Fidelity(0.0, None)
    if not bool(truth.any()):
        return NOTHING
    truth, found = truth / truth.abs().max(), found / truth.abs().max()
    error = float((found - truth).norm() / truth.norm())
    largest = found.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    cosine = float(torch.nn.functional.cosine_similarity(found / largest, truth, dim=0))
    return Fidelity(cosine, error if math.isfinite(error) else None)


def compare_sums(found: list[Tensor], truth: list[Tensor]) -> Fidelity:
    """The sum of ``found`` against the sum of ``truth``; nothing where there are none."""
    return compare(torch.stack(found).sum(dim=0), torch.stack(truth).sum(dim=0)) if found else NOTHING
