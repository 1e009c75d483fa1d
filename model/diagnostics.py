"""Whether learning is real: the measures that can't be flattered, taken while a learner learns.

A :class:`Diagnostics` stands beside one :class:`~model.learner.Learner`, on its thread, and is told of every
fixation after the learner was. It reads the learner and never writes to it: with or without it the weights are the
same bits. What it holds does not grow with the number of fixations: of each measure a window (of up to 16 streams,
and of all streams in journal order), of each readout its sums.

What takes long is done on other threads: whole blocks of evidence are scored on one (model/evidence.py), and what is
told is told of a :class:`~model.moment.Moment`, copies that any thread may read. What needs no weights of the learner
waits until 16 fixations do, or somebody asks (:meth:`Diagnostics.catch_up`): the twin's matrices, and all the code,
then come into the processor's cache once for many, and don't drive out the learner's at every step. No number depends
on when.

The measures are one file each; each says what it can't show:

    skill.py, learned_skill.py (with twin.py), retrieval.py, frozen_rank.py, probe.py (with readout.py, ceiling.py,
    evidence.py), balance.py, position_error.py, extent.py, fidelity.py; intervals by bootstrap.py
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model import extent, frozen_rank, retrieval, skill
from model.errors import ModelError
from model.evidence import Evidence
from model.fidelity import FidelityWindow
from model.learner import Learner, Outcome, Watched
from model.moment import Moment, untaught
from model.noted import Noted, note
from model.ring import Ring
from model.snapshot import Snapshot
from model.twin import Twin
from model.verdict import FIRST
from model.warned import Warned
from model.windows import Windows

MOST_STREAMS = 16
"""Streams that have windows of their own: those fed last."""
_TOGETHER = 4
"""Streams whose gradients are summed when no stream is asked for: those fed last."""
CAUGHT_UP = 15_000
"""Steps after which a twin that began beside a trained learner is compared with it: 10,000 in which its predictor
forgets that it began later, and the 5,000 of a window."""
LOOK_EVERY = 1000
"""Predictions of a stream from one regular look to the next; the first as soon as there is a skill."""
MOST_WAITING = 16
"""Fixations that wait at most."""
FORMAT = "rjepa-diagnostics-1"


class _Stream:
    """One stream's windows."""

    def __init__(self, learner: Learner) -> None:
        config = learner.config
        self.windows = Windows(config.embedding_size, config.units)
        self.gradient = FidelityWindow(learner)
        self.features = Ring(retrieval.EARLIER + 1, config.features)
        self.predictions = 0


class _Waiting(NamedTuple):
    """A fixation that was learned, and not yet taken in."""

    number: int
    own: _Stream
    seen: Noted
    outcome: Outcome
    trial: Tensor | None
    """Of retrieval."""
    rates: dict[str, float]
    """The learner's at the step ..."""
    learning: bool
    """... and whether it learned at all."""


class Diagnostics:
    """Watches ``learner``, which was made with ``seed``. Not thread-safe: it belongs on the learner's thread.

    Wanted for each fixation, in this order: ``learner.observe(...)``, then :meth:`after`.
    """

    taking: Callable[[int], None] | None = None
    """Called with the number of each fixation before it is taken in, and with 0 where that ends out of turn."""

    def __init__(self, learner: Learner, *, seed: int) -> None:
        self._learner = learner
        self._seed = seed
        self._seen: Watched | None = None
        self._trial: Tensor | None = None
        self._predicted = False
        """Whether the last fixation had a prediction."""
        self.clear()
        learner.watch = self._watched

    def clear(self) -> None:
        """Begin anew, here: what the untrained twin is compared with must then wait until it has learned as much."""
        config = self._learner.config
        self._began_at = self._learner.steps
        self._twin = Twin(self._learner, self._seed)
        start = self._twin.network.weights
        self._first_input = start["V"].clone()
        self._frozen = frozen_rank.frozen_map(start, config.components)
        self._evidence = Evidence(self._learner)
        self._all, self._blank = (Windows(config.embedding_size, config.units) for _ in range(2))
        self._streams: dict[str, _Stream] = {}
        self._waiting: list[_Waiting] = []

    def forget(self, stream: str) -> None:
        """Drop the windows of ``stream``; what it gave to the windows of all streams stays."""
        self.catch_up()
        self._streams.pop(stream, None)
        self._evidence.forget(stream)
        self._twin.forget(stream)

    def close(self) -> None:
        """Watch no longer."""
        self._learner.watch = None

    @property
    def _comparable(self) -> bool:
        """Whether the twin's predictor has learned from as much as the learner's."""
        return self._began_at == 0 or self._twin.steps >= CAUGHT_UP

    def _watched(self, seen: Watched) -> None:
        """Called by the learner before weights change: what needs the weights of the step is done here."""
        self._seen, self._trial = seen, None
        own = self._streams.get(seen.stream)
        if own is None or seen.made is None or own.features.held <= retrieval.EARLIER:
            return
        if own.predictions % retrieval.EVERY == 0 and seen.made.own.kept is not None:
            earlier = own.features.rows()[:-1]
            self._trial = retrieval.trial(self._learner.network, seen.made, seen.z, seen.made.own.kept, earlier)

    @torch.no_grad()
    def after(self, stream: str, outcome: Outcome, number: int = 0) -> None:
        """Take in, now or soon, what came of the fixation of ``stream`` that the learner has just observed.

        ``number``: what :attr:`taking` calls it.
        """
        seen, self._seen = self._seen, None
        self._predicted = False
        own = self._of(stream)
        if outcome.skipped is not None or seen is None or seen.stream != stream:
            for windows in (own.windows, self._all):
                windows.skip(outcome.skipped or "unwatched")
            return
        self._predicted = seen.error is not None
        own.gradient.add(seen)
        own.features.add(seen.z.cpu())
        own.predictions += seen.error is not None
        trial, self._trial = self._trial, None
        learner = self._learner
        self._waiting.append(_Waiting(number, own, note(seen), outcome, trial, learner.rates, learner.learning))
        if len(self._waiting) == MOST_WAITING or self.due(stream):
            self._take_all()

    def catch_up(self) -> None:
        """Take in the fixations that wait."""
        if self._waiting:
            self._take_all()
            if self.taking is not None:
                self.taking(0)

    @torch.no_grad()
    def _take_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if self.taking is not None:
                self.taking(each.number)
            twin = self._twin.step(each.seen, each.rates, learning=each.learning)
            if self._evidence.add(each.seen, twin):
                self._land()
                found = {name: own.windows.evidence for name, own in self._streams.items()}
                self._evidence.hand_over([found.get(name) for name in self._evidence.streams])
            self._note(each, twin.error)

    def _of(self, stream: str) -> _Stream:
        """The windows of ``stream``, now the last one fed; beyond 16 the first one goes."""
        if stream not in self._streams:
            self.catch_up()  # what waits belongs to the streams that were fed before this one
        found = self._streams.pop(stream, None) or _Stream(self._learner)
        self._streams[stream] = found
        if len(self._streams) > MOST_STREAMS:
            gone = next(iter(self._streams))
            del self._streams[gone]
        return found

    def _land(self, *, wait: bool = False) -> None:
        """Into the rings with the errors of the blocks that were scored since."""
        for rings, errors in self._evidence.landed(wait=wait):
            for ring, row in zip(rings, errors, strict=True):
                self._all.evidence.add(row)
                if ring is not None:
                    ring.add(row)

    @property
    def busy(self) -> bool:
        """Whether :meth:`pack` would wait."""
        return self._evidence.busy

    def due(self, stream: str) -> bool:
        """Whether the fixation of ``stream`` just taken in is one to look after: a Moment's ``look``."""
        own = self._streams.get(stream)
        return own is not None and self._predicted and (own.predictions == FIRST or own.predictions % LOOK_EVERY == 0)

    def _note(self, each: _Waiting, untrained: float | None) -> None:
        seen, outcome = each.seen, each.outcome
        embedding, reach = seen.y.cpu(), extent.row(seen.after)
        first = (self._first_input @ seen.z).cpu()
        errors = None
        if outcome.prediction_error is not None:
            errors = skill.numbers(outcome.prediction_error, outcome.trivial)
        for windows in (each.own.windows, self._all):
            windows.embeddings.add(embedding)
            windows.inputs.add(first)
            windows.extents.add(reach, outcome.cut_units)
            if errors is not None and outcome.prediction_error is not None:
                windows.errors.add(errors)
                windows.positions.add(
                    outcome.position, outcome.prediction_error, untrained if self._comparable else None
                )
            if each.trial is not None:
                windows.trials.add(each.trial)

    def moment(self, stream: str | None = None) -> Moment:
        """What there is to tell of ``stream``, or of all streams in journal order; a few ms, changes nothing."""
        self.catch_up()
        windows = self._all
        if stream is not None:
            windows = self._streams[stream].windows if stream in self._streams else self._blank
        asked = [stream] if stream is not None else list(self._streams)[-_TOGETHER:]
        gradients = {name: copy.deepcopy(self._streams[name].gradient) for name in asked if name in self._streams}
        newest = stream if stream is not None else next(reversed(self._streams), None)
        return Moment(
            stream,
            copy.deepcopy(windows),
            self._evidence.pending(),
            self._frozen,
            untaught(self._learner),
            gradients,
            newest,
            comparable=self._comparable,
        )

    def representation(self, stream: str | None = None) -> dict[str, Any]:
        """See :meth:`Moment.representation`."""
        return self.moment(stream).representation()

    def gradient(self, stream: str | None = None) -> dict[str, Any]:
        """See :meth:`Moment.gradient`: of ``stream``, or of the sums over the four streams fed last."""
        return self.moment(stream).gradient()

    def warnings(self, stream: str | None = None) -> list[Warned]:
        """See :meth:`Moment.warnings`; once in a thousand fixations or so is enough."""
        return self.moment(stream).warnings()

    def pack(self) -> Snapshot:
        """Everything it holds, as independent copies; the learner's own snapshot is not in it.

        Waits for a block that is being scored, half a second at most.
        """
        self.catch_up()
        self._land(wait=True)
        twin, told_twin = self._twin.pack()
        evidence, told = self._evidence.pack()
        windows, told_all = self._all.pack()
        tensors = _over("twin/", twin) | _over("evidence/", evidence) | _over("all/", windows)
        streams: dict[str, Any] = {}
        for name, own in self._streams.items():
            windows, told_windows = own.windows.pack()
            gradient, told_gradient = own.gradient.pack()
            features, count = own.features.pack()
            parts = {"features": features, **_over("windows/", windows), **_over("gradient/", gradient)}
            tensors |= _over(f"streams/{name}/", parts)
            streams[name] = {
                "windows": told_windows,
                "gradient": told_gradient,
                "features": count,
                "predictions": own.predictions,
            }
        meta = {"format": FORMAT, "twin": told_twin, "evidence": told, "all": told_all, "streams": streams}
        return Snapshot(tensors, {**meta, "seed": self._seed, "began_at": self._began_at, "order": list(streams)})

    def unpack(self, snapshot: Snapshot) -> None:
        """Go on from what :meth:`pack` gave, with the same bits.

        Raises :class:`ModelError` if it does not fit; then everything is forgotten.
        """
        self.clear()
        try:
            self._unpack(snapshot)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            self.clear()
            raise ModelError(
                f"the diagnostics kept are from another version or damaged ({error}); begun anew"
            ) from None

    def _unpack(self, snapshot: Snapshot) -> None:
        tensors, meta = snapshot
        if meta["format"] != FORMAT or meta["seed"] != self._seed:
            raise ValueError(f"format {meta['format']!r}, seed {meta['seed']!r}")
        self._began_at = int(meta.get("began_at", 0))
        self._twin.unpack(_under("twin/", tensors), meta["twin"])
        self._evidence.unpack(_under("evidence/", tensors), meta["evidence"])
        self._all.unpack(_under("all/", tensors), meta["all"])
        for name in meta["order"]:
            told, own = meta["streams"][name], _Stream(self._learner)
            parts = _under(f"streams/{name}/", tensors)
            own.windows.unpack(_under("windows/", parts), told["windows"])
            own.gradient.unpack(_under("gradient/", parts), told["gradient"])
            own.features.unpack(parts["features"], int(told["features"]))
            own.predictions = int(told["predictions"])
            self._streams[name] = own


def _over(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
