"""Every error of a stream as arrays, kept in memory and brought up to date by the rows that are new.

A record never changes once it is written, so only a restore (another lineage) and the deletion of a stream
(its first record is gone) make what is kept worthless. Reading goes in short transactions.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from service.api.curve import Errors, Floats, Integers
from service.errors import ServiceError
from service.history import Part, lineage, where_lineage
from service.schema import TRIVIAL_ERRORS

ROWS_A_READ = 20_000
ROWS_KEPT = 2_000_000
"""Of all streams together, about 100 bytes each; the streams not asked for longest go first."""

log = logging.getLogger("rjepa.api")

_COLUMNS = ", ".join(["time", "prediction_error", *(f"trivial_{name}" for name in TRIVIAL_ERRORS)])


class ErrorHistory:
    """The errors of every stream's present history. ``read`` opens one short transaction. Safe from any thread."""

    def __init__(self, read: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Rows] = OrderedDict()
        self._ahead_lock = threading.Lock()
        self._ahead: set[str] = set()

    def get(self, stream: str) -> Errors:
        """The errors of ``stream`` up to now; read only."""
        with self._lock:
            rows = self._kept.pop(stream, None)
            while True:
                with self._read() as connection:
                    parts = lineage(connection)
                    if rows is None or not rows.still_hold(connection, parts):
                        rows = _Rows(stream, parts)
                    got = rows.extend(connection)
                if got < ROWS_A_READ:
                    break
            self._kept[stream] = rows
            while len(self._kept) > 1 and sum(len(one) for one in self._kept.values()) > ROWS_KEPT:
                self._kept.popitem(last=False)
            return rows.errors()

    def behind(self, stream: str, learned_seq: int) -> int:
        """How many fixations up to ``learned_seq`` would have to be read by :meth:`get` first, at most; never waits."""
        rows = self._kept.get(stream)
        return learned_seq - (-1 if rows is None else rows.last_seq)

    def read_ahead(self, stream: str) -> None:
        """Have ``stream`` read by a thread of its own, so that whoever asks next does not wait as long."""
        with self._ahead_lock:
            if stream in self._ahead:
                return
            self._ahead.add(stream)
        threading.Thread(target=self._read_ahead, args=(stream,), name="read-ahead", daemon=True).start()

    def _read_ahead(self, stream: str) -> None:
        try:
            self.get(stream)
        except ServiceError as error:
            log.warning("the errors of stream %s could not be read ahead: %s", stream, error)
        finally:
            with self._ahead_lock:
                self._ahead.discard(stream)


class _Rows:
    """Arrays that grow by doubling; what was handed out before stays as it was."""

    def __init__(self, stream: str, parts: list[Part]) -> None:
        self._stream = stream
        self._parts = parts
        self._first_id: int | None = None
        self._size = 0
        self._whole: Integers = np.empty((256, 2), np.int64)
        self._real: Floats = np.empty((256, 2 + len(TRIVIAL_ERRORS)), np.float64)

    def __len__(self) -> int:
        return self._size

    @property
    def last_seq(self) -> int:
        """Of the newest row read; -1 before the first."""
        return int(self._whole[self._size - 1, 0]) if self._size else -1

    def still_hold(self, connection: sqlite3.Connection, parts: list[Part]) -> bool:
        """Whether the rows read so far are still the beginning of the stream's history."""
        if parts != self._parts:
            return False
        first = connection.execute("SELECT 1 FROM records WHERE id = ?", (self._first_id,)).fetchone()
        return self._first_id is None or first is not None

    def extend(self, connection: sqlite3.Connection) -> int:
        """Read what comes next, at most :data:`ROWS_A_READ` rows; how many there were."""
        condition, values = where_lineage(self._parts)
        cursor = connection.execute(
            f"SELECT id, seq, coalesce(position, -1), {_COLUMNS} FROM records"
            f" WHERE stream = ? AND seq > ? AND prediction_error IS NOT NULL AND {condition} ORDER BY seq LIMIT ?",
            (self._stream, self.last_seq, *values, ROWS_A_READ),
        )
        cursor.row_factory = None
        rows = cursor.fetchall()
        if rows:
            if self._first_id is None:
                self._first_id = rows[0][0]
            end = self._size + len(rows)
            self._make_room(end)
            self._whole[self._size : end] = [row[1:3] for row in rows]
            self._real[self._size : end] = np.array([row[3:] for row in rows], dtype=np.float64)
            self._size = end
        return len(rows)

    def errors(self) -> Errors:
        """Everything read so far."""
        whole, real = self._whole[: self._size], self._real[: self._size]
        return Errors(whole[:, 0], real[:, 0], whole[:, 1], real[:, 1], real[:, 2:])

    def _make_room(self, size: int) -> None:
        room = len(self._whole)
        if size <= room:
            return
        while room < size:
            room *= 2
        for name in ("_whole", "_real"):
            old = getattr(self, name)
            grown = np.empty((room, old.shape[1]), old.dtype)
            grown[: self._size] = old[: self._size]
            setattr(self, name, grown)
