"""Events: that a record, a checkpoint or an alarm is durable, in the one order they were written in.

The database keeps that order by itself (:data:`service.schema.EVENTS`): an event's id grows with every commit, through
restarts and restores, and never comes again. What an event was about may be gone: a deleted stream's records and
alarms, and all but the newest alarms. Then the event is no more.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.records import COLUMNS, Record

if TYPE_CHECKING:
    from service.journal import Alarm

ALARMS_KEPT = 10_000

_RECORD_COLUMNS = ", ".join("NULL" if name == "embedding" else f"records.{name}" for name in COLUMNS)
_WINDOW = "events.id > :after AND events.id <= :upto"
# By the range of ids and no other way, so that a read is never longer than its range.
_JOINED = "FROM events NOT INDEXED CROSS JOIN {0}s ON events.kind = '{0}' AND {0}s.id = ref"
_RECORDS = f"SELECT events.id, {_RECORD_COLUMNS} {_JOINED.format('record')}"
_CHECKPOINTS = f"SELECT events.id, body {_JOINED.format('checkpoint')}"
_ALARMS = f"SELECT events.id, time, alarms.kind, stream, detail {_JOINED.format('alarm')}"


@dataclass(frozen=True)
class Event:
    """``kind`` is record, checkpoint or alarm; ``stream`` whose, None for the whole; ``data`` JSON in one line."""

    id: int
    kind: str
    stream: str | None
    data: str


def newest_event(connection: sqlite3.Connection) -> int:
    """The id of the newest event there ever was; 0 before the first, and where no worker has kept any."""
    return _sequence(connection, "events")


def forgotten_up_to(connection: sqlite3.Connection) -> int:
    """The newest event that is no more because only so many alarms are kept; 0 where all are."""
    row = None
    if newest_event(connection):
        row = connection.execute(
            "SELECT id FROM events WHERE kind = 'alarm' AND ref <= ? ORDER BY ref DESC LIMIT 1",
            (_sequence(connection, "alarms") - ALARMS_KEPT,),
        ).fetchone()
    return 0 if row is None else int(row[0])


def events_between(connection: sqlite3.Connection, after: int, upto: int, stream: str | None = None) -> list[Event]:
    """The events above id ``after`` up to ``upto``, ascending; a stream's own and those of the whole, or all.

    A read is as long as the range is wide, whatever of it is asked for.
    """
    if upto <= after:
        return []
    asked = {"after": after, "upto": upto, "stream": stream}
    own = "" if stream is None else " AND stream = :stream"
    found = [
        Event(row[0], "record", row[2], compact(Record.from_row(tuple(row)[1:]).json()))
        for row in connection.execute(f"{_RECORDS} WHERE {_WINDOW}{own}", asked)
    ]
    found += [
        Event(row[0], "checkpoint", None, row[1])
        for row in connection.execute(f"{_CHECKPOINTS} WHERE {_WINDOW}", asked)
    ]
    own = "" if stream is None else " AND (stream = :stream OR stream IS NULL)"
    for event, time_s, kind, whose, detail in connection.execute(f"{_ALARMS} WHERE {_WINDOW}{own}", asked):
        told = {"time": time_s, "kind": kind, "stream": whose, "detail": detail}
        found.append(Event(event, "alarm", whose, compact(told)))
    return sorted(found, key=lambda event: event.id)


def write_alarms(connection: sqlite3.Connection, time_s: float, alarms: Iterable[Alarm]) -> None:
    """Keep alarms, and of all only the newest :data:`ALARMS_KEPT`."""
    for alarm in alarms:
        connection.execute(
            "INSERT INTO alarms (time, kind, stream, detail) VALUES (?, ?, ?, ?)",
            (time_s, alarm.kind, alarm.stream, alarm.detail),
        )
        connection.execute(
            "DELETE FROM alarms WHERE id <= (SELECT max(id) FROM alarms) - ?",
            (ALARMS_KEPT,),
        )


def write_checkpoints(connection: sqlite3.Connection, told: Iterable[dict[str, Any]]) -> None:
    """Keep that there are these checkpoints, each once, as HTTP tells them."""
    for each in told:
        connection.execute(
            "INSERT INTO checkpoints (checkpoint, body) SELECT :name, :body"
            " WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE checkpoint = :name AND body = :body)",
            {"name": each["id"], "body": compact(each)},
        )


def compact(value: Any) -> str:
    """``value`` as JSON, as HTTP spells it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _sequence(connection: sqlite3.Connection, table: str) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 0 if row is None else int(row[0])
