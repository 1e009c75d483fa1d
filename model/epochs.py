"""Epochs over cut sequences, and after each the held-out part: the paper's own training regime.

    epoch 0    nothing is learned: running statistics take in what will be learned from, in its own order
    epoch e    every sequence once, in an order of its own, in groups of B with one update each

After each the held-out sequences are predicted with everything frozen, statistics too. So the trivial predictors know
of the learned part what they ever will when they are first compared with, and every epoch is held against the same
ones (but for those of the embedding, which moves).

What a row can't show: a held-out sequence is from the same recordings as its neighbours that were learned from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from model import skill
from model.errors import ModelError
from model.learner import Outcome
from model.sequences import Parts, groups
from model.side_by_side import Examiner, SideBySide
from model.skill import COLUMNS
from model.snapshot import Snapshot

META = "epochs"
"""Where, in the snapshot's meta, it stands how far the epochs are."""
_EARLY = 1 / 20
_LATE = 2 / 5


class Work(NamedTuple):
    """Something was done; between two of these everything can be packed."""

    kind: Literal["group", "examined", "row"]
    sequences: int
    """How many were taken in just now."""
    epoch: int
    error: float | None
    """The mean so far in this epoch, of what was learned from."""


class Epochs:
    """``learning`` over the learned part of ``parts`` in groups of ``side_by_side``, ordered by ``seed``."""

    def __init__(self, learning: SideBySide, parts: Parts, *, side_by_side: int, seed: int) -> None:
        self._learning = learning
        self._parts = parts
        self._size = side_by_side
        self._seed = seed
        self._examiner: Examiner | None = None
        self.rows: list[dict[str, Any]] = []
        """One for each finished epoch, from epoch 0; JSON-able."""
        self._done = 0
        """Groups of the present epoch."""
        self._sum, self._count, self._skipped = 0.0, 0, 0

    @property
    def epoch(self) -> int:
        """The present one: it has no row yet."""
        return len(self.rows)

    @property
    def taken(self) -> int:
        """How many sequences of the present epoch were taken in."""
        return min(self._done * self._size, len(self._parts.learned))

    def run(self, epochs: int) -> Iterator[Work]:
        """Go on until epoch ``epochs`` has its row. It may be left after any :class:`Work`, and taken up again."""
        while self.epoch <= epochs:
            yield from self._learn()
            yield from self._examine()

    def _learn(self) -> Iterator[Work]:
        learned = self._parts.learned
        order = groups(len(learned), self._size, self._seed, self.epoch)
        for group in order[self._done :]:
            outcomes = self._learning.take([learned[index] for index in group], learning=self.epoch > 0)
            errors = [one.prediction_error for one in outcomes if one.prediction_error is not None]
            self._sum += math.fsum(errors)
            self._count += len(errors)
            self._skipped += sum(one.skipped is not None for one in outcomes)
            self._done += 1
            yield Work("group", len(group), self.epoch, self.error)

    @property
    def error(self) -> float | None:
        """The mean of the present epoch so far, each before anything was learned from it."""
        return self._sum / self._count if self._count else None

    def _examine(self) -> Iterator[Work]:
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "train_error": self.error,
            "skipped": self._skipped,
            "refused_updates": self._learning.refused_updates,
        }
        if self._parts.held_out:
            if self._examiner is None:
                like = self._learning.learner.dtype
                self._examiner = Examiner(self._learning.config, device=self._learning.device, dtype=like)
            outcomes: list[Outcome] = []
            for found in self._examiner.examine(self._learning.snapshot(), self._parts.held_out):
                outcomes += found
                yield Work("examined", 1, self.epoch, self.error)
            row |= examined(outcomes, len(self._parts.held_out[0].z)) | {"rank": self._examiner.rank.rank()}
        epoch, error = self.epoch, self.error
        self.rows.append(row)
        self._done, self._sum, self._count, self._skipped = 0, 0.0, 0, 0
        yield Work("row", 0, epoch, error)

    def pack(self) -> Snapshot:
        """Everything, between two of what :meth:`run` yields; what was examined of an epoch without a row is not."""
        tensors, meta = self._learning.snapshot()
        told = {
            "rows": list(self.rows),
            "groups": self._done,
            "sum": self._sum,
            "count": self._count,
            "skipped": self._skipped,
            "refused_updates": self._learning.refused_updates,
        }
        return Snapshot(tensors, meta | {META: told})

    def unpack(self, snapshot: Snapshot) -> None:
        """Go on from what :meth:`pack` gave, with the same bits. Raises :class:`ModelError` where it does not fit."""
        try:
            told = snapshot.meta[META]
            rows, counts = list(told["rows"]), [int(told[key]) for key in ("groups", "count", "skipped")]
            summed, refused = float(told["sum"]), int(told["refused_updates"])
        except KeyError as missing:
            raise ModelError(f"the snapshot is not of epochs: it has no {missing}") from None
        self._learning.load(snapshot)
        self.rows, self._sum, self._learning.refused_updates = rows, summed, refused
        self._done, self._count, self._skipped = counts


def examined(outcomes: Sequence[Outcome], length: int) -> dict[str, Any]:
    """The held-out part of a row, from the outcomes of sequences of ``length``.

    Error and every trivial one as means over the predictions; skill as model/skill.py has it (None under 100); the
    error by position, and its means over the first twentieth of the positions and over the last three fifths.
    """
    found = [(one.position, one.prediction_error, one.trivial) for one in outcomes if one.prediction_error is not None]
    rows = torch.stack([skill.row(error, trivial) for _, error, trivial in found]) if found else torch.zeros(0, 9)
    means = rows.to(torch.float64).nanmean(dim=0).tolist()
    trivial = {name: _finite(mean) for name, mean in zip(COLUMNS[1:], means[1:], strict=True)}
    known = {name: mean for name, mean in trivial.items() if mean is not None}
    best = min(known, key=lambda name: known[name]) if known else None
    measured = skill.measure(rows)
    places = torch.tensor([position for position, _, _ in found])
    errors = rows[:, 0].to(torch.float64)
    return {
        "held_out_error": _finite(means[0]),
        "trivial": trivial,
        "best_trivial": best,
        "best_trivial_error": known[best] if best is not None else None,
        "skill": measured.skill.value,
        "skill_low": measured.skill.low,
        "skill_high": measured.skill.high,
        "opponent": measured.opponent,
        "early": _mean(errors[places <= max(1, int(length * _EARLY))]),
        "late": _mean(errors[places > length * _LATE]),
        "error_by_position": [_mean(errors[places == position]) for position in range(1, length)],
        "held_out_skipped": sum(one.skipped is not None for one in outcomes),
    }


def _mean(values: Tensor) -> float | None:
    return _finite(float(values.mean())) if values.numel() else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
