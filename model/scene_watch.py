"""Rank, probe and retrieval of one learner on one stream: the diagnostics' measures that need no twin and no gradient.

They are those of model/diagnostics.py by the same parts (frozen_rank.py, readout.py, retrieval.py) at a tenth of its
cost, and over a part of the stream that is named, not the last 5,000 fixations. Rank is the mean over every
1,000 fixations of that part.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from model import frozen_rank, retrieval
from model.evidence import MOST_FEATURES, MOST_STATE, Projection
from model.learner import Learner, Watched
from model.readout import BLOCK, Kind, Layout, Readout, Readouts
from model.ring import Ring


class SceneWatch:
    """Watches ``learner`` from its first step; what is measured is measured from :meth:`begin` on."""

    def __init__(self, learner: Learner) -> None:
        config = learner.config
        self._learner = learner
        self._first_input = learner.network.weights["V"].clone()
        self._frozen = frozen_rank.frozen_map(learner.network.weights, config.components)
        self._z = Projection(config.features, MOST_FEATURES)
        self._p = Projection(config.embedding_size, MOST_STATE)
        m = self._z.size
        layout = Layout([Kind("one", 1), Kind("z", m), Kind("prediction", self._p.size)])
        probes = {name: Readout(layout.columns(("one", name)), m) for name in ("z", "prediction")}
        self._readouts = Readouts(layout, [probes], m)
        self._rows, self._targets = torch.zeros(BLOCK, layout.size), torch.zeros(BLOCK, m)
        self._counted: list[bool] = []
        self._scores: list[Tensor] = []
        """Squared errors of the running mean, of the readout from z and of that from p."""
        self._features = Ring(retrieval.EARLIER + 2, config.features)
        self._trials: list[Tensor] = []
        self._embeddings: list[Tensor] = []
        self._inputs: list[Tensor] = []
        self._predictions = 0
        self._measured = False
        self.took_s = 0.0
        """Time spent here, for who wants the learner's alone."""
        learner.watch = self._watch

    def begin(self) -> None:
        """What comes from here on counts."""
        self._measured = True

    def close(self) -> None:
        """Watch no longer."""
        self._learner.watch = None

    def _watch(self, seen: Watched) -> None:
        begun = time.perf_counter()
        assert seen.made is not None
        attempt, before = seen.made.attempt, seen.made.own.kept
        self._features.add(seen.z.cpu())
        if self._measured:
            self._embeddings.append(seen.made.new.y.cpu())
            self._inputs.append((self._first_input @ seen.z).cpu())
        if attempt is not None and before is not None:
            self._probe(seen, before, attempt.predicted.p)
            self._retrieve(seen, before)
        self.took_s += time.perf_counter() - begun

    def _probe(self, seen: Watched, before: Tensor, p: Tensor) -> None:
        place, zbar = len(self._counted), self._z(seen.carry)
        torch.cat([torch.ones(1), self._z(before), self._p(p)], out=self._rows[place])
        self._targets[place] = self._z(seen.z) - zbar
        self._counted.append(self._measured)
        if len(self._counted) == BLOCK:
            self._score(self._readouts.take(self._rows, self._targets))

    def _score(self, errors: dict[str, Tensor]) -> None:
        held = len(self._counted)
        mean = self._targets[:held].square().mean(dim=1)
        table = torch.stack([mean, errors["z"], errors["prediction"]], dim=1)
        self._scores.append(table[torch.tensor(self._counted)])
        self._counted = []

    def _retrieve(self, seen: Watched, before: Tensor) -> None:
        self._predictions += 1
        due = self._predictions % retrieval.EVERY == 0 and self._features.held == retrieval.EARLIER + 2
        if not (self._measured and due and seen.made is not None):
            return
        earlier = self._features.rows()[:-2]
        trial = retrieval.trial(self._learner.network, seen.made, seen.z, before, earlier)
        if trial is not None:
            self._trials.append(trial)

    def told(self) -> dict[str, Any]:
        """Means over what counts; None where that is too little."""
        held = len(self._counted)
        if held:
            self._score(self._readouts.scores(self._rows[:held], self._targets[:held]))
        found = retrieval.measure(torch.stack(self._trials) if self._trials else torch.zeros(0, 2))
        mean, now, prediction = torch.cat(self._scores or [torch.zeros(0, 3)]).to(torch.float64).sum(dim=0).tolist()
        return {
            "rank_ratio": self._rank(),
            "probe": 1.0 - prediction / mean if mean else None,
            "probe_features": 1.0 - now / mean if mean else None,
            "retrieval": found.prediction,
            "retrieval_trivial": found.copy_last,
        }

    def _rank(self) -> float | None:
        """The mean ratio over consecutive windows; a last, shorter one counts where there is no other."""
        ratios = []
        for first in range(0, max(len(self._embeddings) - frozen_rank.WINDOW, 0) + 1, frozen_rank.WINDOW):
            window = slice(first, first + frozen_rank.WINDOW)
            if self._embeddings[window]:
                rows = torch.stack(self._embeddings[window]), torch.stack(self._inputs[window])
                ratios.append(frozen_rank.measure(*rows, self._frozen).ratio)
        known = [ratio for ratio in ratios if ratio is not None]
        return sum(known) / len(known) if known else None
