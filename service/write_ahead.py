"""The write-ahead log of the database: how far it goes, and who brings what it holds into the file.

A commit writes its pages to the log and waits for the disk; that is all it does. What the log holds a thread of its own
copies to the file, between two commits. SQLite would have the commit that fills the log do it on its way.

It copies with the log's lock in its hand: nobody writes to the log meanwhile. A transaction that is under way then
holds what it has changed in memory (:meth:`service.storage.Database.write`); where it began before all was copied, a
later one begins the log anew. SQLite before 3.51.3 can lose pages where a log is begun anew, by the first who writes to
it once it is copied, at the very moment at which another connection sets about copying it; and a sync of the log that
failed for the copier can have covered nothing that a commit has yet to be told of.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

COPY_PAGES = 1000
"""A log of so many pages is copied to the file."""
BOUND_PAGES = 8000
"""A log that has come so far is copied by the commit that brought it there, before another begins."""

_HEADER = struct.Struct(">8x I 4x 8s 8x")
_FRAME = struct.Struct(">8x 8s 8x")

log = logging.getLogger("rjepa.storage")


class WriteAheadLog:
    """The file ``PATH-wal``, of a database of which a connection is open."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path.with_name(f"{path.name}-wal"), os.O_RDONLY)

    def reaches(self, pages: int) -> bool:
        """Whether it has ``pages`` pages since it was begun anew; not while a transaction writes.

        The page in that place has the log's salt then, and another one, of an earlier turn, or nothing, if it has not.
        """
        header = os.pread(self._file, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return False
        page_bytes, salt = _HEADER.unpack(header)
        frame = os.pread(self._file, _FRAME.size, _HEADER.size + (pages - 1) * (_FRAME.size + page_bytes))
        return len(frame) == _FRAME.size and bool(_FRAME.unpack(frame)[0] == salt)

    def close(self) -> None:
        """Close the file. SQLite has no lock on it that this could take away."""
        os.close(self._file)


class Copier:
    """Copies the log to the file whenever it has grown by enough, in a thread of its own.

    ``lock`` is held by whoever writes to the log, ``connect`` opens a connection for the thread. A copy that fails is
    told once and tried again after the next commit: nothing is lost by it, the log has it all.
    """

    def __init__(self, path: Path, lock: threading.Lock, connect: Callable[[Path], sqlite3.Connection]) -> None:
        self._path = path
        self._lock = lock
        self._connect = connect
        self._log = WriteAheadLog(path)
        self._wanted = threading.Event()
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def committed(self, connection: sqlite3.Connection) -> None:
        """A transaction was committed on ``connection``; called with the lock held."""
        try:
            if not self._log.reaches(COPY_PAGES):
                return
            late = self._log.reaches(BOUND_PAGES)
        except OSError:
            late = False
        if late:
            self._copy(connection)
        else:
            self._wanted.set()

    def stop(self) -> None:
        """Copy no more; what is left SQLite copies with the last connection, or the next worker."""
        self._stopping = True
        self._wanted.set()
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        with ExitStack() as stack:
            connection: sqlite3.Connection | None = None
            while True:
                self._wanted.wait()
                self._wanted.clear()
                if self._stopping:  # looked at after the event is cleared: a stop in between sets it again
                    return
                try:
                    connection = connection or stack.enter_context(closing(self._connect(self._path)))
                except sqlite3.Error as error:
                    self._failed(error)
                    continue
                with self._lock:
                    self._copy(connection)

    def _copy(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self._failed(error)
        else:
            self._failing = False

    def _failed(self, error: sqlite3.Error) -> None:
        if not self._failing:
            log.warning("%s: its log could not be copied to it: %s; it is tried again", self._path, error)
        self._failing = True
