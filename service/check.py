"""Is a data directory what it should be: the judge of ``rjepa check``, of every backup, and of the crash tests.

:func:`check` reads, in one snapshot and without a write, so a worker may be running. What it finds is a
:class:`Report`: how many things of each area were looked at, and every fault with its way out.

=========== ==========================================================================================================
database    SQLite's own integrity check; a schema version this program knows
journal     ids and each stream's seqs without a hole and in order, from 0 to the stream's next; digests; commands
patches     each belongs to a fixation and matches its digest; their count and bytes
features    each has the model's size; no learned fixation without, for it could not be learned again
records     one for each learned fixation or loss that was not deleted since, of the same stream and seq, on a timeline
timelines   each began at a restore; recovery finds everything it needs
checkpoints manifest, sha256, cursors that are the journal's at that id, parameters that load into the learner
calibration the digest the directory was made with
=========== ==========================================================================================================
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.wire import Gaze, digest
from model.calibration import Calibration
from model.config import ModelConfig
from model.errors import ModelError
from service.check_checkpoints import good_checkpoints
from service.journal import Timeline
from service.manifests import Manifest
from service.recovery import began, candidates
from service.retained import held_patches
from service.storage import check_readable, open_reader, version_of

AREAS = ("database", "journal", "patches", "features", "records", "timelines", "checkpoints", "calibration")
BACKUP = "restore the directory from a backup"
MOST_NAMED = 5
"""Of faults of one sort so many are named, the rest counted."""
_DELETED = (
    "SELECT 1 FROM journal AS gone WHERE gone.kind = 'command' AND gone.stream = journal.stream"
    " AND gone.id > journal.id AND gone.id <= :learned AND json_extract(gone.body, '$.name') = 'delete'"
)
"""Whether the stream of ``journal``'s row was deleted after it, the deletion carried out."""

Tell = Callable[[str, int], None]


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be."""

    area: str
    what: str
    way_out: str


@dataclass
class Report:
    """What :func:`check` found."""

    looked_at: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def said(self) -> list[str]:
        """Each fault as one line."""
        return [f"{fault.area}: {fault.what}; {fault.way_out}" for fault in self.faults]


def check(data_dir: Path, tell: Tell = lambda area, count: None) -> Report:
    """Look at everything in ``data_dir``; ``tell`` hears of each area how many more things were looked at.

    Raises :class:`DirectoryRefused` where there is no database, or one of a version this program does not know.
    """
    report = Report(dict.fromkeys(AREAS, 0))

    def count(area: str, number: int = 1) -> None:
        report.looked_at[area] += number
        tell(area, number)

    # Checkpoints before the database: what one has learned was durable in the journal when it was written.
    good, faults = good_checkpoints(data_dir / "checkpoints", lambda: count("checkpoints"))
    report.faults += [Fault("checkpoints", *fault) for fault in faults]
    path, meta = data_dir / "rjepa.db", dict[str, str]()
    with closing(open_reader(path)) as connection:
        check_readable(path, connection)
        try:
            connection.execute("BEGIN")
            whole = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
            count("database")
            if whole != ["ok"]:
                raise sqlite3.DatabaseError(" | ".join(whole).replace("\n", " ")[:500])
            meta |= {row[0]: row[1] for row in connection.execute("SELECT key, value FROM meta")}
            database = _Database(connection, meta, count)
            for area in (_journal, _streams, _patches, _features, _records, _timelines):
                report.faults += _few(list(area(database)))
            report.faults += _checkpoints(database, good)
        except sqlite3.Error as error:
            report.faults.append(Fault("database", f"SQLite finds it damaged: {error}", BACKUP))
    report.faults += _calibration(data_dir, meta, count)
    return report


class _Database:
    """One snapshot."""

    def __init__(self, connection: sqlite3.Connection, meta: dict[str, str], count: Callable[..., None]) -> None:
        self.connection = connection
        self.meta = meta
        self.count = count
        self.learned = int(meta.get("learned_id", 0))

    def rows(self, query: str) -> Iterator[Any]:
        return (tuple(row) for row in self.connection.execute(query, {"learned": self.learned}))

    def one(self, query: str) -> Any:
        return next(self.rows(query))


def _journal(database: _Database) -> Iterator[Fault]:
    entries, first, last = database.one("SELECT count(*), min(id), max(id) FROM journal")
    database.count("journal", entries)
    if entries and (first, last) != (1, entries):
        yield Fault("journal", f"{entries} entries have the ids {first} to {last}: {last - entries} are gone", BACKUP)
    if database.learned > (last or 0):
        yield Fault("journal", f"learned up to id {database.learned}, the journal ends at {last or 0}", BACKUP)
    for entry, kind in database.rows(
        "SELECT id, kind FROM journal WHERE NOT json_valid(body) OR (kind = 'fixation' AND (length(digest) IS NOT 32"
        " OR seq IS NULL OR stream IS NULL)) OR (kind = 'command' AND json_extract(body, '$.name') IS NULL)"
    ):
        yield Fault("journal", f"entry {entry} is no {kind} that could be read", BACKUP)
    for entry, name in database.rows(
        "SELECT id, json_extract(body, '$.name') FROM journal WHERE kind = 'command' AND id <= :learned"
        " AND result IS NULL AND json_extract(body, '$.name') <> 'checkpoint'"  # told once the checkpoint is written
    ):
        yield Fault("journal", f"the command {name} (entry {entry}) was carried out and has no result", BACKUP)


def _streams(database: _Database) -> Iterator[Fault]:
    held = {
        stream: numbers
        for stream, *numbers in database.rows(
            "SELECT stream, count(*), min(seq), max(seq), max(CASE WHEN id <= :learned THEN seq ELSE -1 END)"
            " FROM journal WHERE seq IS NOT NULL GROUP BY stream"
        )
    }
    learned = dict(database.rows("SELECT stream, count(*) FROM records WHERE skipped IS NULL GROUP BY stream"))
    for name, epoch, next_seq, learned_seq, count in database.rows(
        "SELECT name, epoch, next_seq, learned_seq, learned FROM streams"
    ):
        entries, first, last, behind = held.pop(name, (0, 0, -1, -1))
        if (entries, first, last) != (next_seq, 0, next_seq - 1):
            told = f"{entries} seqs from {first} to {last}, the next one is {next_seq}"
            yield Fault("journal", f"stream {name} has a hole: {told}", BACKUP)
        if epoch < 1:
            yield Fault("journal", f"stream {name} has epoch {epoch}", BACKUP)
        if learned_seq != behind:
            yield Fault("records", f"stream {name} says learned up to seq {learned_seq}, it was up to {behind}", BACKUP)
        if count != learned.get(name, 0):
            told = f"stream {name} says {count} were learned, {learned.get(name, 0)} have their record"
            yield Fault("records", told, BACKUP)
    for name in held:
        yield Fault("journal", f"stream {name} has entries and no place", BACKUP)
    for entry, stream, seq in database.rows(
        "SELECT id, stream, seq FROM (SELECT id, stream, seq, lag(seq, 1, -1) OVER (PARTITION BY stream ORDER BY id)"
        " AS before FROM journal WHERE seq IS NOT NULL) WHERE seq <> before + 1"
    ):
        yield Fault("journal", f"seq {seq} of stream {stream} (entry {entry}) is out of order", BACKUP)


def _patches(database: _Database) -> Iterator[Fault]:
    number = size = 0
    way = "its record and features are good; only the picture can't be trusted"
    for entry, kind, stream, seq, body, known, patch in database.rows(
        "SELECT patches.id, kind, stream, seq, body, digest, bytes FROM patches LEFT JOIN journal USING (id)"
    ):
        database.count("patches")
        number, size = number + 1, size + len(patch)
        if kind != "fixation":
            yield Fault("patches", f"a patch is kept for entry {entry}, which is no fixation", BACKUP)
        elif known != _digest(body, patch):
            yield Fault("patches", f"the patch of seq {seq} of stream {stream} is not what came", way)
    if version_of(database.connection) != "1" and held_patches(database.connection) != (number, size):
        told = f"{number} patches of {size} bytes are there, {held_patches(database.connection)} are counted"
        yield Fault("patches", told, BACKUP)


def _digest(body: str, patch: bytes) -> bytes | None:
    try:
        told = json.loads(body)
        return digest(told["onset"], told["duration"], Gaze.model_validate(told["gaze"]), patch)
    except (ValueError, KeyError, TypeError):
        return None


def _features(database: _Database) -> Iterator[Fault]:
    database.count("features", database.one("SELECT count(*) FROM features")[0])
    identity = json.loads(database.meta.get("identity", "null"))
    if identity is not None:
        size = 4 * int(identity["model"]["retina"]["features"])
        for entry, held in database.rows(f"SELECT id, length(z) FROM features WHERE length(z) <> {size}"):
            yield Fault("features", f"those of entry {entry} have {held} bytes, not {size}", BACKUP)
    for (entry,) in database.rows(
        "SELECT features.id FROM features LEFT JOIN journal USING (id) WHERE kind IS NOT 'fixation'"
    ):
        yield Fault("features", f"some are kept for entry {entry}, which is no fixation", BACKUP)
    for entry, stream, seq in database.rows(
        "SELECT journal.id, journal.stream, journal.seq FROM journal JOIN records USING (id)"
        " WHERE journal.kind = 'fixation' AND records.skipped IS NOT 'lost' AND records.skipped IS NOT 'quarantined'"
        " AND NOT EXISTS (SELECT 1 FROM features WHERE features.id = journal.id)"
    ):
        yield Fault("features", f"seq {seq} of stream {stream} (entry {entry}) was learned and has none", BACKUP)
    for entry, stream, seq in database.rows(
        "SELECT id, stream, seq FROM journal WHERE kind = 'fixation' AND id > :learned"
        " AND NOT EXISTS (SELECT 1 FROM features WHERE features.id = journal.id)"
        " AND NOT EXISTS (SELECT 1 FROM patches WHERE patches.id = journal.id)"
    ):
        way = "the worker will record it as lost; a backup may have it"
        yield Fault("features", f"seq {seq} of stream {stream} (entry {entry}) has neither them nor a patch", way)


def _records(database: _Database) -> Iterator[Fault]:
    database.count("records", database.one("SELECT count(*) FROM records")[0])
    for entry, stream, seq in database.rows(
        "SELECT records.id, records.stream, records.seq FROM records LEFT JOIN journal USING (id)"
        " WHERE journal.seq IS NULL OR journal.seq <> records.seq OR journal.stream <> records.stream"
    ):
        yield Fault("records", f"that of seq {seq} of stream {stream} has no such entry ({entry})", BACKUP)
    for entry, stream, seq in database.rows("SELECT id, stream, seq FROM records WHERE id > :learned"):
        told = f"that of seq {seq} of stream {stream} (entry {entry}) is there before it was learned"
        yield Fault("records", told, BACKUP)
    for entry, stream, seq in database.rows(
        "SELECT id, stream, seq FROM journal WHERE seq IS NOT NULL AND id <= :learned"
        f" AND NOT EXISTS (SELECT 1 FROM records WHERE records.id = journal.id) AND NOT EXISTS ({_DELETED})"
    ):
        yield Fault("records", f"seq {seq} of stream {stream} (entry {entry}) was learned and has none", BACKUP)
    for stream, seq, number, timeline in database.rows(
        "SELECT stream, seq, count(*), timeline FROM records GROUP BY stream, seq, timeline HAVING count(*) > 1"
    ):
        yield Fault("records", f"seq {seq} of stream {stream} has {number} on timeline {timeline}", BACKUP)
    for entry, timeline in database.rows(
        "SELECT id, timeline FROM records WHERE timeline NOT IN (SELECT id FROM timelines)"
    ):
        yield Fault("records", f"that of entry {entry} is of timeline {timeline}, which never was", BACKUP)


def _timelines(database: _Database) -> Iterator[Fault]:
    numbers = [row[0] for row in database.rows("SELECT id FROM timelines ORDER BY id")]
    database.count("timelines", len(numbers))
    present = int(database.meta.get("timeline", 0))
    if numbers != list(range(len(numbers))) or present != len(numbers) - 1:
        yield Fault("timelines", f"there are {numbers}, the present one is {present}", BACKUP)
    for timeline, start in database.rows(
        "SELECT timelines.id, start FROM timelines LEFT JOIN journal ON journal.id = start WHERE timelines.id > 0 AND"
        " (json_extract(body, '$.name') IS NOT 'restore' OR start > :learned OR fork >= start"
        " OR parent >= timelines.id)"
    ):
        yield Fault("timelines", f"timeline {timeline} did not begin at a restore (entry {start})", BACKUP)


def _checkpoints(database: _Database, good: list[Manifest]) -> list[Fault]:
    """Whether the checkpoints stand where the journal says, and recovery has what it needs."""
    faults, usable = [], []
    timelines = {
        row[0]: Timeline(*row)
        for row in database.rows("SELECT id, created, parent, checkpoint, fork, start FROM timelines WHERE id > 0")
    }
    way = "the worker uses the one before it; remove its folder"
    for manifest in good:
        if manifest.timeline not in {0, *timelines}:
            continue  # of a restore under way, or that never came to be: the next start removes it
        if manifest.journal > database.learned:
            told = f"{manifest.id} knows journal id {manifest.journal}, learned is up to {database.learned}"
            faults.append(Fault("checkpoints", told, way))
            continue
        cursors = dict(
            database.rows(
                f"SELECT stream, max(seq) + 1 FROM journal WHERE seq >= 0 AND id <= {manifest.journal} GROUP BY 1"
            )
        )
        if {name: cursor for name, cursor in manifest.cursors.items() if cursor} != cursors:
            told = f"{manifest.id} has the cursors {manifest.cursors}, the journal there {cursors}"
            faults.append(Fault("checkpoints", told, way))
            continue
        usable.append(manifest)
    begun = database.meta.get("begun")
    first = next(candidates(usable, int(database.meta.get("timeline", 0)), timelines, begun), None)
    names, behind = {manifest.id for manifest in usable}, 0 if first is None else first.journal
    if first is None and begun is not None:
        faults.append(Fault("timelines", f"it began from checkpoint {began(begun)[0]}, and none can be used", BACKUP))
    for timeline in timelines.values():
        if timeline.start > behind and timeline.checkpoint not in names:
            told = f"recovery needs {timeline.checkpoint}, which timeline {timeline.id} began from; it can't be used"
            faults.append(Fault("timelines", told, "restore that checkpoint from a backup"))
    return faults


def _calibration(data_dir: Path, meta: dict[str, str], count: Callable[..., None]) -> list[Fault]:
    if "identity" not in meta:
        return []  # its first start did not get so far
    identity = json.loads(meta["identity"])
    if "calibration" not in identity:
        return []
    count("calibration")
    try:
        found = Calibration.load(data_dir / "calibration.safetensors").digest
        ModelConfig.parse(identity["model"])
    except ModelError as error:
        return [Fault("calibration", str(error), BACKUP)]
    if found != identity["calibration"]:
        told = f"its digest is {found[:12]}, the directory was made with {identity['calibration'][:12]}"
        return [Fault("calibration", told, "restore calibration.safetensors from a backup")]
    return []


def _few(faults: list[Fault]) -> list[Fault]:
    """At most :data:`MOST_NAMED` of one area and way out, and how many more there are."""
    kept: list[Fault] = []
    more: dict[tuple[str, str], int] = {}
    for fault in faults:
        sort = (fault.area, fault.way_out)
        if sum((each.area, each.way_out) == sort for each in kept) < MOST_NAMED:
            kept.append(fault)
        else:
            more[sort] = more.get(sort, 0) + 1
    return kept + [Fault(area, f"and {number} more of the kind", way) for (area, way), number in more.items()]
