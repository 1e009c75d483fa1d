"""What was learned, read back: short queries by id, on a connection of the caller's own.

Records belong to timelines. A restore begins a new one; the present history is the present timeline and, of
each ancestor, the part up to the entry its descendant went on from.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from service.records import SELECT, Record

MAX_PAGE = 10_000


@dataclass(frozen=True)
class Part:
    """The records of one timeline that count: those up to journal id ``last``; all where it is None."""

    timeline: int
    last: int | None


@dataclass(frozen=True)
class PatchRow:
    """A stored patch: frame 3 as it came and the encoding its message named."""

    id: int
    body: str
    bytes: bytes


def present_timeline(connection: sqlite3.Connection) -> int:
    """The timeline that is being written."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'timeline'").fetchone()
    return int(row[0])


def learned_id(connection: sqlite3.Connection) -> int:
    """The journal id up to which everything was learned."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'learned_id'").fetchone()
    return int(row[0])


def lineage(connection: sqlite3.Connection, timeline: int | None = None) -> list[Part]:
    """The parts that make up a timeline's history, newest first; the present one's by default.

    A timeline that does not exist gives an empty list.
    """
    rows = {row[0]: (row[1], row[2]) for row in connection.execute("SELECT id, parent, fork FROM timelines")}
    at: int | None = present_timeline(connection) if timeline is None else timeline
    last: int | None = None
    parts: list[Part] = []
    while at is not None and at in rows and len(parts) < len(rows):
        parts.append(Part(at, last))
        parent, fork = rows[at]
        if fork is not None:
            last = fork if last is None else min(last, fork)
        at = parent
    return parts


def where_lineage(parts: list[Part]) -> tuple[str, list[int]]:
    """An SQL condition on ``records`` that holds for the rows of ``parts``, and its values."""
    if not parts:
        return "0", []
    conditions, values = [], []
    for part in parts:
        if part.last is None:
            conditions.append("timeline = ?")
            values.append(part.timeline)
        else:
            conditions.append("(timeline = ? AND id <= ?)")
            values += [part.timeline, part.last]
    return f"({' OR '.join(conditions)})", values


@dataclass(frozen=True)
class View:
    """A stream's history as of one moment: nothing learned, and no restore made, after it changes what is in it.

    ``parts`` are those of ``timeline``, none reaching beyond ``moment``, the journal id learned by then.
    """

    stream: str
    timeline: int
    moment: int
    parts: list[Part]

    def rows(
        self, connection: sqlite3.Connection, columns: tuple[str, ...], *, after: int, until: int, limit: int
    ) -> list[tuple[Any, ...]]:
        """``columns`` of at most ``limit`` records with ``after`` < seq <= ``until``, ascending by seq."""
        condition, values = where_lineage(self.parts)
        cursor = connection.cursor()
        cursor.row_factory = None
        query = (
            f"SELECT {', '.join(columns)} FROM records WHERE stream = ? AND seq > ? AND seq <= ? AND {condition}"
            " ORDER BY seq LIMIT ?"
        )
        return cursor.execute(query, (self.stream, after, until, *values, limit)).fetchall()

    def page_end(self, connection: sqlite3.Connection, *, after: int, limit: int) -> int | None:
        """The last seq of the page of ``limit`` records above ``after``; None where nothing comes after that page."""
        condition, values = where_lineage(self.parts)
        rows = connection.execute(
            f"SELECT seq FROM records WHERE stream = ? AND seq > ? AND {condition} ORDER BY seq LIMIT 2 OFFSET ?",
            (self.stream, after, *values, limit - 1),
        ).fetchall()
        return int(rows[0][0]) if len(rows) == 2 else None

    def forgotten(self, connection: sqlite3.Connection, since: int) -> tuple[bool, int]:
        """Whether the stream was deleted after journal id ``since``, and the journal id to ask from the next time."""
        learned = learned_id(connection)
        found = connection.execute(
            "SELECT 1 FROM journal WHERE id > ? AND id <= ? AND kind = 'command' AND stream = ?"
            " AND json_extract(body, '$.name') = 'delete' AND coalesce(json_extract(result, '$.ok'), 1)",
            (since, learned, self.stream),
        ).fetchone()
        return found is not None, learned


def view(connection: sqlite3.Connection, stream: str, timeline: int | None = None) -> View | None:
    """The history of ``stream`` as it stands, of the present timeline by default; None for a timeline there is not."""
    moment = learned_id(connection)
    chosen = present_timeline(connection) if timeline is None else timeline
    parts = [
        Part(part.timeline, moment if part.last is None else min(part.last, moment))
        for part in lineage(connection, chosen)
    ]
    return View(stream, chosen, moment, parts) if parts else None


def records_after_id(
    connection: sqlite3.Connection, after: int, *, limit: int = 1000, stream: str | None = None
) -> list[Record]:
    """Records with journal id above ``after``, of one stream or all, in journal order: what events follow."""
    chosen, values = ("", ()) if stream is None else (" AND stream = ?", (stream,))
    rows = connection.execute(f"{SELECT} WHERE id > ?{chosen} ORDER BY id LIMIT ?", (after, *values, limit))
    return [Record.from_row(row) for row in rows]


def patch_row(connection: sqlite3.Connection, stream: str, seq: int) -> PatchRow | None:
    """The stored patch of a fixation; None where it is unknown or its patch was dropped."""
    row = connection.execute(
        "SELECT journal.id, body, bytes FROM journal JOIN patches USING (id) WHERE stream = ? AND seq = ?",
        (stream, seq),
    ).fetchone()
    return None if row is None else PatchRow(row[0], row[1], bytes(row[2]))
