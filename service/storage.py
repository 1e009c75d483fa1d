"""The database file itself: connections, transactions, and what to call it when the disk says no.

WAL and ``synchronous=FULL``: a commit that returned is on the disk. Every thread has its own connection;
one lock for the whole process lets one transaction write at a time, so a writer never waits inside SQLite, and another
one keeps apart who writes to SQLite's log and who copies it to the file.

After a sync that failed nobody knows what is on the disk: the system may take what it could not write for written, and
let a later sync of it succeed. Nothing is asked again here, all is written again: a transaction that is tried again
writes its pages anew over the failed ones, and so does SQLite with what it could not bring from its log to its file,
but for what it brought there in part, while a reader's open look held the rest back: that it brings once.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.errors import DatabaseDamaged, DirectoryRefused, StorageFailed, StorageFull
from service.schema import DDL, MIGRATIONS, READABLE_VERSIONS, SCHEMA_VERSION
from service.write_ahead import Copier

BUSY_TIMEOUT_S = 10.0
"""How long a write waits for another process that holds the file, a backup say."""
WAL_LIMIT_BYTES = 64 << 20
LITTLE_ROOM_BYTES = 1 << 20
"""An input/output error on a disk with less room than this is called a full disk."""

_PIECE_BYTES = 1 << 20

log = logging.getLogger("rjepa.storage")


class Database:
    """``rjepa.db``, opened for writing; made if it is not there.

    ``before_commit`` is called with the name of a transaction when all is written and nothing committed; what it
    raises ends the transaction as a failing disk would. Raises :class:`DirectoryRefused` when the file is no
    database of ours, of another schema version, or on a file system without shared memory, :class:`StorageFailed`
    where what its log holds can't be written anew.
    """

    def __init__(self, path: Path, *, before_commit: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._before_commit = before_commit
        self._lock = threading.Lock()
        self._log_lock = threading.Lock()
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._closed = False
        self._copier: Copier | None = None
        try:
            self._settle()
            self._check_or_make()
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection, in autocommit: for reading."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            if self._closed:
                raise StorageFailed(f"{self.path} is closed")
            found = _connect(self.path)
            self._local.connection = found
            self._opened.append(found)
        return found

    @contextmanager
    def write(self, what: str, *, in_memory: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, durable when the block was left; nothing of it is there if it raised.

        One ``in_memory`` writes to the log when it commits and not before, so that the log can be copied to the file
        until then; whatever it changes is held in memory. Raises :class:`StorageFull` or :class:`StorageFailed`, with
        SQLite's error as the cause.
        """
        with self._lock, ExitStack() as log:
            try:
                connection = self.connection
                if not in_memory:
                    log.enter_context(self._log_lock)
                connection.execute(f"PRAGMA cache_spill={'OFF' if in_memory else 'ON'}")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    if self._before_commit is not None:
                        self._before_commit(what)
                    if in_memory:
                        log.enter_context(self._log_lock)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                if self._copier is not None:
                    self._copier.committed(connection)
            except (sqlite3.Error, OSError) as error:
                raise self._failure(what, error) from error

    def close(self) -> None:
        """Close every thread's connection; the threads must have ended or be done with theirs."""
        if self._copier is not None:
            self._copier.stop()
            self._copier = None
        with self._lock:
            self._closed = True
            for connection in self._opened:
                connection.close()
            self._opened.clear()

    def _failure(self, what: str, error: Exception) -> StorageFailed:
        code = getattr(error, "sqlite_errorcode", None)
        if _is_damage(error):
            return _damaged(self.path, error)
        full = code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and isinstance(error, (sqlite3.OperationalError, OSError)):
            full = _room_bytes(self.path.parent) < LITTLE_ROOM_BYTES
        if full:
            return StorageFull(f"no room to write {what} to {self.path}: {error}; make room, it goes on by itself")
        return StorageFailed(f"{what} could not be written to {self.path}: {error}; it is tried again")

    def _check_or_make(self) -> None:
        try:
            connection = self.connection
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise DirectoryRefused(
                    f"{self.path}: its file system can't hold a write-ahead log (journal mode {mode}); "
                    "put the data directory on a local disk"
                )
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                self._make(connection)
            elif "meta" not in tables:
                raise DirectoryRefused(f"{self.path} is a database of something else; choose another data directory")
            else:
                self._check_version(connection)
            self._copier = Copier(self.path, self._log_lock, _connect)
        except (sqlite3.Error, OSError) as error:
            raise DirectoryRefused(
                f"{self.path} can't be opened: {error}; restore it from a backup or name another data directory"
            ) from error

    def _settle(self) -> None:
        """Write SQLite's log anew, as it is, before anybody is told what it holds.

        A process that ended after a sync had failed leaves a log that can be read and is not on the disk; no later sync
        would write it, and what is made of it (SQLite copies it to the database) would not fit what the disk has.
        """
        place = self.path.with_name(f"{self.path.name}-wal")
        if not place.exists():
            return
        try:
            with place.open("r+b", buffering=0) as file:
                at = 0
                while piece := file.read(_PIECE_BYTES):
                    at += os.pwrite(file.fileno(), piece, at)
                    file.seek(at)
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failure("what its log holds", error) from error

    def _make(self, connection: sqlite3.Connection) -> None:
        start = f"INSERT INTO timelines (id, created, start) VALUES (0, {time.time()!r}, 0);"
        meta = (
            f"INSERT INTO meta VALUES ('schema_version', '{SCHEMA_VERSION}'), ('timeline', '0'), ('learned_id', '0');"
        )
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {DDL} {meta} {start} COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        sync_folder(self.path.parent)

    def _check_version(self, connection: sqlite3.Connection) -> None:
        """Bring the database to this program's version, one version and one transaction after the other."""
        while (found := version_of(connection)) != str(SCHEMA_VERSION):
            if found not in MIGRATIONS:
                raise other_version(self.path, found)
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in MIGRATIONS[found]:
                    connection.execute(statement)
                connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(int(found) + 1),))
                if self._before_commit is not None:
                    self._before_commit("migration")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            log.info("%s: from schema version %s to %d", self.path, found, int(found) + 1)


def unreadable(path: Path, error: sqlite3.Error) -> StorageFailed:
    """What to say of a database that could not be read; :class:`DatabaseDamaged` where it is malformed."""
    if _is_damage(error):
        return _damaged(path, error)
    return StorageFailed(f"{path} could not be read: {error}; it is tried again")


def version_of(connection: sqlite3.Connection) -> str:
    """The schema version of a database of ours."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return str(row[0]) if row else "none"


def check_readable(path: Path, connection: sqlite3.Connection) -> None:
    """Raise :class:`DirectoryRefused` where this program can't read the database; nothing is changed."""
    try:
        found = version_of(connection)
    except sqlite3.Error as error:
        raise DirectoryRefused(
            f"{path} is no database of a worker, or damaged ({error}); name the folder a worker was given as --data-dir"
        ) from None
    if found not in READABLE_VERSIONS:
        raise other_version(path, found)


def other_version(path: Path, found: str) -> DirectoryRefused:
    """What to say of a schema version nobody here knows."""
    return DirectoryRefused(
        f"{path} has schema version {found}, this program knows {', '.join(READABLE_VERSIONS)}; "
        "use the program's version that made it, or another data directory"
    )


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can't write, for another process or thread; rows by name.

    Raises :class:`DirectoryRefused` when there is no database yet.
    """
    if not path.is_file():
        raise DirectoryRefused(f"{path}: there is no such database; a worker makes it when it starts")
    # mode=ro: closing the last connection after a crash leaves the log as the worker will want to find it.
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA query_only=ON")
    return connection


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _connect(path: Path) -> sqlite3.Connection:
    # Closed by another thread than its own at the end, hence check_same_thread=False.
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
    connection.execute("PRAGMA wal_autocheckpoint=0")  # service/write_ahead.py does it
    return connection


def _room_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return LITTLE_ROOM_BYTES


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _damaged(path: Path, error: Exception) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"{path} is damaged ({error}); stop the worker and restore the directory from a backup: rjepa check says more, "
        "and what was acked since the backup its clients offer again or report lost"
    )
