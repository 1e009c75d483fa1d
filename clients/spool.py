"""Fixations on disk until the worker has them.

One SQLite file in a folder, locked for as long as the client runs and written through to the disk
(synchronous=FULL) before a fixation is sent with its seq. It also remembers the stream's epoch, the highest
seq there is an ack for, and below which seq held fixations are not known to be ours (clients/protocol.py).

A call is not durable before :meth:`Spool.commit`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clients.actions import Entry
from clients.errors import SpoolInUse, SpoolRefused

FILE = "spool.db"
FORMAT = 1
LOCK_WAIT_S = 1.0
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fixations (
    row INTEGER PRIMARY KEY,
    seq INTEGER,            -- null until numbered
    body TEXT NOT NULL,     -- JSON of the wire's fixation, without stream and seq
    patch BLOB NOT NULL
);
"""


class Spool:
    """The spool of one stream in ``folder`` (made if it is not there).

    Raises :class:`SpoolInUse` if another client has it open, :class:`SpoolRefused` if it can't be written, is
    damaged, or still holds another stream's fixations.
    """

    def __init__(self, folder: Path, stream: str) -> None:
        self.folder = folder
        self.stream = stream
        try:
            _make_folder(folder)
        except OSError as error:
            raise SpoolRefused(
                f"spool folder {folder} can't be made: {error.strerror}; give another with --spool"
            ) from None
        self._database = _open(folder)
        try:
            with self._writable():
                self._begin()
        except BaseException:
            self._database.close()
            raise

    @property
    def epoch(self) -> int | None:
        """The epoch the worker gave, None if there is none to come back with."""
        return self._number("epoch")

    @property
    def acked(self) -> int:
        """The highest seq there is an ack for, or -1."""
        found = self._number("acked")
        return -1 if found is None else found

    @property
    def held_end(self) -> int:
        """Fixations the worker holds below this seq are not known to be ours."""
        return self._number("held_end") or 0

    @property
    def recorded(self) -> bool:
        """Whether what is kept is a recording's, which still has it itself."""
        return self._number("recorded") == 1

    def begin_recording(self) -> None:
        """Forget what an earlier run of a recording left. Raises :class:`SpoolRefused` where a live stream left it."""
        kept = len(self.entries())
        if kept and not self.recorded:
            raise SpoolRefused(
                f"spool {self.folder} holds {kept} fixations of a live stream {self.stream} that the worker has not "
                "acked: send them first by starting that source again, or give the recording another name with "
                "--stream or another folder with --spool"
            )
        with self._writable():
            self.forget()
            self._put("recorded", 1)
            self.commit()

    def begin_live(self) -> None:
        """What is kept from now on exists nowhere else."""
        with self._writable():
            self._put("recorded", None)
            self.commit()

    def entries(self) -> list[Entry]:
        """What is kept, oldest first."""
        rows = self._database.execute("SELECT row, seq FROM fixations ORDER BY row")
        return [Entry(row, seq) for row, seq in rows]

    def last_row(self) -> int:
        """The highest row kept, 0 for an empty spool."""
        (row,) = self._database.execute("SELECT coalesce(max(row), 0) FROM fixations").fetchone()
        return int(row)

    def keep(self, row: int, body: str, patch: bytes) -> None:
        """Keep a fixation as ``row``, which is above all rows kept."""
        self._database.execute("INSERT INTO fixations (row, body, patch) VALUES (?, ?, ?)", (row, body, patch))

    def read(self, row: int) -> tuple[dict[str, Any], bytes]:
        """The fixation kept as ``row``: the JSON object and the patch's bytes."""
        body, patch = self._database.execute("SELECT body, patch FROM fixations WHERE row = ?", (row,)).fetchone()
        return json.loads(body), patch

    def number(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Give rows their seq: (row, seq) each."""
        self._database.executemany("UPDATE fixations SET seq = ? WHERE row = ?", [(seq, row) for row, seq in pairs])

    def let_go(self, rows: Iterable[int], acked: int) -> None:
        """The worker has these rows."""
        self._database.executemany("DELETE FROM fixations WHERE row = ?", [(row,) for row in rows])
        self._put("acked", acked)

    def remember(self, epoch: int | None, held_end: int) -> None:
        """Keep the epoch (None forgets it) and ``held_end``."""
        self._put("epoch", epoch)
        self._put("held_end", held_end)

    def forget(self) -> None:
        """Drop everything: what is kept, the epoch and the acks."""
        self._database.execute("DELETE FROM fixations")
        self._database.execute("DELETE FROM meta WHERE key IN ('epoch', 'acked', 'held_end')")
        self._database.commit()

    def commit(self) -> None:
        """Make everything since the last commit durable. Raises sqlite3.OperationalError on a full disk."""
        if self._database.in_transaction:
            self._database.commit()

    def rollback(self) -> None:
        """Undo everything since the last commit."""
        self._database.rollback()

    def close(self) -> None:
        """Give the lock back; what was not committed is not kept."""
        self._database.close()

    def _begin(self) -> None:
        try:
            self._database.executescript(_TABLES)
            version = self._number("format")
            named = self._database.execute("SELECT value FROM meta WHERE key = 'stream'").fetchone()
            (kept,) = self._database.execute("SELECT count(*) FROM fixations").fetchone()
        except sqlite3.DatabaseError as error:
            raise SpoolRefused(
                f"spool {self.folder / FILE} is no spool of this version ({error}); give another folder with --spool"
            ) from None
        if version not in (None, FORMAT):
            raise SpoolRefused(f"spool {self.folder} has format {version}, this client reads {FORMAT}: give another")
        if named is not None and named[0] != self.stream:
            if kept:
                raise SpoolRefused(
                    f"spool {self.folder} holds {kept} fixations of stream {named[0]}: send them first with --stream "
                    f"{named[0]}, or give another folder with --spool"
                )
            self.forget()
        self._put("format", FORMAT)
        self._database.execute("INSERT OR REPLACE INTO meta VALUES ('stream', ?)", (self.stream,))
        self.commit()

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """At the beginning a disk that takes nothing is an error; later it is waited for (clients/courier.py)."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise SpoolRefused(
                f"spool {self.folder} can't be written ({error}): make room, or give another folder with --spool"
            ) from None

    def _number(self, key: str) -> int | None:
        found = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else int(found[0])

    def _put(self, key: str, value: int | None) -> None:
        if value is None:
            self._database.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(value)))


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, their names durable where the system lets a folder be synced."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix" or (folder / FILE).exists():
        return
    for each in {folder, *missing}:
        handle = os.open(each.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _open(folder: Path) -> sqlite3.Connection:
    """The database, locked for this process alone until it is closed (also by a crash)."""
    # Handed from the thread that opens it to the thread that uses it, never shared.
    database = sqlite3.connect(folder / FILE, timeout=LOCK_WAIT_S, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN EXCLUSIVE")
        database.commit()
    except sqlite3.OperationalError as error:
        database.close()
        if "locked" in str(error) or "busy" in str(error):
            raise SpoolInUse(
                f"spool {folder} is in use by another client: end that one, or give each its own folder with --spool"
            ) from None
        raise SpoolRefused(f"spool {folder} can't be opened ({error}): give another folder with --spool") from None
    except sqlite3.DatabaseError as error:
        database.close()
        raise SpoolRefused(f"{folder / FILE} is no spool ({error}): give another folder with --spool") from None
    return database
