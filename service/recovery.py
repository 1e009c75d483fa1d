"""Back to where the last process was: the newest good checkpoint, then the journal after it, learned again.

What already has its record is learned again without writing anything; fixations and commands go through the same
:class:`~service.entries.Applier` as when they came, so the bits are the same. Only restores differ: what they
did stands in ``timelines``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.errors import ModelError
from model.snapshot import Snapshot
from service.alarms import Alarms
from service.checkpoints import Checkpoints, Manifest
from service.entries import CHANGING, Applier
from service.errors import CheckpointBad, DirectoryRefused, RequestRefused, StorageFailed
from service.features import Features
from service.journal import Entry, Journal, Timeline, Turn

CHUNK = 256

log = logging.getLogger("rjepa.recovery")


@dataclass
class Progress:
    """How far a recovery is."""

    recovering: bool = True
    recovered: int = 0
    to_recover: int = 0


class Recovery:
    """One recovery of ``applier``, whose learner is as new."""

    def __init__(
        self,
        applier: Applier,
        journal: Journal,
        checkpoints: Checkpoints,
        features: Features,
        alarms: Alarms,
        identity: dict[str, Any],
    ) -> None:
        self.progress = Progress()
        self._applier = applier
        self._journal = journal
        self._checkpoints = checkpoints
        self._features = features
        self._alarms = alarms
        self._identity = identity
        self._timelines = journal.timelines()

    def run(self, stopping: Callable[[], bool]) -> Manifest | None:
        """Recover, or as far as it goes before ``stopping`` says so. The checkpoint it began from, if any.

        Raises :class:`DirectoryRefused` where a restore must be made again and its checkpoint is gone.
        """
        self._checkpoints.clean({0, *self._timelines})
        goal = self._journal.learned_id()
        self._set_aside(goal)
        self._tell_checkpoints()
        begun = self._load()
        progress = self.progress
        progress.to_recover = goal - self._applier.cursor
        if progress.to_recover:
            log.info("learning again journal ids %d to %d", self._applier.cursor + 1, goal)
        while self._applier.cursor < goal and not stopping():
            entries = self._journal.entries(self._applier.cursor, min(CHUNK, goal - self._applier.cursor))
            entries = [entry for entry in entries if entry.id <= goal]
            if not entries:
                break
            found = self._features.ready(entries)
            if found.new:
                self._journal.put_features(found.new)
            for entry in found.entries:
                if stopping():
                    break
                self._again(entry)
                progress.recovered = progress.to_recover - (goal - entry.id)
        progress.recovering = self._applier.cursor < goal
        return begun

    def _set_aside(self, goal: int) -> None:
        """Take out of use what has learned more than the journal has: the journal lost its end, or is an older one.

        When the journal gets as far again it has other entries there, and such a checkpoint would seem to be of them.
        """
        for manifest in self._checkpoints.list():
            if manifest.journal > goal:
                aside = self._checkpoints.set_aside(manifest.id)
                told = f"checkpoint {manifest.id} knows journal id {manifest.journal}, the journal ends at {goal}"
                self._alarms.raise_alarm("checkpoint_bad", f"{told}; it is set aside as {aside}, and never used again")

    def _tell_checkpoints(self) -> None:
        """The event of a checkpoint after which the last process ended at once."""
        try:
            known = self._journal.checkpoints_told()
            untold = [each.json_object() for each in self._checkpoints.list() if each.id not in known]
            if untold:
                self._journal.put_checkpoints(untold)
        except StorageFailed as error:
            log.warning("the event of a checkpoint could not be kept: %s", error)

    def _load(self) -> Manifest | None:
        """Load the newest good checkpoint; None leaves the learner as new.

        Raises :class:`DirectoryRefused` where the learner was not new at the beginning (``begun`` in ``meta``).
        """
        for wrong in self._checkpoints.unreadable():
            self._alarms.raise_alarm("checkpoint_bad", wrong)
        begun = self._journal.meta("begun")
        for manifest in candidates(self._checkpoints.list(), self._journal.timeline(), self._timelines, begun):
            try:
                snapshot = self._good(manifest)
                self._applier.learner.load(snapshot)
            except (CheckpointBad, RequestRefused, ModelError) as error:
                self._alarms.raise_alarm("checkpoint_bad", f"{error}; the one before it is used")
                continue
            applier = self._applier
            if applier.watching is not None:
                applier.watching.begin(self._checkpoints, manifest.id)
            applier.cursor, applier.timeline = manifest.journal, manifest.timeline
            applier.cursors, applier.sequences = dict(manifest.cursors), dict(manifest.sequences)
            log.info("checkpoint %s loaded, journal id %d", manifest.id, manifest.journal)
            if manifest.torch_version != str(torch.__version__):
                log.warning(
                    "it was written with torch %s, this is %s: what is learned again may differ in the last bits",
                    manifest.torch_version,
                    torch.__version__,
                )
            return manifest
        if begun is not None:
            raise DirectoryRefused(
                f"{self._journal.path}: it began from checkpoint {began(begun)[0]}, and neither that nor a later one "
                "can be used; restore one of them from a backup"
            )
        return None

    def _good(self, manifest: Manifest) -> Snapshot:
        found, snapshot = self._checkpoints.read(manifest.id)
        if found.identity != self._identity:
            differing = [key for key in self._identity if found.identity.get(key) != self._identity[key]]
            raise CheckpointBad(f"checkpoint {found.id} is of another configuration ({', '.join(differing) or 'more'})")
        return snapshot

    def _again(self, entry: Entry) -> None:
        """Apply an entry whose record or result is durable; nothing is written."""
        forgotten = Turn(0)
        if entry.kind != "command" or entry.body["name"] in CHANGING:
            self._applier.apply(entry, forgotten)
            return
        for timeline in self._timelines.values():
            if timeline.start == entry.id:
                self._restore_again(timeline, entry.id)
        self._applier.passed(entry, forgotten)

    def _restore_again(self, timeline: Timeline, entry: int) -> None:
        try:
            _, snapshot = self._checkpoints.read(timeline.checkpoint)
            self._applier.restore(snapshot, timeline.id)
            if self._applier.watching is not None:
                self._applier.watching.begin(self._checkpoints, timeline.checkpoint)
                self._applier.watching.went_back(entry)
        except (CheckpointBad, RequestRefused, ModelError) as error:
            raise DirectoryRefused(
                f"{self._journal.path}: no checkpoint of timeline {timeline.id} is good, and {timeline.checkpoint}, "
                f"which it began from, can't be used either ({error}); restore one of them from a backup"
            ) from error


def candidates(
    every: Sequence[Manifest], timeline: int, timelines: Mapping[int, Timeline], begun: str | None = None
) -> Iterator[Manifest]:
    """Of checkpoints, oldest first, those the journal leads on from, newest first: those of the present ``timeline``,
    then its ancestors'; none before the one the directory began from (``begun`` of ``meta``, see :func:`began`).

    An ancestor went on until the restore that began its child: what it wrote later is of no use.
    """
    since, before = -1 if begun is None else began(begun)[1], None
    while True:
        for manifest in reversed(every):
            if manifest.timeline == timeline and since <= manifest.journal < (before or math.inf):
                yield manifest
        child = timelines.get(timeline)
        if child is None:
            return
        timeline, before = child.parent, child.start if before is None else min(before, child.start)


def began(begun: str) -> tuple[str, int]:
    """The checkpoint a directory's learner began from, which was not as new, and the journal id it stands at."""
    told = json.loads(begun)
    return str(told["checkpoint"]), int(told["journal"])
