"""``/v1/streams``: where each stream stands; a new sequence; forgetting a stream."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from service.access import NAME_PATTERN
from service.api.problems import unknown_stream
from service.api.security import json_only
from service.api.shapes import Stream, StreamDone, Streams
from service.api.site import Anything, Site, StreamId, answer, check_stream, done_or_accepted
from service.dropped import dropped_by_client
from service.history import lineage, present_timeline, where_lineage
from service.schema import LOOK, STANDING

RATE_OVER_S = 60.0
ALARMS_TOLD = 20


def stream_entries(
    connection: sqlite3.Connection,
    owners: dict[str, Any] | None,
    now_s: float,
    *,
    after: str = "",
    limit: int = 1000,
    only: str | None = None,
) -> list[dict[str, Any]]:
    """Streams by name, those above ``after``, at most ``limit``; or ``only`` that one.

    ``owners`` is the worker's word on who has said hello since it started, ``now_s`` the present in unix s.
    """
    chosen, values = ("name = ?", only) if only is not None else ("name > ?", after)
    rows = connection.execute(f"SELECT * FROM streams WHERE {chosen} ORDER BY name LIMIT ?", (values, limit)).fetchall()
    timeline = present_timeline(connection)
    condition, parts = where_lineage(lineage(connection))
    return [_entry(connection, row, owners, now_s, timeline, (condition, parts)) for row in rows]


def newest_alarms(connection: sqlite3.Connection, stream: str | None = None) -> list[dict[str, Any]]:
    """The newest alarms, of one stream or of all, newest first."""
    chosen, values = ("", ()) if stream is None else (" WHERE stream = ?", (stream,))
    rows = connection.execute(
        f"SELECT time, kind, stream, detail FROM alarms{chosen} ORDER BY id DESC LIMIT ?", (*values, ALARMS_TOLD)
    )
    return [dict(row) for row in rows]


def alarms_on(connection: sqlite3.Connection, stream: str | None = None) -> list[dict[str, Any]]:
    """The alarms that are on now, of one stream or of the whole, oldest first: the standing ones, and a last look's."""
    rows = connection.execute("SELECT value FROM meta WHERE substr(key, 1, ?) = ?", (len(STANDING), STANDING))
    found = [told for told in (json.loads(row[0]) for row in rows) if told["stream"] == stream]
    look = None if stream is None else _last_look(connection, stream)
    found += [{**told, "stream": stream} for told in (look["alarms"] if look else [])]
    return sorted(found, key=lambda told: (told["since"], told["kind"]))


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["streams"])

    @routes.get(
        "/v1/streams",
        response_model=Streams,
        summary="All streams: cursor, lag, rate, last error, padded, dropped, idle, alarms",
    )
    def list_streams(
        after: Annotated[str, Query(pattern=f"^$|{NAME_PATTERN}", description="names above this one")] = "",
        limit: Annotated[int, Query(ge=1, le=1000, description="streams a page")] = 1000,
    ) -> Response:
        owners = _owners(site)
        with site.read() as connection:
            entries = stream_entries(connection, owners, time.time(), after=after, limit=limit + 1)
            alarms, on = newest_alarms(connection), alarms_on(connection)
        more = entries[limit - 1]["stream"] if len(entries) > limit else None
        return answer({"streams": entries[:limit], "alarms": alarms, "alarms_on": on, "next": more})

    @routes.get("/v1/streams/{stream}", response_model=Stream, summary="One stream")
    def get_stream(stream: StreamId) -> Response:
        owners = _owners(site)
        with site.read() as connection:
            entries = stream_entries(connection, owners, time.time(), only=stream)
        if not entries:
            raise unknown_stream(stream)
        return answer(entries[0])

    changing = [Depends(json_only), site.queue("command")]

    @routes.post(
        "/v1/streams/{stream}/reset",
        response_model=StreamDone,
        summary="The next fixation begins a new sequence",
        responses={202: {"model": StreamDone, "description": "durable, carried out when its turn comes"}},
        dependencies=changing,
    )
    def reset_stream(stream: StreamId, body: Anything = None) -> Response:
        with site.read() as connection:
            check_stream(connection, stream)
        status = done_or_accepted(site.worker.command("reset", stream))
        return answer({"stream": stream, "done": "reset", "applied": status == 200}, status)

    @routes.delete(
        "/v1/streams/{stream}",
        response_model=StreamDone,
        summary="Forget its state, patches and records; next_seq stays",
        responses={202: {"model": StreamDone, "description": "durable, carried out when its turn comes"}},
        dependencies=changing,
    )
    def delete_stream(stream: StreamId) -> Response:
        with site.read() as connection:
            check_stream(connection, stream)
        status = done_or_accepted(site.worker.command("delete", stream))
        return answer({"stream": stream, "done": "deleted", "applied": status == 200}, status)

    return routes


def _owners(site: Site) -> dict[str, Any] | None:
    status = site.worker.status_or_none()
    return None if status is None else dict(status["owners"])


def _entry(
    connection: sqlite3.Connection,
    row: sqlite3.Row,
    owners: dict[str, Any] | None,
    now_s: float,
    timeline: int,
    present: tuple[str, list[int]],
) -> dict[str, Any]:
    name = row["name"]
    condition, values = present
    newest = connection.execute(
        f"SELECT prediction_error FROM records WHERE stream = ? AND prediction_error IS NOT NULL AND {condition}"
        " ORDER BY seq DESC LIMIT 1",
        (name, *values),
    ).fetchone()
    dropped = connection.execute(
        "SELECT skipped, count(*) FROM records WHERE stream = ? AND skipped IS NOT NULL GROUP BY skipped", (name,)
    )
    return {
        "stream": name,
        "next_seq": row["next_seq"],
        "learned_seq": row["learned_seq"],
        "learned": row["learned"],
        "lag": max(0, row["next_seq"] - row["learned_seq"] - 1),
        "rate": _rate(connection, name, row["next_seq"], now_s),
        "last_error": None if newest is None else newest[0],
        "padded": row["padded"],
        "dropped": {reason: count for reason, count in dropped} | dropped_by_client(connection, name),
        "frame_deg_assumed": row["frame_deg_assumed"],
        "idle_s": None if row["last_time"] is None else round(max(0.0, now_s - row["last_time"]), 3),
        "epoch": row["epoch"],
        "timeline": timeline,
        "connected": None if owners is None else bool(owners.get(name, {}).get("connected", False)),
        "created": row["created"],
        "alarms": newest_alarms(connection, name),
        "alarms_on": alarms_on(connection, name),
        "diagnostics": _last_look(connection, name),
    }


def _last_look(connection: sqlite3.Connection, stream: str) -> dict[str, Any] | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (LOOK + stream,)).fetchone()
    return None if row is None else dict(json.loads(row[0]))


def _rate(connection: sqlite3.Connection, stream: str, next_seq: int, now_s: float) -> float:
    """Fixations per second over the last minute, from the seqs at its two ends: 20 look-ups for a million."""
    low, high = 0, next_seq
    while low < high:
        middle = (low + high) // 2
        row = connection.execute("SELECT time FROM journal WHERE stream = ? AND seq = ?", (stream, middle)).fetchone()
        if row is not None and row[0] > now_s - RATE_OVER_S:
            high = middle
        else:
            low = middle + 1
    lost = connection.execute(
        "SELECT count(*) FROM records WHERE stream = ? AND skipped = 'lost' AND seq >= ?", (stream, low)
    ).fetchone()[0]
    return round(float(max(0, next_seq - low - lost)) / RATE_OVER_S, 4)
