"""Which patches stay: the newest, up to an age and a size; and how the others go, a few in one transaction.

A patch is dropped once three things are so: it is over one of the limits, z of it is kept, and the second newest
verified checkpoint has learned it. What is left of its fixation is everything but the picture: the message, the
digest (so that a duplicate is known), z (so that it can be learned again, live, in a recovery and in a replay)
and the record. The pages it took are taken by what comes next: the file stops growing, it does not shrink.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

AT_ONCE = 64
"""Patches of one transaction: some half a megabyte, a few milliseconds."""
DAY_S = 86_400.0


@dataclass(frozen=True)
class Limits:
    """How old the oldest patch and how large all of them may be."""

    age_s: float
    size_bytes: float


def held_patches(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many patches are held, and their bytes."""
    row = connection.execute("SELECT count, bytes FROM held WHERE what = 'patches'").fetchone()
    return int(row[0]), int(row[1])


def drop_patches(connection: sqlite3.Connection, limits: Limits, behind: int, now_s: float) -> int:
    """Drop the oldest patches over ``limits``, at most :data:`AT_ONCE`, of journal ids up to ``behind``; how many."""
    over = held_patches(connection)[1] - limits.size_bytes
    oldest = connection.execute(
        "SELECT patches.id, length(patches.bytes), journal.time FROM patches JOIN journal USING (id)"
        " JOIN features USING (id) WHERE patches.id <= ? ORDER BY patches.id LIMIT ?",
        (behind, AT_ONCE),
    ).fetchall()
    doomed = []
    for entry, size, time_s in oldest:
        if over <= 0 and time_s >= now_s - limits.age_s:
            break
        doomed.append((entry,))
        over -= size
    connection.executemany("DELETE FROM patches WHERE id = ?", doomed)
    return len(doomed)
