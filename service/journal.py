"""The journal: what everything else is derived from, in the one order that counts.

Every method that writes is one transaction: durable when it returned, nothing of it there if it raised
(:class:`~service.errors.StorageFull`, :class:`~service.errors.StorageFailed`). Safe from any thread.

    ingest      claim, append            a stream's epoch; fixations with their patches and the streams' cursors
    control     append_command           what changes the learner beside fixations
    learning    put_turn                 z, records, results of commands, alarms and the learned cursor together
                put_features             z alone, where recovery has to see a patch again
                drop_patches             retention
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service import records
from service.appending import append_fixations
from service.events import write_alarms, write_checkpoints
from service.records import Record
from service.retained import Limits, drop_patches
from service.schema import DROPPED, LOOK
from service.storage import Database, unreadable


class Admitted(NamedTuple):
    """A fixation that ingest has found good. ``body`` is the message's JSON, ``patch`` frame 3 as it came."""

    stream: str
    seq: int
    time_s: float
    body: str
    digest: bytes
    patch: bytes
    padded: bool
    frame_deg_assumed: bool


@dataclass(frozen=True)
class Entry:
    """One line of the journal. ``z`` is float32 (m,), None until the retina has seen the patch."""

    id: int
    time_s: float
    kind: str
    stream: str | None
    seq: int | None
    body: dict[str, Any]
    z: NDArray[np.float32] | None


@dataclass(frozen=True)
class StreamCursor:
    """A stream's place on the wire."""

    name: str
    epoch: int
    next_seq: int
    learned_seq: int


@dataclass(frozen=True)
class Alarm:
    """Something the operator should know. ``kind`` as in the table of alarms in the documentation."""

    kind: str
    detail: str
    stream: str | None = None


@dataclass(frozen=True)
class Timeline:
    """A restore: from journal id ``start`` on, the learner goes on from ``checkpoint``, which had learned ``fork``."""

    id: int
    created_s: float
    parent: int
    checkpoint: str
    fork: int
    start: int


@dataclass(frozen=True)
class Forget:
    """A stream was deleted by the command ``id``: what came before it goes."""

    id: int
    stream: str


@dataclass(frozen=True)
class Result:
    """What the command ``id`` came to."""

    id: int
    value: dict[str, Any]


@dataclass
class Turn:
    """What one turn of the learning loop makes durable together; ``writes`` in the order they happened."""

    learned_id: int
    writes: list[Record | Forget | Result | Timeline] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    features: Sequence[tuple[int, NDArray[np.float32]]] = ()
    """z (m,) by journal id, of what was seen for it: also of what is only learned next."""


class Journal:
    """The write side of ``rjepa.db``, and the reads the worker needs; see the module's table."""

    def __init__(self, path: Path, *, before_commit: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._database = Database(path, before_commit=before_commit)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    # Ingest.

    def append(self, batch: Sequence[Admitted]) -> None:
        """Append fixations, each the next of its stream, and move the streams' cursors."""
        with self._database.write("fixations", in_memory=True) as connection:
            append_fixations(connection, batch)

    def claim(
        self, stream: str, epoch: int, time_s: float, *, lost: range = range(0), alarm: Alarm | None = None
    ) -> None:
        """Make a stream's epoch durable, with the gap that was found at the same time, if any.

        ``lost`` are the seqs nobody has any more, beginning at the stream's next: each becomes an entry.
        """
        with self._database.write("epoch") as connection:
            connection.execute(
                "INSERT INTO streams (name, created, epoch, next_seq) VALUES (?, ?, ?, 0)"
                " ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch",
                (stream, time_s, epoch),
            )
            if lost:
                connection.executemany(
                    "INSERT INTO journal (time, kind, stream, seq, body) VALUES (?, 'lost', ?, ?, '{}')",
                    ((time_s, stream, seq) for seq in lost),
                )
                connection.execute("UPDATE streams SET next_seq = ? WHERE name = ?", (lost.stop, stream))
            write_alarms(connection, time_s, [alarm] if alarm else [])

    # Control.

    def append_command(self, name: str, stream: str | None, arguments: dict[str, Any], time_s: float) -> int:
        """Append a command; its journal id."""
        body = json.dumps({"name": name, "arguments": arguments})
        with self._database.write("command") as connection:
            row = connection.execute(
                "INSERT INTO journal (time, kind, stream, body) VALUES (?, 'command', ?, ?) RETURNING id",
                (time_s, stream, body),
            ).fetchone()
            return int(row[0])

    # Learning.

    def put_features(self, features: Iterable[tuple[int, NDArray[np.float32]]]) -> None:
        """Keep z (float32, m) by journal id."""
        with self._database.write("features") as connection:
            _write_features(connection, features)

    def put_turn(self, turn: Turn, time_s: float) -> None:
        """Everything a turn of the learning loop came to, and the learned cursor."""
        with self._database.write("records") as connection:
            _write_features(connection, turn.features)
            for write in turn.writes:
                if isinstance(write, Record):
                    _write_record(connection, write)
                elif isinstance(write, Forget):
                    _forget(connection, write)
                elif isinstance(write, Result):
                    _write_result(connection, write)
                else:
                    _write_timeline(connection, write)
            write_checkpoints(connection, turn.checkpoints)
            write_alarms(connection, time_s, turn.alarms)
            for key, value in ({"learned_id": str(turn.learned_id)} | turn.meta).items():
                _write_meta(connection, key, value)
            connection.execute("DELETE FROM attempts WHERE id <= ? AND count < 3", (turn.learned_id,))

    def put_result(self, result: Result) -> None:
        """The result of a command that was finished after its turn."""
        with self._database.write("result") as connection:
            _write_result(connection, result)

    def put_alarm(self, alarm: Alarm, time_s: float, standing: dict[str, str | None] | None = None) -> None:
        """One alarm by itself, with what it changes in ``meta``: a value of None takes the key away."""
        with self._database.write("alarm") as connection:
            write_alarms(connection, time_s, [alarm])
            for key, value in (standing or {}).items():
                if value is None:
                    connection.execute("DELETE FROM meta WHERE key = ?", (key,))
                else:
                    _write_meta(connection, key, value)

    def put_checkpoints(self, told: Iterable[dict[str, Any]]) -> None:
        """Checkpoints, as HTTP tells them, that are there now; those known already stay as they are."""
        with self._database.write("checkpoints") as connection:
            write_checkpoints(connection, told)

    def put_meta(self, key: str, value: str) -> None:
        """Set one key of ``meta``."""
        with self._database.write("meta") as connection:
            _write_meta(connection, key, value)

    def drop_looks(self) -> None:
        """No stream has a last look any more."""
        with self._database.write("meta") as connection:
            _drop_looks(connection)

    def drop_patches(self, limits: Limits, behind: int, now_s: float) -> int:
        """Drop the oldest patches that are over ``limits``, a few; how many. See :mod:`service.retention`."""
        with self._database.write("retention") as connection:
            return drop_patches(connection, limits, behind, now_s)

    def count_crash(self, entry: int) -> int:
        """A process died while it learned ``entry``: count it; the count so far."""
        with self._database.write("attempts") as connection:
            row = connection.execute(
                "INSERT INTO attempts VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET count = count + 1 RETURNING count",
                (entry,),
            ).fetchone()
            return int(row[0])

    # Reading, for the worker's own threads.

    def meta(self, key: str) -> str | None:
        """One value of ``meta``."""
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def looks(self) -> dict[str, dict[str, Any]]:
        """Of each stream that was looked at the last look, see :mod:`service.watching`."""
        return self.told(LOOK)

    def told(self, before: str) -> dict[str, dict[str, Any]]:
        """What ``meta`` has under keys beginning with ``before``, by the rest of the key."""
        rows = self._read("SELECT key, value FROM meta WHERE substr(key, 1, ?) = ?", (len(before), before))
        return {key[len(before) :]: json.loads(value) for key, value in rows}

    def checkpoints_told(self) -> set[str]:
        """The ids of all checkpoints that were ever told."""
        return {str(row[0]) for row in self._read("SELECT checkpoint FROM checkpoints")}

    def learned_id(self) -> int:
        """The last journal id whose record or result is durable; 0 before the first."""
        return int(self.meta("learned_id") or 0)

    def timeline(self) -> int:
        """The present timeline."""
        return int(self.meta("timeline") or 0)

    def last_id(self) -> int:
        """The newest journal id; 0 when there is none."""
        return int(self._read("SELECT coalesce(max(id), 0) FROM journal")[0][0])

    def cursors(self) -> list[StreamCursor]:
        """Every stream's place."""
        rows = self._read("SELECT name, epoch, next_seq, learned_seq FROM streams ORDER BY name")
        return [StreamCursor(*row) for row in rows]

    def digest(self, stream: str, seq: int) -> bytes | None:
        """The digest of a held fixation; None where the seq is not held, or was reported lost."""
        row = self._one("SELECT digest FROM journal WHERE stream = ? AND seq = ?", (stream, seq))
        return None if row is None else row[0]

    def entries(self, after: int, limit: int) -> list[Entry]:
        """The next entries after a journal id, at most ``limit``."""
        rows = self._read(
            "SELECT journal.id, time, kind, stream, seq, body, z FROM journal LEFT JOIN features USING (id)"
            " WHERE journal.id > ? ORDER BY journal.id LIMIT ?",
            (after, limit),
        )
        return [
            Entry(entry, time_s, kind, stream, seq, json.loads(body), None if z is None else records.numbers(z))
            for entry, time_s, kind, stream, seq, body, z in rows
        ]

    def patch(self, entry: int) -> bytes | None:
        """Frame 3 of a fixation, while it is kept."""
        row = self._one("SELECT bytes FROM patches WHERE id = ?", (entry,))
        return None if row is None else bytes(row[0])

    def waiting(self) -> tuple[int, float | None]:
        """How many fixations are not learned yet, and when the oldest of them came (unix s)."""
        ((count, oldest),) = self._read(
            "SELECT count(*), min(time) FROM journal WHERE id > ? AND kind = 'fixation'", (self.learned_id(),)
        )
        return int(count), oldest

    def quarantined(self) -> set[int]:
        """Entries at which the process died three times."""
        return {int(row[0]) for row in self._read("SELECT id FROM attempts WHERE count >= 3")}

    def begun_from(self) -> set[str]:
        """The checkpoints timelines began from: recovery needs them where it makes a restore again."""
        return {timeline.checkpoint for timeline in self.timelines().values()}

    def timelines(self) -> dict[int, Timeline]:
        """Every restore that was made, by the timeline it began; the first timeline, 0, has none."""
        rows = self._read("SELECT id, created, parent, checkpoint, fork, start FROM timelines WHERE id > 0")
        return {row[0]: Timeline(*row) for row in rows}

    def _one(self, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return next(iter(self._read(query, values)), None)

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of ``query``. Raises StorageFailed, :class:`~service.errors.DatabaseDamaged`."""
        try:
            return self._database.connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise unreadable(self.path, error) from error


def _write_features(connection: sqlite3.Connection, features: Iterable[tuple[int, NDArray[np.float32]]]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO features (id, z) VALUES (?, ?)", ((entry, records.pack(z)) for entry, z in features)
    )


def _write_record(connection: sqlite3.Connection, record: Record) -> None:
    connection.execute(records.INSERT, record.row())
    connection.execute(
        "UPDATE streams SET learned_seq = max(learned_seq, ?), learned = learned + ? WHERE name = ?",
        (record.seq, record.skipped is None, record.stream),
    )


def _forget(connection: sqlite3.Connection, forget: Forget) -> None:
    before = (forget.stream, forget.id)
    connection.execute(
        "DELETE FROM patches WHERE id IN (SELECT id FROM journal WHERE stream = ? AND seq IS NOT NULL AND id < ?)",
        before,
    )
    connection.execute("DELETE FROM records WHERE stream = ? AND id < ?", before)
    connection.execute("DELETE FROM alarms WHERE stream = ?", (forget.stream,))
    connection.execute("DELETE FROM meta WHERE key IN (?, ?)", (LOOK + forget.stream, DROPPED + forget.stream))
    connection.execute(
        "UPDATE streams SET learned = 0, (padded, frame_deg_assumed) = ("
        "SELECT count(*) FILTER (WHERE json_extract(body, '$.patch.padded') > 0),"
        " count(*) FILTER (WHERE json_extract(body, '$.frame_deg') IS NULL)"
        " FROM journal WHERE stream = name AND seq IS NOT NULL AND kind = 'fixation' AND id > ?) WHERE name = ?",
        (forget.id, forget.stream),
    )


def _write_result(connection: sqlite3.Connection, result: Result) -> None:
    connection.execute("UPDATE journal SET result = ? WHERE id = ?", (json.dumps(result.value), result.id))


def _write_timeline(connection: sqlite3.Connection, timeline: Timeline) -> None:
    connection.execute(
        "INSERT INTO timelines (id, created, parent, checkpoint, fork, start) VALUES (?, ?, ?, ?, ?, ?)",
        (timeline.id, timeline.created_s, timeline.parent, timeline.checkpoint, timeline.fork, timeline.start),
    )
    connection.execute("UPDATE meta SET value = ? WHERE key = 'timeline'", (str(timeline.id),))
    _drop_looks(connection)


def _drop_looks(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM meta WHERE substr(key, 1, ?) = ?", (len(LOOK), LOOK))


def _write_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
    )
