"""What was learned, read back: short queries by id, on a connection of the caller's own.

Records belong to timelines. A restore begins a new one; the present history is the present timeline and, of
each ancestor, the part up to the entry its descendant went on from.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

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


def records_page(
    connection: sqlite3.Connection, stream: str, *, after: int = -1, limit: int = 1000, timeline: int | None = None
) -> tuple[list[Record], int | None]:
    """Records of a stream with seq above ``after``, ascending by seq, and the cursor for the next page.

    Shown is ``timeline`` (the present one by default) with its ancestors up to the fork.
    """
    limit = max(1, min(limit, MAX_PAGE))
    condition, values = where_lineage(lineage(connection, timeline))
    rows = connection.execute(
        f"{SELECT} WHERE stream = ? AND seq > ? AND {condition} ORDER BY seq LIMIT ?",
        (stream, after, *values, limit + 1),
    ).fetchall()
    page = [Record.from_row(row) for row in rows[:limit]]
    return page, page[-1].seq if len(rows) > limit else None


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
