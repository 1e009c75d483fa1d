"""A batch of fixations into the journal: a few statements however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.journal import Admitted

AT_ONCE = 32
"""Fixations of one statement: AUTOINCREMENT reads and writes its own table once for each statement, and after each of
them this thread asks for the interpreter again."""
_FIXATIONS = [
    "INSERT INTO journal (id, time, kind, stream, seq, body, digest) VALUES "
    + ", ".join(["(?, ?, 'fixation', ?, ?, ?, ?)"] * count)
    for count in range(AT_ONCE + 1)
]
"""By how many there are."""
_PATCHES = ["INSERT INTO patches (id, bytes) VALUES " + ", ".join(["(?, ?)"] * count) for count in range(AT_ONCE + 1)]
"""Likewise."""
_HELD = "UPDATE held SET count = count + ?, bytes = bytes + ? WHERE what = 'patches'"
_LAST_ID = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'"
"""The highest id there ever was: AUTOINCREMENT keeps it, whoever chose the id."""
_MOVE = (
    "UPDATE streams SET next_seq = next_seq + ?, last_time = ?, padded = padded + ?,"
    " frame_deg_assumed = frame_deg_assumed + ? WHERE name = ? AND next_seq = ?"
)


def append_fixations(connection: sqlite3.Connection, batch: Sequence[Admitted]) -> None:
    """Within a transaction: the fixations, their patches and their streams' places.

    Raises sqlite3.IntegrityError where a seq is not its stream's next.
    """
    _move_cursors(connection, batch)
    ((last,),) = connection.execute(_LAST_ID).fetchall()
    numbered = list(enumerate(batch, last + 1))
    for first in range(0, len(batch), AT_ONCE):
        some = numbered[first : first + AT_ONCE]
        connection.execute(
            _FIXATIONS[len(some)], [v for n, f in some for v in (n, f.time_s, f.stream, f.seq, f.body, f.digest)]
        )
    for first in range(0, len(batch), AT_ONCE):
        some = numbered[first : first + AT_ONCE]
        connection.execute(_PATCHES[len(some)], [v for n, f in some for v in (n, f.patch)])
    connection.execute(_HELD, (len(batch), sum(len(f.patch) for f in batch)))


def _move_cursors(connection: sqlite3.Connection, batch: Sequence[Admitted]) -> None:
    streams: dict[str, list[Admitted]] = {}
    for fixation in batch:
        streams.setdefault(fixation.stream, []).append(fixation)
    for stream, new in streams.items():
        first = new[0].seq
        padded, assumed = sum(f.padded for f in new), sum(f.frame_deg_assumed for f in new)
        moved = connection.execute(_MOVE, (len(new), new[-1].time_s, padded, assumed, stream, first))
        wrong = first if moved.rowcount != 1 else next((f.seq for n, f in enumerate(new, first) if f.seq != n), None)
        if wrong is not None:
            raise sqlite3.IntegrityError(f"seq {wrong} of {stream} is not its next")
