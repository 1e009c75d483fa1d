"""Whether learning is real: the measures that can't be flattered, taken while a learner learns.

A :class:`Diagnostics` stands beside one :class:`~model.learner.Learner`, on its thread, and is told of every
fixation after the learner was. It reads the learner and never writes to it: with or without it the weights are the
same bits. What it holds does not grow with the number of fixations: of each measure a window (of up to 16 streams,
and of all streams in journal order), of each readout its sums.

The measures are one file each; each says what it can't show:

    skill.py, learned_skill.py (with twin.py), retrieval.py, frozen_rank.py, probe.py (with readout.py, ceiling.py,
    evidence.py), balance.py, position_error.py, extent.py, fidelity.py; intervals by bootstrap.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model import extent, fidelity, frozen_rank, retrieval
from model.balance import balance, linear_map
from model.errors import ModelError
from model.evidence import COLUMNS as EVIDENCE
from model.evidence import Evidence, Scored
from model.fidelity import Fidelity, FidelityWindow, Kept
from model.frozen_rank import Rank
from model.learner import Learner, Outcome, Watched
from model.place_memory import COLUMNS, ROWS
from model.rfp import is_exact
from model.ring import Ring
from model.skill import row as skill_row
from model.snapshot import Snapshot
from model.twin import Twin
from model.warned import Warned, about_gradient, about_rank, about_skill
from model.windows import Windows

MOST_STREAMS = 16
"""Streams that have windows of their own: those fed last."""
_TOGETHER = 4
"""Streams whose gradients are summed when no stream is asked for: those fed last."""
FORMAT = "rjepa-diagnostics-1"


class _Stream:
    """One stream's windows."""

    def __init__(self, learner: Learner) -> None:
        config = learner.config
        self.windows = Windows(config.embedding_size, config.units)
        self.gradient = FidelityWindow(learner)
        self.features = Ring(retrieval.EARLIER + 1, config.features)
        self.predictions = 0


class Diagnostics:
    """Watches ``learner``, which was made with ``seed``. Not thread-safe: it belongs on the learner's thread.

    Wanted for each fixation, in this order: ``learner.observe(...)``, then :meth:`after`.
    """

    def __init__(self, learner: Learner, *, seed: int) -> None:
        self._learner = learner
        self._seed = seed
        self._seen: Watched | None = None
        self._trial: Tensor | None = None
        self.clear()
        learner.watch = self._watched

    def clear(self) -> None:
        """Forget everything, as if the learner had just begun."""
        config = self._learner.config
        self._twin = Twin(self._learner, self._seed)
        start = self._twin.network.weights
        self._first_input = start["V"].clone()
        self._frozen = frozen_rank.frozen_map(start, config.components)
        self._evidence = Evidence(self._learner)
        self._all, self._blank = (Windows(config.embedding_size, config.units) for _ in range(2))
        self._streams: dict[str, _Stream] = {}

    def forget(self, stream: str) -> None:
        """Drop the windows of ``stream``; what it gave to the windows of all streams stays."""
        self._streams.pop(stream, None)
        self._evidence.forget(stream)
        self._twin.forget(stream)

    def close(self) -> None:
        """Watch no longer."""
        self._learner.watch = None

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
    def after(self, stream: str, outcome: Outcome) -> None:
        """Take in what came of the fixation of ``stream`` that the learner has just observed."""
        seen, self._seen = self._seen, None
        own = self._of(stream)
        if outcome.skipped is not None or seen is None or seen.stream != stream:
            for windows in (own.windows, self._all):
                windows.skip(outcome.skipped or "unwatched")
            return
        twin = self._twin.step(seen, self._learner.rates, learning=self._learner.learning)
        for scored in self._evidence.add(seen, twin):
            self._score(scored)
        own.gradient.add(seen)
        own.features.add(seen.z.cpu())
        own.predictions += seen.error is not None
        self._note(own, seen, outcome, twin.error)

    def _of(self, stream: str) -> _Stream:
        """The windows of ``stream``, now the last one fed; beyond 16 the first one goes."""
        found = self._streams.pop(stream, None) or _Stream(self._learner)
        self._streams[stream] = found
        if len(self._streams) > MOST_STREAMS:
            gone = next(iter(self._streams))
            del self._streams[gone]
        return found

    def _score(self, scored: Scored) -> None:
        self._all.evidence.add(scored.errors)
        own = self._streams.get(scored.stream)
        if own is not None:
            own.windows.evidence.add(scored.errors)

    def _note(self, own: _Stream, seen: Watched, outcome: Outcome, untrained: float | None) -> None:
        assert seen.made is not None
        embedding, reach = seen.made.new.y.cpu(), extent.row(seen.made.new.state)
        first = (self._first_input @ seen.z).cpu()
        errors = None
        if outcome.prediction_error is not None:
            errors = skill_row(outcome.prediction_error, outcome.trivial)
        for windows in (own.windows, self._all):
            windows.embeddings.add(embedding)
            windows.inputs.add(first)
            windows.extents.add(reach, outcome.cut_units)
            if errors is not None and outcome.prediction_error is not None:
                windows.errors.add(errors)
                windows.positions.add(outcome.position, outcome.prediction_error, untrained)
            if self._trial is not None:
                windows.trials.add(self._trial)
        self._trial = None

    def _chosen(self, stream: str | None) -> Windows:
        if stream is None:
            return self._all
        found = self._streams.get(stream)
        return found.windows if found else self._blank

    def _pending(self, stream: str | None) -> Tensor:
        """Evidence's rows not in a ring yet."""
        rows = [scored.errors for scored in self._evidence.pending() if stream is None or scored.stream == stream]
        return torch.stack(rows) if rows else torch.zeros(0, len(EVIDENCE))

    @torch.no_grad()
    def representation(self, stream: str | None = None) -> dict[str, Any]:
        """Everything but the gradient, of ``stream`` or of all streams in journal order; JSON-able.

        A number is None until enough was seen for it (600 fixations for skill and probe, 100 for the ranks).
        Changes nothing; about 0.1 s.
        """
        windows, pending = self._chosen(stream), self._pending(stream)
        found = windows.skill()
        rank, retrieved, read = windows.rank(self._frozen), windows.retrieval(), windows.probe(pending)
        embeddings, reach = windows.embeddings.rows(), windows.extents.measure()
        spread = frozen_rank.covariance(embeddings)
        p = linear_map(self._learner)
        seen = embeddings.shape[0] >= 2
        return {
            "stream": stream,
            "window": max(0, min(windows.errors.held, windows.errors.count - 500)),
            "count": windows.errors.count,
            "skipped": dict(windows.skipped),
            "learning": found.learning and not self._about_rank(windows, rank, pending),
            "skill": found.skill.told(),
            "skill_ar1": found.skill_ar1.value,
            "skill_ar1_interval": found.skill_ar1.told(),
            "opponent": found.opponent,
            "own_skill": found.own_skill,
            "own_skill_against": found.own,
            "learned_skill": windows.learned_skill(pending).told(),
            "effective_rank": rank.now,
            "effective_rank_frozen": rank.frozen,
            "rank_ratio": rank.ratio,
            "spectrum": frozen_rank.spectrum(embeddings),
            "covariance": frozen_rank.picture(spread) if seen else [],
            "retrieval": retrieved.prediction,
            "retrieval_trivial": retrieved.copy_last,
            "retrieval_chance": retrieval.CHANCE,
            "retrieval_trials": retrieved.trials,
            "probe": read.prediction,
            "probe_features": read.now,
            "probe_embedding": read.embedding,
            "probe_untrained": read.untrained,
            "probe_ceiling": read.ceiling,
            "probe_ceiling_told": read.ceiling_told,
            "balance": balance(p, spread) if p is not None and seen else None,
            "error_by_position": windows.positions.told(),
            "largest_state": reach.largest,
            "largest_state_ever": reach.largest_ever,
            "state_rms": reach.rms,
            "cut_units": reach.cut_units,
            "place_memory": self._places(stream),
        }

    def _about_rank(self, windows: Windows, rank: Rank, pending: Tensor) -> list[Warned]:
        return about_rank(rank, windows.probe_lost(pending), *windows.skills_of_halves())

    def _places(self, stream: str | None) -> dict[str, Any] | None:
        """Which cells of the frame are known, how well (0 to 1), row by row from the top; None without the memory."""
        name = stream if stream is not None else next(reversed(self._streams), None)
        own = None if name is None else self._learner.own.get(name)
        if own is None or own.places is None:
            return None
        known = own.places.confidence.cpu().view(ROWS, COLUMNS).tolist()
        return {"stream": name, "columns": COLUMNS, "rows": ROWS, "known": known}

    def gradient(self, stream: str | None = None) -> dict[str, Any]:
        """Exactness, live fidelity and credit of ``stream``, or of the sums over the four streams fed last; JSON-able.

        Changes nothing; about a second per stream.
        """
        names, kept = self._kept(stream)
        truth = [fidelity.backward(self._learner, each) for each in kept]
        anew = [fidelity.forward(self._learner, each) for each in kept]
        live, credit = self._live_and_credit(kept, truth)
        return {
            "stream": stream,
            "streams": names,
            "window": sum(sum(each.counts) for each in kept),
            "rfp_exact": is_exact(self._learner.config),
            "exactness": fidelity.compare_sums(anew, truth).told(),
            "live": live.told(),
            "credit": credit.told(),
            "cut_units": self._learner.cut_units,
        }

    def _kept(self, stream: str | None) -> tuple[list[str], list[Kept]]:
        """The streams asked for that have gradients, and their windows."""
        asked = [stream] if stream is not None else list(self._streams)[-_TOGETHER:]
        found = {name: self._streams[name].gradient.kept(name) for name in asked if name in self._streams}
        held = {name: kept for name, kept in found.items() if kept is not None}
        return list(held), list(held.values())

    def _live_and_credit(self, kept: list[Kept], truth: list[Tensor]) -> tuple[Fidelity, Fidelity]:
        """Summed over the windows."""
        live = [each.live for each in kept]
        of_errors = [fidelity.backward_of_errors(self._learner, each) for each in kept]
        return fidelity.compare_sums(live, truth), fidelity.compare_sums(live, of_errors)

    @torch.no_grad()
    def warnings(self, stream: str | None = None) -> list[Warned]:
        """What is wrong with ``stream``, or with all streams together, now; see :mod:`model.warned`.

        Changes nothing; half a second a stream, so ask once in a thousand fixations or so.
        """
        windows = self._chosen(stream)
        skill = windows.skill()
        _, kept = self._kept(stream)
        live, credit = self._live_and_credit(kept, [fidelity.backward(self._learner, each) for each in kept])
        return [
            *about_skill(skill, *windows.skills_of_halves()),
            *self._about_rank(windows, windows.rank(self._frozen), self._pending(stream)),
            *about_gradient(live, credit, exact=is_exact(self._learner.config)),
        ]

    def pack(self) -> Snapshot:
        """Everything it holds, as independent copies; the learner's own snapshot is not in it."""
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
        return Snapshot(tensors, {**meta, "seed": self._seed, "order": list(streams)})

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
