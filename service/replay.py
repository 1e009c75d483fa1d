"""A journal learned again into another data directory: from a checkpoint or from the start, the same or otherwise.

The new directory begins as a copy of the journal, its records and timelines cut back to where the replay begins. Then
every entry goes through the same :class:`~service.entries.Applier` as when it came, from the features the worker kept:
no retina is needed, and no patch. Where the source went back to a checkpoint, the replay goes back to its own learner
of that moment. With the same settings the records and the learner come out the same to the bit, all but the records'
``latency_ms``, of which a replay has nothing to say.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.errors import ModelError
from model.learner import Learner
from service.alarms import Alarms
from service.backup import Tell, coming_to_be, copy_checkpoint, copy_database
from service.checkpoints import Checkpoints, Manifest, Place
from service.datadir import DataDirectory
from service.entries import CHANGING, Applier
from service.errors import CheckpointBad, CopyRefused, DirectoryRefused, RequestRefused
from service.journal import Entry, Journal, Result, Timeline, Turn
from service.schema import LOOK, STANDING
from service.stepmark import StepMark
from service.storage import Database, check_readable, open_reader
from service.watching import Watching

START = "start"
CHUNK = 128
"""Entries whose records are made durable together."""


@dataclass(frozen=True)
class Otherwise:
    """What a replay does otherwise than its source. ``rates`` hold throughout, whatever the journal says of them."""

    preset: str | None = None
    gates: str | None = None
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> bool:
        """Whether the model is another: then only the start will do."""
        return self.preset is not None or self.gates is not None


@dataclass(frozen=True)
class Source:
    """A data directory that is only read."""

    path: Path
    identity: dict[str, Any]
    begun: bool
    """Whether its learner did not begin as new."""

    @classmethod
    def open(cls, path: Path) -> Source:
        """Raises :class:`DirectoryRefused` where it is no data directory of this version with a history."""
        database = path / "rjepa.db"
        with closing(open_reader(database)) as reader:
            check_readable(database, reader)
            meta = {row[0]: row[1] for row in reader.execute("SELECT key, value FROM meta")}
        if "identity" not in meta or not int(meta.get("learned_id", 0)):
            raise DirectoryRefused(f"{path}: nothing was learned there; name a worker's data directory")
        identity = json.loads(meta["identity"])
        return cls(path, identity, "begun" in meta or "learn" in meta)

    @property
    def checkpoints(self) -> Checkpoints:
        """Its folder of checkpoints."""
        return Checkpoints(self.path / "checkpoints")

    def beginning(self, name: str, otherwise: Otherwise) -> Manifest | None:
        """The checkpoint to begin from; None for the start. Raises :class:`CopyRefused`."""
        if name == START:
            if self.begun and not otherwise.model:
                first = next((manifest.id for manifest in self.checkpoints.list()), "a checkpoint of a backup")
                raise CopyRefused(f"the learner of {self.path} did not begin as new: say --from {first}")
            return None
        if otherwise.model:
            raise CopyRefused(f"{name} is of the model it was made with: for another one say --from {START}")
        try:
            manifest = self.checkpoints.verified(name)
        except (CheckpointBad, RequestRefused) as error:
            there = ", ".join(manifest.id for manifest in self.checkpoints.list()) or "none"
            raise CopyRefused(f"{error}; there are {there}, or say --from {START}") from None
        if manifest.identity != self.identity:
            raise CopyRefused(f"checkpoint {name} is of another configuration than {self.path}: say --from another")
        return manifest

    def config(self, otherwise: Otherwise) -> ModelConfig:
        """The model to learn with. Raises :class:`CopyRefused` where its features are others than those kept."""
        try:
            made = ModelConfig.parse(self.identity["model"])
            if not otherwise.model:
                return made
            overrides = {} if otherwise.gates is None else {"gates": otherwise.gates}
            chosen = ModelConfig.preset(otherwise.preset or made.name, **overrides)  # type: ignore[arg-type]
        except ModelError as error:
            raise CopyRefused(f"{self.path} can't be learned again so: {error}") from None
        if chosen.retina != made.retina:
            raise CopyRefused(
                f"preset {chosen.name} sees patches otherwise than {made.name} did, whose features are kept; to see "
                f"the kept patches again, say: rjepa learn --from {self.path} --preset {chosen.name} --weights ..."
            )
        return chosen


def replay(
    source: Source, begin: str, target: Path, otherwise: Otherwise, *, device: str = "cpu", diagnostics: bool = True,
    tell: Tell = lambda what, done, whole: None,
) -> None:  # fmt: skip
    """Learn the journal of ``source`` again into ``target``, as far as the source had learned it.

    Raises :class:`CopyRefused`, :class:`DirectoryRefused`, StorageFailed; nothing of ``target`` is there then.
    """
    manifest, config = source.beginning(begin, otherwise), source.config(otherwise)
    _check_rates(otherwise, config)
    with coming_to_be(target) as directory, ExitStack() as stack:
        copy_database(source.path, directory.database, tell)
        goal = _cut_back(directory.database, 0 if manifest is None else manifest.journal, otherwise)
        if "calibration" in source.identity:
            shutil.copy2(source.path / "calibration.safetensors", directory.calibration)
        journal = Journal(directory.database)
        stack.callback(journal.close)
        again = _Again(source, directory, journal, config, otherwise, device, stack, diagnostics=diagnostics)
        again.begin(manifest)
        again.run(goal, tell)


def _check_rates(otherwise: Otherwise, config: ModelConfig) -> None:
    known = Learner(config, seed=0).rates
    for name, rate in otherwise.rates.items():
        if name not in known or not 0.0 <= rate <= 1.0:
            raise CopyRefused(f"--rate {name}={rate:g}: rates go from 0 to 1, and this model has {', '.join(known)}")


def _cut_back(path: Path, after: int, otherwise: Otherwise) -> int:
    """Make a copied journal what it was when ``after`` was the last entry learned; up to where it was learned."""
    database = Database(path)
    try:
        with database.write("cut back") as connection:
            (goal,) = connection.execute("SELECT value FROM meta WHERE key = 'learned_id'").fetchone()
            values = {"after": after, "look": LOOK, "standing": STANDING}
            for statement in _CUTS:
                connection.execute(statement, values)
            for name in otherwise.rates:
                connection.execute(
                    "UPDATE journal SET body = json_remove(body, ?) WHERE id > ? AND kind = 'command'"
                    " AND json_extract(body, '$.name') = 'rates'",
                    (f"$.arguments.rates.{name}", after),
                )
    finally:
        database.close()
    return int(goal)


_CUTS = (
    "DELETE FROM events",
    "DELETE FROM checkpoints",
    "DELETE FROM records WHERE id > :after",
    "DELETE FROM timelines WHERE start > :after",
    "UPDATE meta SET value = (SELECT max(id) FROM timelines) WHERE key = 'timeline'",
    "UPDATE meta SET value = :after WHERE key = 'learned_id'",
    "DELETE FROM meta WHERE substr(key, 1, length(:look)) = :look AND json_extract(value, '$.entry') > :after",
    "DELETE FROM meta WHERE substr(key, 1, length(:standing)) = :standing OR key = 'learn'",
    "DELETE FROM alarms WHERE kind NOT IN ('data_lost', 'spool_full')"
    " AND time > coalesce((SELECT time FROM journal WHERE id = :after), 0)",
    "UPDATE streams SET learned = (SELECT count(*) FROM records WHERE stream = name AND skipped IS NULL), learned_seq ="
    " coalesce((SELECT max(seq) FROM journal WHERE stream = name AND seq IS NOT NULL AND id <= :after), -1)",
)


class _Again:
    """One replay into ``directory``, whose journal is cut back."""

    def __init__(
        self, source: Source, directory: DataDirectory, journal: Journal, config: ModelConfig, otherwise: Otherwise,
        device: str, stack: ExitStack, *, diagnostics: bool,
    ) -> None:  # fmt: skip
        self._source = source
        self._journal = journal
        self._otherwise = otherwise
        self._device = device
        self._identity = source.identity | {"model": config.model_dump(mode="json")}
        self._checkpoints = Checkpoints(directory.checkpoints)
        learner = Learner(config, seed=int(source.identity["seed"]), device=device)
        mark = StepMark(directory.step)
        stack.callback(mark.close)
        watching = None
        if diagnostics:
            made = Diagnostics(learner, seed=int(source.identity["seed"]))
            watching = Watching(made, Alarms(journal), journal.looks())
            stack.callback(watching.close)
        self._applier = Applier(learner, mark, journal.quarantined(), watching=watching, timed=False)
        self._restores = {each.start: each for each in source_timelines(source.path)}
        self._forks = {each.fork: "" for each in self._restores.values()}
        """Journal ids whose learner is gone back to later, and the checkpoint it was kept in."""

    def begin(self, manifest: Manifest | None) -> None:
        """Stand where the replay begins: a checkpoint of the source, or the start."""
        applier, rates = self._applier, self._otherwise.rates
        self._journal.put_meta("identity", json.dumps(self._identity))
        begun = None
        if manifest is not None:
            begun = self._bring(manifest.id)
            self._forks[begun.journal] = begun.id
            applier.learner.load(self._checkpoints.read(begun.id)[1])
            if applier.watching is not None:
                applier.watching.begin(self._checkpoints, begun.id)
            applier.cursor, applier.timeline = manifest.journal, manifest.timeline
            applier.cursors, applier.sequences = dict(manifest.cursors), dict(manifest.sequences)
        elif rates:
            applier.learner.set_rates(rates)
            begun = self._write(label="the start, with other rates", pinned=True)
        if begun is not None and (rates or self._source.begun):
            self._journal.put_meta("begun", json.dumps({"checkpoint": begun.id, "journal": begun.journal}))
        old = json.loads(self._journal.meta("model") or "{}")
        self._journal.put_meta("model", json.dumps(old | applier.learner.describe() | {"device": self._device}))

    def run(self, goal: int, tell: Tell) -> None:
        """Learn up to the entry ``goal``; the last checkpoint is of that moment."""
        applier, first = self._applier, self._applier.cursor
        while applier.cursor < goal:
            entries = self._journal.entries(applier.cursor, min(CHUNK, goal - applier.cursor))
            if not entries:
                break
            turn = Turn(applier.cursor)
            for entry in entries:
                if entry.kind == "command" and entry.body["name"] not in CHANGING:
                    self._carry_out(entry, turn)
                    applier.passed(entry, turn)
                else:
                    applier.apply(_seen(entry), turn)
                if entry.id in self._forks:
                    self._forks[entry.id] = self._write().id
            self._put(turn)
            tell("learning", applier.cursor - first, goal - first)
        self._put(Turn(applier.cursor), wait=True)
        self._write(label=f"{self._source.path.name} learned again", pinned=True)

    def _put(self, turn: Turn, *, wait: bool = False) -> None:
        watching = self._applier.watching
        if watching is not None:
            watching.collect(turn, wait=wait)
        self._journal.put_turn(turn, time.time())

    def _carry_out(self, entry: Entry, turn: Turn) -> None:
        """A command about checkpoints, as far as it means anything here."""
        arguments, timeline = entry.body["arguments"], self._restores.get(entry.id)
        if entry.body["name"] == "checkpoint":
            self._applier.passed(entry, turn)
            self._write(label=arguments.get("label"), pinned=bool(arguments.get("pinned")))
        elif timeline is not None:
            self._restore(timeline, entry, turn)

    def _restore(self, timeline: Timeline, entry: Entry, turn: Turn) -> None:
        applier = self._applier
        name = self._forks[timeline.fork] or self._bring(timeline.checkpoint).id
        applier.restore(self._checkpoints.read(name)[1], timeline.id)
        if applier.watching is not None:
            applier.watching.begin(self._checkpoints, name)
            turn.alarms += applier.watching.went_back(entry.id)
        applier.passed(entry, turn)
        written = self._write(parent=name)
        turn.writes.append(replace(timeline, checkpoint=name))
        turn.writes.append(Result(entry.id, {"ok": True, "checkpoint": written.json_object()}))

    def _write(self, **more: Any) -> Manifest:
        watching = self._applier.watching
        kept = None if watching is None else watching.pack()
        snapshot, place = self._applier.learner.snapshot(), self._applier.place(**more)
        return self._checkpoints.write(snapshot, place, self._identity, self._device, kept)

    def _bring(self, name: str) -> Manifest:
        """A checkpoint of the source, from before the replay began; with the other rates, where there are any."""
        if self._otherwise.model:
            raise CopyRefused(f"the source went back to {name}, where its learner began: another model can't")
        there, rates = self._source.checkpoints, self._otherwise.rates
        if name in {manifest.id for manifest in self._checkpoints.list()}:
            return self._checkpoints.manifest(name)
        wrong = copy_checkpoint(there, self._checkpoints, name)
        try:
            manifest, snapshot = self._checkpoints.read(name)
            if not rates:
                return manifest
            learner = Learner(self._applier.learner.config, seed=int(self._source.identity["seed"]))
            learner.load(snapshot)
            learner.set_rates(rates)
            place = Place(
                manifest.journal, manifest.timeline, manifest.cursors, manifest.sequences, manifest.label,
                pinned=manifest.pinned, parent=manifest.parent, created=manifest.created,
            )  # fmt: skip
            kept = self._checkpoints.diagnostics(name)
            self._checkpoints.delete(name)
            return self._checkpoints.write(learner.snapshot(), place, self._identity, self._device, kept)
        except (CheckpointBad, RequestRefused) as error:
            told = wrong[0] if wrong else str(error)
            raise CopyRefused(
                f"the source went back to {name}, which is gone or bad ({told}): say --from {START}"
            ) from None


def source_timelines(path: Path) -> Sequence[Timeline]:
    """The restores of a data directory that is only read."""
    with closing(open_reader(path / "rjepa.db")) as reader:
        try:
            rows = reader.execute(
                "SELECT id, created, parent, checkpoint, fork, start FROM timelines WHERE id > 0"
            ).fetchall()
        except sqlite3.Error as error:
            raise DirectoryRefused(f"{path / 'rjepa.db'} can't be read: {error}") from None
    return [Timeline(*row) for row in rows]


def _seen(entry: Entry) -> Entry:
    """A fixation of which neither features nor patch were left was lost for the source too."""
    return replace(entry, kind="lost") if entry.kind == "fixation" and entry.z is None else entry
