"""One stream's fixations as a data directory keeps them: features, gaze, and the embedding as it was recorded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.action import Look
from service import records
from service.entries import look_of
from service.errors import DirectoryRefused, ExperimentRefused
from service.storage import check_readable, open_reader

_AT_ONCE = 256
"""Entries of one read: short, so that a running worker's log does not grow."""
_ENTRIES = (
    "SELECT journal.id, kind, journal.seq, body, z, embedding, records.skipped FROM journal"
    " LEFT JOIN features USING (id) LEFT JOIN records USING (id)"
    " WHERE journal.id > ? AND (journal.stream = ? OR journal.stream IS NULL) ORDER BY journal.id LIMIT ?"
)


@dataclass
class Fixations:
    """One stream, in order; each list has an entry for each fixation."""

    identity: dict[str, Any]
    seqs: list[int] = field(default_factory=list)
    z: list[NDArray[np.float32] | None] = field(default_factory=list)
    """m numbers; None where none are kept, or the fixation ended the worker."""
    looks: list[Look] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    """Whether it begins anew: marked, or what came before it is not known."""
    recorded: list[NDArray[np.float32] | None] = field(default_factory=list)
    """q numbers; None where there was none, or the fixation was a repeat."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.seqs)


def fixations_of(data_dir: Path, stream: str) -> Fixations:
    """Every fixation of ``stream`` since it was last deleted; a worker may be running.

    Raises :class:`ExperimentRefused` for a stream there is not, :class:`DirectoryRefused` where there is no journal.
    """
    path = data_dir / "rjepa.db"
    with closing(open_reader(path)) as reader:
        check_readable(path, reader)
        try:
            made = reader.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
            names = [str(row[0]) for row in reader.execute("SELECT name FROM streams ORDER BY name")]
            if stream not in names:
                raise ExperimentRefused(f"{data_dir} has no stream {stream!r}; there are {', '.join(names) or 'none'}")
            found = _gathered(_entries(reader, stream), {} if made is None else json.loads(made[0]))
        except sqlite3.Error as error:
            raise DirectoryRefused(f"{path} can't be read: {error}; restore it from a backup") from None
    if not found.count:
        raise ExperimentRefused(f"stream {stream!r} in {data_dir} has no fixation")
    return found


def _entries(reader: sqlite3.Connection, stream: str) -> Iterator[tuple[Any, ...]]:
    after = 0
    while rows := reader.execute(_ENTRIES, (after, stream, _AT_ONCE)).fetchall():
        after = int(rows[-1][0])
        yield from rows


def _gathered(entries: Iterator[tuple[Any, ...]], identity: dict[str, Any]) -> Fixations:
    found, broken = Fixations(identity), False
    for _, kind, seq, text, z, embedding, skipped in entries:
        if kind == "fixation":
            body = json.loads(text)
            quarantined = skipped == "quarantined"
            found.seqs.append(int(seq))
            found.z.append(None if z is None or quarantined else records.numbers(z))
            found.looks.append(look_of(body))
            found.starts.append(broken or bool((body.get("sequence") or {}).get("start")))
            found.recorded.append(None if embedding is None or skipped else records.numbers(embedding))
            broken = z is None or quarantined
        elif kind == "lost":
            broken = True
        else:
            name = json.loads(text)["name"]
            if name == "delete":
                found = Fixations(identity)
            broken = broken or name in ("delete", "reset", "restore")
    return found
