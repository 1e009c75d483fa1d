"""The same learner over several sequences side by side: one update of the weights for all of them.

A group of B sequences is B streams of one learner, taken in by turns: fixation 0 of each in order, then fixation 1 of
each, and so on, as B people would be learned from live. So

    state, credit, place memory    each sequence its own, from zero
    running statistics             take in every fixation, in that order
    predictor ``rls``              learns at every fixation, in that order: B T updates of recursive least squares
    all other weights              held while the group lasts, then changed once, by the mean over the group of
                                   each sequence's summed gradient

Credit through time is carried forward, or (``bptt``) by back-propagation through the whole sequence, the B sequences
in one graph (model/through_time.py); all else is the same. A step that is not finite is refused and begins its
sequence anew, what it had gathered is lost; a mean that is not finite changes nothing, and is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from model.config import ModelConfig
from model.guard import energy
from model.host import Later
from model.learner import Learner, Outcome
from model.network import Attempt, Imagined, Network
from model.rank import RankWindow
from model.rfp import Sensitivities
from model.sequences import FixationSequence
from model.snapshot import Snapshot
from model.stream import StreamState
from model.through_time import ThroughTime

Gradient = Literal["rfp", "bptt"]
GRADIENTS: tuple[Gradient, ...] = ("rfp", "bptt")


def offline(config: ModelConfig) -> ModelConfig:
    """``config``, its weights changed by whoever learns and not by the learner itself."""
    learning = config.learning.model_dump() | {"update": "sequence", "sequence_length": None}
    return ModelConfig.parse(config.model_dump() | {"learning": learning})


class SpatialNetwork(Network):
    """Carries no credit forward: the gradients of the circuit's weights are zero here, and found elsewhere or not."""

    def credit(
        self, own: StreamState, new: Imagined, z: Tensor, room: Tensor | None = None
    ) -> tuple[Sensitivities, Tensor | None]:
        """See :class:`Network`."""
        return own.sensitivities, None

    def _gradient(self, own: StreamState, back: Tensor, parts: dict[str, Tensor], room: Tensor | None = None) -> Tensor:
        names = self.parameters.learned
        return self.parameters.gather({name: parts.get(name, torch.zeros_like(self.weights[name])) for name in names})


class SpatialLearner(Learner):
    """A learner with a :class:`SpatialNetwork`: the same start, statistics and predictions."""

    of = SpatialNetwork


class SideBySide:
    """A learner, and what changes its weights. ``config`` is what it will be elsewhere; see the module's table."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        gradient: Gradient,
        seed: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.device = device
        self.refused_updates = 0
        """Groups whose gradient was not finite."""
        kind = _Held if gradient == "rfp" else _HeldSpatial
        self.learner = kind(offline(config), seed=seed, device=device, dtype=dtype)
        self._through_time = ThroughTime(self.learner) if gradient == "bptt" else None

    def take(self, group: Sequence[FixationSequence], *, learning: bool) -> list[Outcome]:
        """Every fixation of the group, in its order; the weights change at its end if ``learning``.

        Sequences must be of one length.
        """
        learner = self.learner
        learner.set_learning(learning)
        names = [f"row-{number}" for number in range(len(group))]
        outcomes = []
        for t in range(len(group[0].z)):
            for name, sequence in zip(names, group, strict=True):
                look = sequence.looks[t]
                outcomes.append(learner.observe(name, sequence.z[t], look, start=t == 0, marked=True))
        if learning:
            self._change(names)
        for name in names:
            learner.forget(name)
        if self._through_time is not None:
            self._through_time.forget()
        learner.set_learning(True)
        return outcomes

    def mean_gradient(self, names: Sequence[str]) -> Tensor | None:
        """Over the streams ``names``, laid out as the parameters; None where nothing was learned from."""
        pending = [self.learner.own[name].pending for name in names]
        found = [gradient for gradient in pending if gradient is not None]
        if not found:
            return None
        summed = found[0].clone()
        for gradient in found[1:]:
            summed += gradient
        if self._through_time is not None:
            summed = self._through_time.in_place_of_forward(summed, names)
        return summed / len(names)

    @torch.no_grad()
    def _change(self, names: Sequence[str]) -> None:
        gradient = self.mean_gradient(names)
        if gradient is None:
            return
        if not math.isfinite(energy(gradient)):
            self.refused_updates += 1
            return
        self.learner.change(gradient)

    def snapshot(self) -> Snapshot:
        """Between two groups: the learner as ``config`` has it; a learner made with that loads it."""
        tensors, meta = self.learner.snapshot()
        return Snapshot(tensors, meta | {"config": self.config.model_dump(mode="json")})

    def load(self, snapshot: Snapshot) -> None:
        """Go on from what :meth:`snapshot` gave. Raises :class:`ModelError` where it does not fit."""
        self.learner.load(_as(snapshot, self.config, self.learner.config))


class _Held(Learner):
    """A learner whose weights change when it is told so."""

    def change(self, gradient: Tensor) -> float:
        """One step of the optimiser; the norm of the change."""
        later = Later()
        changed = self.update.apply(gradient, later)
        later.read()
        return changed()


class _HeldSpatial(_Held, SpatialLearner):
    """The same without credit carried forward."""


class Examiner(SpatialLearner):
    """Predicts sequences that are never learned from: weights, predictor and statistics stay as they were loaded."""

    def __init__(self, config: ModelConfig, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        super().__init__(offline(config), seed=0, device=device, dtype=dtype)
        self._served = config

    def examine(self, snapshot: Snapshot, sequences: Sequence[FixationSequence]) -> Iterator[list[Outcome]]:
        """The outcomes of each sequence, each from the zero state, with the learner in ``snapshot``.

        ``rank`` then has their embeddings alone.
        """
        self.load(_as(snapshot, self._served, self.config))
        self.set_learning(False)
        self.rank = RankWindow(self.config.embedding_size, self._like)
        usual = self.usual.level, self.usual.count
        for sequence in sequences:
            outcomes = []
            for t, (z, look) in enumerate(zip(sequence.z, sequence.looks, strict=True)):
                outcomes.append(self.observe(sequence.stream, z, look, start=t == 0, marked=True))
                self.usual.level, self.usual.count = usual
            self.forget(sequence.stream)
            yield outcomes

    def _remember(self, own: StreamState, new: Imagined, z: Tensor, attempt: Attempt | None, marked: bool) -> None:
        self.rank.add(new.y)


def _as(snapshot: Snapshot, config: ModelConfig, other: ModelConfig) -> Snapshot:
    """The snapshot of a learner made with ``config``, for one made with ``other``; another's is left as it is."""
    found: dict[str, Any] = snapshot.meta["config"]
    if found != config.model_dump(mode="json"):
        return snapshot
    return Snapshot(snapshot.tensors, snapshot.meta | {"config": other.model_dump(mode="json")})
