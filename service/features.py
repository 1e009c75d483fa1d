"""z of the fixations that are next: the retina sees what is new, in batches, before the step that uses it.

New features become durable together with what is learned from them; what is not durable is seen and learned again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from clients.wire import PatchHeader
from model.retina import Retina
from service.alarms import Alarms
from service.journal import Entry, Journal
from service.patches import decode_patch

LEARNING_THREADS = 1
"""Threads of one torch operation while the learner steps: its operations are too small to share."""


class Ready(NamedTuple):
    """Entries that can be learned, and ``new``: those of their features, by journal id, that are not durable yet."""

    entries: list[Entry]
    new: list[tuple[int, NDArray[np.float32]]]


class Features:
    """Gives entries their z. ``batch`` is how many patches the retina sees at once, with ``threads``."""

    def __init__(self, retina: Retina, journal: Journal, alarms: Alarms, *, batch: int, threads: int) -> None:
        self._retina = retina
        self._journal = journal
        self._alarms = alarms
        self._batch = batch
        self._threads = threads

    def ready(self, entries: Sequence[Entry]) -> Ready:
        """The first of ``entries`` with their features: all up to a batch of new ones.

        A fixation whose patch is gone too becomes ``lost``. Raises :class:`~service.errors.StorageFailed`.
        """
        chosen: list[Entry] = []
        seen: list[NDArray[np.uint8]] = []
        new: list[int] = []
        for entry in entries:
            if entry.kind == "fixation" and entry.z is None:
                if len(new) == self._batch:
                    break
                patch = self._journal.patch(entry.id)
                if patch is None:
                    chosen.append(self._lost(entry))
                    continue
                header = PatchHeader.model_validate(entry.body["patch"])
                seen.append(decode_patch(header, patch))
                new.append(len(chosen))
            chosen.append(entry)
        if new:
            with self._all_threads():
                z = self._retina.features(np.stack(seen))
            for row, at in enumerate(new):
                chosen[at] = replace(chosen[at], z=z[row])
        return Ready(chosen, [(chosen[at].id, z[row]) for row, at in enumerate(new)])

    def of_patch(self, patch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """z (m,) of one patch uint8 (50, 50, 3), kept nowhere."""
        with self._all_threads():
            z: NDArray[np.float32] = self._retina.features(patch[np.newaxis])[0]
        return z

    @contextmanager
    def _all_threads(self) -> Iterator[None]:
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(LEARNING_THREADS)

    def _lost(self, entry: Entry) -> Entry:
        self._alarms.raise_alarm("data_lost", f"neither patch nor features of seq {entry.seq} are there", entry.stream)
        return replace(entry, kind="lost")
