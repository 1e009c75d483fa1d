"""The learning loop: the journal's next entries, one after the other, in turns.

A turn takes what waits (a few dozen entries at most), sees to their features, learns them, makes records,
results and alarms durable in one commit, and only then tells anybody: PUB, the clients, the control socket.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from clients import wire
from model.errors import ModelError
from model.snapshot import Snapshot
from service.alarms import Alarms
from service.checkpointing import CheckpointWriter
from service.checkpoints import Checkpoints, Manifest
from service.entries import CHANGING, Applier, failure
from service.errors import CheckpointBad, RequestRefused, StorageFailed
from service.features import Features, Ready
from service.journal import Alarm, Entry, Journal, Result, Timeline, Turn
from service.mailbox import Mailbox, Stop
from service.publish import Publisher
from service.records import Record

TURN_ENTRIES = 32
TURN_S = 0.05
"""A turn ends after so long, so that what it learned is told soon."""
IDLE_S = 0.5
PATIENCE_S = 5.0
"""How long a checkpoint waits for a moment at which the diagnostics need not be waited for."""
LOOKS_S = 15.0
"""How long while looks are made: as long as those of all streams that began together take beside them."""
SOON_S = 0.01
"""How often that is asked while nothing comes."""
RETRY_S = 0.5
"""How often a disk that refused a turn is asked again."""

log = logging.getLogger("rjepa.learning")


class Asked(Protocol):
    """The other side of the control socket, as the loop sees it."""

    def applied(self, entry: int, value: dict[str, Any]) -> None:
        """A command was carried out; its result is durable."""

    def serve(self, *, idle: bool) -> None:
        """Answer what needs the learner; ``idle`` says that no fixation waits."""


@dataclass(frozen=True)
class Told:
    """Who is told what was learned, once it is durable."""

    publisher: Publisher
    clients: Callable[[list[wire.Learned]], None]
    asked: Asked
    model: Callable[[], str]
    """The description of the model as JSON text, for ``meta``."""


@dataclass(frozen=True)
class _Wanted:
    """The command ``entry`` asks for a checkpoint, ``since_s`` on the clock of ``time.monotonic``."""

    entry: int
    arguments: dict[str, Any]
    since_s: float


class LearningLoop:
    """Runs in the thread that owns the learner."""

    def __init__(
        self,
        applier: Applier,
        features: Features,
        journal: Journal,
        checkpoints: Checkpoints,
        writer: CheckpointWriter,
        alarms: Alarms,
        told: Told,
        *,
        wake: Mailbox[None],
        stop: Stop,
        checkpoint_every_s: float,
    ) -> None:
        self._applier = applier
        self._features = features
        self._journal = journal
        self._checkpoints = checkpoints
        self._writer = writer
        self._alarms = alarms
        self._told = told
        self._wake = wake
        self._stop = stop
        self._every_s = checkpoint_every_s
        self._checkpoint_id = 0
        self._checkpoint_s = time.monotonic()
        self._unwritten = threading.Event()
        self._wanted: list[_Wanted] = []
        self.storage: str | None = None
        """Why nothing can be learned at the moment: the disk takes no write; None while it does."""

    def run(self, begun: Manifest | None, *, checkpoint_now: bool) -> None:
        """Learn until stopped. ``begun``: the checkpoint recovery loaded; ``checkpoint_now``: it was long ago."""
        self._checkpoint_id = begun.journal if begun else 0
        self._checkpoint_s = time.monotonic() - (self._every_s if checkpoint_now else 0.0)
        while not self._stop():
            self._wake.take()
            worked = self._turn()
            if not self._stop():  # then the last turn may not be durable
                self._tell_looks()
            self._told.asked.serve(idle=not worked)
            if not self._stop():
                self._take_wanted()
                self._checkpoint_when_due()
            if not worked and not self._stop():
                self._wait(SOON_S if self._wanted else IDLE_S)

    def finish(self) -> None:
        """The last checkpoint, of what is durable."""
        if self._applier.cursor > self._journal.learned_id():
            return
        self._take_wanted(now=True)
        self._tell_looks(wait=True)
        if self._applier.cursor > self._checkpoint_id or self._unwritten.is_set():
            self._writer.write_and_wait(
                self._applier.learner.snapshot(), self._applier.place(), diagnostics=self._diagnostics()
            )

    def _diagnostics(self) -> Snapshot | None:
        """What a checkpoint keeps of them."""
        watching = self._applier.watching
        return None if watching is None else watching.pack()

    def _tell_looks(self, *, wait: bool = False) -> None:
        """Make durable what the looks at the diagnostics found since, and tell the alarms."""
        turn = Turn(self._applier.cursor)
        watching = self._applier.watching
        if watching is not None and watching.collect(turn, wait=wait) and self._commit(turn):
            self._tell(turn)

    def _turn(self) -> bool:
        """Learn the next entries; False where nothing waits."""
        try:
            entries, features = self._next()
        except StorageFailed as error:
            self._trouble(error)
            self._wait(RETRY_S)
            return True
        if not entries:
            self.storage = None
            return False
        turn = Turn(self._applier.cursor, features=features)
        finish: Callable[[], None] | None = None
        if entries[0].kind == "command":
            finish = self._command(entries[0], turn)
        else:
            ends_s = time.monotonic() + TURN_S
            for entry in entries:
                self._applier.apply(entry, turn)
                if time.monotonic() > ends_s or self._stop():
                    break
            self._applier.catch_up()
        if self._commit(turn):
            self._tell(turn)
            if finish is not None:
                finish()
        return True

    def _next(self) -> Ready:
        """The next entries, ready to be learned; a command comes alone."""
        entries = self._journal.entries(self._applier.cursor, TURN_ENTRIES)
        for number, entry in enumerate(entries):
            if entry.kind == "command":
                entries = entries[: max(number, 1)]
                break
        return self._features.ready(entries)

    def _commit(self, turn: Turn) -> bool:
        """Make a turn durable, however long the disk refuses; False where it still did when the worker stopped."""
        while True:
            try:
                self._journal.put_turn(turn, time.time())
            except StorageFailed as error:
                self._trouble(error)
                if self._stop():
                    return False
                self._wait(RETRY_S)
            else:
                self.storage = None
                return True

    def _tell(self, turn: Turn) -> None:
        """The commit has returned: publish the records, tell the clients, answer the commands."""
        for alarm in turn.alarms:
            log.warning("alarm %s%s: %s", alarm.kind, f" (stream {alarm.stream})" if alarm.stream else "", alarm.detail)
        records = [write for write in turn.writes if isinstance(write, Record)]
        self._told.publisher.publish(records)
        if records:
            self._told.clients([_learned(record) for record in records])
        for write in turn.writes:
            if isinstance(write, Result):
                self._told.asked.applied(write.id, write.value)

    def _command(self, entry: Entry, turn: Turn) -> Callable[[], None] | None:
        """Carry out a command; what is returned is to be done once the turn is durable."""
        name = entry.body["name"]
        if name != "checkpoint":  # one that was asked for before this is without what this does
            self._take_wanted(now=True)
        finish: Callable[[], None] | None = None
        if name in CHANGING:
            self._applier.apply(entry, turn)
        elif name == "checkpoint":
            finish = partial(self._wanted.append, _Wanted(entry.id, entry.body["arguments"], time.monotonic()))
        elif entry.id in self._applier.quarantined:
            turn.writes.append(Result(entry.id, failure(409, "refused", "it ended the process three times")))
        else:
            self._applier.mark.begin(entry.id)
            value = self._about_checkpoint(name, entry, turn)
            self._applier.mark.end()
            if not value["ok"]:
                turn.alarms.append(Alarm("command_failed", f"{name}: {value['detail']}"))
            turn.writes.append(Result(entry.id, value))
        self._applier.passed(entry, turn)
        turn.meta["model"] = self._told.model()
        return finish

    def _take_wanted(self, *, now: bool = False) -> None:
        """Take the checkpoints that are wanted, once the diagnostics need not be waited for; ``now``: wait for them."""
        if self._wanted and (now or self._may_pack(self._wanted[0].since_s)):
            asked, self._wanted = self._wanted, []
            for each in asked:
                self._take_checkpoint(each.entry, each.arguments)

    def _may_pack(self, since_s: float) -> bool:
        """Whether a checkpoint wanted since then may be packed: it holds no fixation up, or has waited long enough."""
        watching = self._applier.watching
        if watching is None or not watching.busy:
            return True
        return time.monotonic() - since_s > (LOOKS_S if watching.looking else PATIENCE_S)

    def _take_checkpoint(self, entry: int, arguments: dict[str, Any]) -> None:
        def done(outcome: Manifest | StorageFailed) -> None:
            value = (
                {"ok": True, "checkpoint": outcome.json_object()}
                if isinstance(outcome, Manifest)
                else failure(503, outcome.code, str(outcome))
            )
            try:
                self._journal.put_result(Result(entry, value))
            except StorageFailed as error:
                log.warning("the result of a checkpoint could not be kept: %s", error)
            self._told.asked.applied(entry, value)

        self._tell_looks(wait=True)
        place = self._applier.place(label=arguments.get("label"), pinned=bool(arguments.get("pinned")))
        self._writer.submit(self._applier.learner.snapshot(), place, done, diagnostics=self._diagnostics())

    def _about_checkpoint(self, name: str, entry: Entry, turn: Turn) -> dict[str, Any]:
        if name == "restore":
            return self._restore(entry, turn)
        if name == "keep_checkpoint":
            return self._keep_checkpoint(entry)
        return self._delete_checkpoint(entry)

    def _restore(self, entry: Entry, turn: Turn) -> dict[str, Any]:
        """Go back to a checkpoint: it is done once a new one, of the old parameters, is durable; else nothing is."""
        applier = self._applier
        name = entry.body["arguments"]["checkpoint"]
        timeline = max([0, *self._journal.timelines()]) + 1
        before = (applier.learner.snapshot(), applier.timeline, applier.sequences)
        watched = self._diagnostics()
        try:
            manifest, snapshot = self._checkpoints.read(name)
            applier.restore(snapshot, timeline)
            if applier.watching is not None:
                applier.watching.begin(self._checkpoints, name)
        except RequestRefused as error:
            return failure(error.status, error.code, error.detail)
        except (CheckpointBad, ModelError) as error:
            return failure(409, "checkpoint_bad", str(error))
        applier.passed(entry, turn)
        written = self._writer.write_and_wait(
            applier.learner.snapshot(), applier.place(parent=name), diagnostics=self._diagnostics()
        )
        if not isinstance(written, Manifest):
            applier.learner.load(before[0])
            if applier.watching is not None and watched is not None:
                applier.watching.put_back(watched)
            applier.timeline, applier.sequences = before[1:]
            return failure(503, written.code, str(written))
        self._checkpoint_id = written.journal
        if applier.watching is not None:
            turn.alarms += applier.watching.went_back(entry.id)
        turn.checkpoints.append(written.json_object())
        turn.writes.append(Timeline(timeline, written.created, manifest.timeline, name, manifest.journal, entry.id))
        log.info("went back to checkpoint %s (journal id %d): timeline %d", name, manifest.journal, timeline)
        return {"ok": True, "checkpoint": written.json_object()}

    def _keep_checkpoint(self, entry: Entry) -> dict[str, Any]:
        arguments = entry.body["arguments"]
        try:
            kept = self._checkpoints.keep(
                arguments["checkpoint"], pinned=arguments["pinned"], label=arguments.get("label")
            )
        except RequestRefused as error:
            return failure(error.status, error.code, error.detail)
        except CheckpointBad as error:
            return failure(409, error.code, str(error))
        except StorageFailed as error:
            return failure(503, error.code, str(error))
        return {"ok": True, "checkpoint": kept.json_object()}

    def _delete_checkpoint(self, entry: Entry) -> dict[str, Any]:
        name = entry.body["arguments"]["checkpoint"]
        try:
            good = self._checkpoints.last_good(self._applier.timeline)
            if good is not None and good.id == name:
                other = self._checkpoints.last_good(self._applier.timeline, but=name)
                if other is None:
                    return failure(
                        409,
                        "last_checkpoint",
                        f"{name} is the only good checkpoint of this timeline; take another first",
                    )
            self._checkpoints.delete(name)
        except RequestRefused as error:
            return failure(error.status, error.code, error.detail)
        except StorageFailed as error:
            return failure(503, error.code, str(error))
        return {"ok": True}

    def _checkpoint_when_due(self) -> None:
        due_s = self._checkpoint_s + self._every_s
        due = time.monotonic() >= due_s and self._may_pack(due_s)
        behind = self._applier.cursor > self._checkpoint_id or self._unwritten.is_set()
        if due and behind and not self._writer.busy and self.storage is None:
            self._tell_looks(wait=True)
            self._checkpoint_id, self._checkpoint_s = self._applier.cursor, time.monotonic()
            self._writer.submit(
                self._applier.learner.snapshot(), self._applier.place(), self._came, diagnostics=self._diagnostics()
            )

    def _came(self, outcome: Manifest | StorageFailed) -> None:
        """Of one that was due, in the writer's thread: where it failed it is tried again, also if nothing comes."""
        if isinstance(outcome, Manifest):
            self._unwritten.clear()
        else:
            self._unwritten.set()

    def _trouble(self, error: StorageFailed) -> None:
        if self.storage is None:
            log.error("%s", error)
        self.storage = str(error)

    def _wait(self, limit_s: float) -> None:
        select.select([self._wake.fileno()], [], [], limit_s)
        if self.storage is not None:
            self._wake.take()


def _learned(record: Record) -> wire.Learned:
    return wire.Learned(
        stream=record.stream,
        seq=record.seq,
        prediction_error=record.prediction_error,
        position=record.position,
        latency_ms=record.latency_ms or 0.0,
        skipped=record.skipped,
    )
