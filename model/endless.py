"""One learner on a stream without an end, told part by part: does it stay what it was?

Each part's row has the skill of that part alone (the first without its first 500 fixations), rank beside the frozen
network's over its last 1,000 fixations, and the largest number of any state in it. Between two parts the run can be
kept and gone on with, with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.action import Look
from model.config import ModelConfig
from model.learner import Learner
from model.ledger import Ledger
from model.ring import WARM
from model.snapshot import Snapshot
from model.stream_run import told_skill

_STREAM = "endless"
Row = dict[str, Any]


class EndlessRun:
    """:meth:`part` by part."""

    def __init__(self, config: ModelConfig, *, seed: int) -> None:
        self._learner = Learner(config, seed=seed)
        self._ledger = Ledger(self._learner)
        self.rows: list[Row] = []
        """Of the parts there were."""

    def part(
        self,
        features: NDArray[np.float32],
        looks: Sequence[Look | None],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> Row:
        """Every fixation once, in order, going on from the last part. ``features``: (T, m); ``looks``: T."""
        begun = time.perf_counter()
        self._ledger.clear()
        for at, (z, look) in enumerate(zip(features, looks, strict=True)):
            self._ledger.note(_STREAM, z, self._learner.observe(_STREAM, z, look))
            if progress is not None and at % 100 == 99:
                progress(100)
        rank = self._ledger.rank()
        self.rows.append(
            {
                **told_skill(self._ledger.skill(warm=0 if self.rows else WARM, most=len(features))),
                "effective_rank": rank.now,
                "rank_ratio": rank.ratio,
                "largest_state": self._ledger.largest_state,
                "cut_units": self._learner.cut_units,
                "skipped": self._ledger.skipped,
                "ms_per_fixation": 1000.0 * (time.perf_counter() - begun) / max(len(features), 1),
            }
        )
        return self.rows[-1]

    def pack(self) -> Snapshot:
        """Everything there is to go on from."""
        tensors, meta = self._learner.snapshot()
        return Snapshot(tensors, {"learner": meta, "rows": self.rows})

    def unpack(self, snapshot: Snapshot) -> None:
        """Go on from what :meth:`pack` gave. Raises ModelError where that is of another model."""
        self._learner.load(Snapshot(snapshot.tensors, snapshot.meta["learner"]))
        self.rows = list(snapshot.meta["rows"])
