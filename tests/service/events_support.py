"""A listener to the interface's events by hand, which can be cut after any byte; and what the database has of them."""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from service.records import Record
from service.storage import open_reader

Told = tuple[int, str, str]
"""An event's id, kind and data."""


class Heard:
    """One event stream. ``blocks`` are the whole ones that have come, ``last`` the id of the newest."""

    def __init__(self, address: tuple[str, int], query: str = "", last: int | None = None, **headers: str) -> None:
        self.connection = http.client.HTTPConnection(*address, timeout=60.0)
        named = {} if last is None else {"Last-Event-ID": str(last)}
        self.connection.request("GET", f"/v1/events{query}", headers=named | headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.last = last
        self.events: list[Told] = []
        self.ended: dict[str, Any] | None = None
        self._left = b""

    def read(self, count: int) -> int:
        """Read up to ``count`` bytes; how many there were, 0 at the end."""
        piece = self.response.read1(count)
        *whole, self._left = (self._left + piece).split(b"\n\n")
        for text in whole:
            self._block(text.decode())
        return len(piece)

    def until(self, last: int) -> list[Told]:
        """All events so far, once the id ``last`` has come."""
        while (self.last or 0) < last:
            assert self.read(1 << 16), f"ended at {self.last}: {self.ended}"
        return self.events

    def to_the_end(self) -> dict[str, Any] | None:
        """Why it ended, once it has."""
        while self.read(1 << 16):
            pass
        return self.ended

    def cut(self) -> None:
        if self.connection.sock is not None:
            self.connection.sock.close()
        self.response.close()
        self.connection.close()

    def _block(self, text: str) -> None:
        told: dict[str, str] = {}
        for line in text.split("\n"):
            name, _, value = line.partition(": ")
            assert name in ("id", "event", "data", "retry", ":"), line
            assert name not in told
            told[name] = value
        if told.get("event") == "end":
            self.ended = json.loads(told["data"])
            return
        number = int(told["id"])
        if "event" in told:
            assert self.last is not None
            assert number > self.last, "ids grow"
            self.events.append((number, told["event"], told["data"]))
        self.last = number


class Cutter(threading.Thread):
    """Listens from event ``last`` on to the one ``goal`` gives, cut again and again after a random number of bytes."""

    def __init__(
        self, address: tuple[str, int], last: int, goal: Callable[[], int | None], seed: int, **headers: str
    ) -> None:
        super().__init__(daemon=True)
        self.events: list[Told] = []
        self.last = last
        self.cuts = 0
        self._address = address
        self._goal = goal
        self._random = random.Random(seed)
        self._headers = headers

    def run(self) -> None:
        while (goal := self._goal()) is None or self.last < goal:
            try:
                self._listen_a_little()
            except (OSError, http.client.HTTPException):  # the interface is away: come again
                threading.Event().wait(0.05)

    def _listen_a_little(self) -> None:
        heard = Heard(self._address, last=self.last, **self._headers)
        assert heard.status == 200, heard.response.read()
        heard.connection.sock.settimeout(0.5)
        left = self._random.randint(1, self._random.choice([20, 300, 2_000, 8_000]))
        try:
            while left > 0 and (count := heard.read(left)):
                left -= count
        except TimeoutError:  # nothing new for a while
            pass
        finally:
            heard.cut()
            self.cuts += 1
            self.events += heard.events
            self.last = heard.last if heard.last is not None else self.last


def kept(database: Path, after: int = 0) -> list[Told]:
    """Every event after an id that the database still has, told from its tables."""
    with closing(open_reader(database)) as reader:
        rows = reader.execute("SELECT id, kind, ref FROM events WHERE id > ? ORDER BY id", (after,)).fetchall()
        told = [(row["id"], row["kind"], _data(reader, row["kind"], row["ref"])) for row in rows]
    return [(number, kind, json.dumps(data, separators=(",", ":"))) for number, kind, data in told if data is not None]


def _data(reader: sqlite3.Connection, kind: str, ref: int) -> dict[str, Any] | None:
    row = reader.execute(f"SELECT * FROM {kind}s WHERE id = ?", (ref,)).fetchone()
    if row is None:
        return None
    if kind == "record":
        names = [name for name in row.keys() if name.startswith("trivial_")]  # noqa: SIM118
        trivial = {name.removeprefix("trivial_"): row[name] for name in names}
        plain = {name: row[name] for name in row.keys() if name not in (*names, "gaze_x", "gaze_y")}  # noqa: SIM118
        gaze = None if row["gaze_x"] is None else (row["gaze_x"], row["gaze_y"])
        return Record(**plain, gaze=gaze, trivial_error=trivial).json()
    if kind == "checkpoint":
        return dict(json.loads(row["body"]))
    return {name: row[name] for name in ("time", "kind", "stream", "detail")}


def newest(database: Path) -> int:
    with closing(open_reader(database)) as reader:
        return int(reader.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])
