"""What the measures are taken over: one stream's recent errors and embeddings, or all streams' in journal order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model import frozen_rank, learned_skill, probe, retrieval, skill
from model.bootstrap import Interval
from model.evidence import COLUMNS as EVIDENCE
from model.extent import Extents
from model.frozen_rank import Rank
from model.position_error import PositionErrors
from model.probe import Probe
from model.retrieval import Retrieval
from model.ring import SCORED, WARM, Ring, pack_rings, unpack_rings
from model.skill import Skill

_TRIALS = SCORED // retrieval.EVERY
_WARM_TRIALS = WARM // retrieval.EVERY


class Windows:
    """Rings of fixed size; ``embedding_size`` is q, ``units`` n."""

    def __init__(self, embedding_size: int, units: int) -> None:
        self.errors = Ring(SCORED, len(skill.COLUMNS))
        """The learner's and the trivial errors, of each fixation that has them."""
        self.evidence = Ring(SCORED, len(EVIDENCE))
        """The readouts' errors of the same fixations, a block later."""
        self.trials = Ring(_TRIALS, len(retrieval.COLUMNS))
        self.embeddings = Ring(frozen_rank.WINDOW, embedding_size)
        """y of each fixation ..."""
        self.inputs = Ring(frozen_rank.WINDOW, units)
        """... and V0 z of the same."""
        self.positions = PositionErrors()
        self.extents = Extents()
        self.skipped: dict[str, int] = {}
        """Fixations not learned from, by reason."""

    def skip(self, reason: str) -> None:
        """Count a fixation that was not learned from."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def skill(self) -> Skill:
        """See :mod:`model.skill`."""
        return skill.measure(self.errors.scored())

    def skills_of_halves(self) -> tuple[Skill, Skill]:
        """Of the older and the newer half of the window."""
        rows = self.errors.scored()
        half = rows.shape[0] // 2
        return skill.measure(rows[:half]), skill.measure(rows[half:])

    def learned_skill(self, pending: Tensor) -> Interval:
        """See :mod:`model.learned_skill`; ``pending`` are evidence's rows that are not in the ring yet."""
        return learned_skill.measure(self._evidence(pending))

    def probe(self, pending: Tensor) -> Probe:
        """See :mod:`model.probe`."""
        return probe.measure(self._evidence(pending))

    def probe_lost(self, pending: Tensor) -> Interval:
        """See :func:`model.probe.lost`."""
        return probe.lost(self._evidence(pending))

    def retrieval(self) -> Retrieval:
        """See :mod:`model.retrieval`."""
        return retrieval.measure(self.trials.rows(min(_TRIALS, self.trials.count - _WARM_TRIALS)))

    def rank(self, frozen: Tensor) -> Rank:
        """See :mod:`model.frozen_rank`; ``frozen`` is :func:`~model.frozen_rank.frozen_map`."""
        return frozen_rank.measure(self.embeddings.rows(), self.inputs.rows(), frozen)

    def _evidence(self, pending: Tensor) -> Tensor:
        wanted = min(SCORED, self.evidence.count + pending.shape[0] - WARM)
        if wanted <= 0:
            return pending[:0]
        return torch.cat([self.evidence.rows(), pending])[-wanted:]

    def _rings(self) -> dict[str, Ring]:
        names = ("errors", "evidence", "trials", "embeddings", "inputs")
        return {name: getattr(self, name) for name in names}

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of everything it holds, and the rest, JSON-able."""
        tensors, counts = pack_rings(self._rings())
        extents, told = self.extents.pack()
        tensors |= {"positions": self.positions.pack(), "extents": extents}
        return tensors, {"counts": counts, "extents": told, "skipped": dict(self.skipped)}

    def unpack(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError, ValueError or RuntimeError where it does not fit."""
        unpack_rings(self._rings(), tensors, meta["counts"])
        self.positions.unpack(tensors["positions"])
        self.extents.unpack(tensors["extents"], meta["extents"])
        self.skipped = {reason: int(count) for reason, count in meta["skipped"].items()}
