"""What clients found and had no room for, as a hello tells it: counted by stream, with the alarm ``spool_full``.

It never was in the journal and has no seq: only that it is missing can be known. The count of each run of a client goes
up only, so that what is told twice counts once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from dataclasses import dataclass

from clients.wire import Dropped
from service.alarms import Alarms
from service.journal import Journal
from service.schema import DROPPED

REASON = "spool_full"
"""The one reason so far: what it is called among the dropped, and the alarm."""
OVER_S = 60.0
"""The alarm goes off when no more was told for so long; a client that goes on dropping tells it every 10 s."""


@dataclass
class _Told:
    """Of a stream: ``count`` by the client that began at ``since`` (unix s, its clock), ``before`` by earlier ones."""

    since: float
    count: int = 0
    before: int = 0


class Drops:
    """``heard`` by the thread of ingest, looked at by :class:`~service.vigil.Vigil`."""

    def __init__(self, journal: Journal, alarms: Alarms) -> None:
        self._journal = journal
        self._alarms = alarms
        self._lock = threading.Lock()
        self._told = {stream: _Told(**told) for stream, told in journal.told(DROPPED).items()}
        # What was on when the process before us ended goes off in a while, unless more is told.
        self._heard_s = {str(stream): time.monotonic() for stream in alarms.standing(REASON)}

    def heard(self, stream: str, dropped: Dropped) -> None:
        """A client told of its drops. Durable, alarm first, when this returns. Raises StorageFailed."""
        with self._lock:
            told = self._told.get(stream, _Told(dropped.since))
            if told.since != dropped.since:
                told = _Told(dropped.since, before=told.before + told.count)
            if dropped.spool_full <= told.count:
                return
            new = _Told(told.since, dropped.spool_full, told.before)
            detail = f"a client's spool was full: {dropped.spool_full} fixations were dropped and have no seq"
            self._alarms.stand(REASON, detail, stream)
            self._journal.put_meta(DROPPED + stream, json.dumps(vars(new)))
            self._told[stream] = new
            self._heard_s[stream] = time.monotonic()

    def look(self, now_s: float) -> None:
        """The alarm is over where nothing was told for a while; ``now_s`` as of time.monotonic."""
        with self._lock:
            for stream in [stream for stream, heard_s in self._heard_s.items() if now_s - heard_s >= OVER_S]:
                total = self._told[stream].count + self._told[stream].before if stream in self._told else 0
                self._alarms.clear(REASON, f"no more for {OVER_S:.0f} s; {total} in all", stream)
                del self._heard_s[stream]


def dropped_by_client(connection: sqlite3.Connection, stream: str) -> dict[str, int]:
    """How many fixations of ``stream`` its clients said they dropped, by reason; empty where none were."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (DROPPED + stream,)).fetchone()
    if row is None:
        return {}
    told = _Told(**json.loads(row[0]))
    return {REASON: told.count + told.before}
