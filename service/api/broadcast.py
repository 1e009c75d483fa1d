"""The one reader of events that all listeners of the interface share.

It looks ten times a second whether the database has a newer event, reads what is new once, and keeps the last few
hundred as the bytes that are sent. A listener takes from these as fast as its connection does; one that is too far
behind (it resumes, or it is slow) is read to by itself, a short piece at a time, until it has caught up. So memory is
bounded however many there are and however slow they be, and the database is asked no more often for two hundred of
them than for one. For the one thread of the event loop; only reading goes to others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from service.api.problems import Problem
from service.errors import ServiceError
from service.events import Event, compact, events_between, newest_event
from service.storage import open_reader

POLL_S = 0.1
"""How often the database is asked for a newer event while anybody listens."""
PIECE = 100
"""Events of one read and of one piece that is sent: about 70 kB."""
KEPT = 500
"""Events that are kept for whoever is a little behind."""
HEARTBEAT_S = 10.0
"""A listener to whom nothing was sent for so long is sent a comment, and how far it has come."""
LOOK_S = 1.0
"""How often it is seen whether a listener may still listen."""
RETRY_MS = 1000
"""How long a browser is to wait before it comes again."""

log = logging.getLogger("rjepa.api.events")


@dataclass(frozen=True)
class _Sent:
    """An event as it is sent."""

    id: int
    kind: str
    stream: str | None
    data: bytes

    def concerns(self, stream: str | None) -> bool:
        return stream is None or self.stream is None or self.stream == stream


class Broadcast:
    """Serves ``limit`` listeners at most. ``stop`` may be called at any time, once it is :meth:`running`."""

    def __init__(self, database: Path, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._listeners = 0
        self._stopped = False
        self._reader = _Reader(database)
        self._kept: list[_Sent] = []
        self._floor: int | None = None
        """Every event above this up to ``_newest`` is kept; None until the reader has looked."""
        self._newest = 0
        self._set_back = 0
        """How often the database has turned out to be an older one."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read for whoever listens as long as the block lasts."""
        self._stopped = False
        self._wanted, self._news = asyncio.Event(), asyncio.Event()
        self._behind = anyio.CapacityLimiter(1)
        reading = asyncio.create_task(self._read())
        try:
            yield
        finally:
            self.stop()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            self._reader.close()

    def stop(self) -> None:
        """End every listener, and tell it why."""
        self._stopped = True
        self._wake()

    async def place(self) -> AsyncIterator[None]:
        """A listener's place, held until its answer has ended. Raises the 503 where there is none."""
        if self._listeners >= self._limit:
            told = f"{self._limit} event streams are open, the limit of event_streams; close one or come again"
            raise Problem(503, "too_many_event_streams", told, {"Retry-After": "5"})
        self._listeners += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._wanted.clear()

    async def listen(self, after: int, stream: str | None, still_allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
        """What is sent to one listener that has had the events up to id ``after``.

        The first bytes tell that id, so that even one that was cut before its first event loses none.
        """
        loop = asyncio.get_running_loop()
        yield b"retry: %d\nid: %d\n\n" % (RETRY_MS, after)
        sent_s = looked_s = loop.time()
        set_back = self._set_back
        while True:
            now_s, news = loop.time(), self._news
            if self._stopped:
                yield _end("stopping", "the interface ends; come again")
                return
            if set_back != self._set_back:
                yield _end("set_back", "the database is an older one: it was put back from a backup, say")
                return
            if now_s - looked_s >= LOOK_S:
                looked_s = now_s
                if not still_allowed():
                    yield _end("unauthorized", "the token or the session that opened this is not listed any more")
                    return
            before = after
            after, pieces = await self._next(after, stream)
            if pieces:
                yield b"".join(pieces)
                sent_s = loop.time()
            elif after == before and now_s - sent_s >= HEARTBEAT_S:
                yield b":\nid: %d\n\n" % after
                sent_s = now_s
            elif after == before:
                with anyio.move_on_after(LOOK_S):
                    await news.wait()

    async def _next(self, after: int, stream: str | None) -> tuple[int, list[bytes]]:
        """What comes next for a listener, and how far it has come by that."""
        if self._floor is None or after >= self._newest:
            return after, []
        if after < self._floor:
            upto = min(after + PIECE, self._floor)
            try:
                events = await anyio.to_thread.run_sync(self._once, after, upto, stream, limiter=self._behind)
            except (sqlite3.Error, ServiceError) as error:
                log.warning("events could not be read: %s", error)
                return after, []
            return upto, [_sent(event).data for event in events]
        first = bisect_right(self._kept, after, key=lambda sent: sent.id)
        piece = self._kept[first : first + PIECE]
        upto = self._newest if first + PIECE >= len(self._kept) else piece[-1].id
        return upto, [sent.data for sent in piece if sent.concerns(stream)]

    def _once(self, after: int, upto: int, stream: str | None) -> list[Event]:
        with closing(open_reader(self._database)) as connection:
            return events_between(connection, after, upto, stream)

    async def _read(self) -> None:
        """Read what is new as long as anybody listens."""
        limiter, told = anyio.CapacityLimiter(1), False
        while True:
            if not self._listeners:
                self._floor = None
                self._reader.close()
                await self._wanted.wait()
            after = None if self._floor is None else self._newest
            try:
                newest, events = await anyio.to_thread.run_sync(self._reader.read, after, limiter=limiter)
                told = False
            except (sqlite3.Error, ServiceError) as error:
                if not told:
                    log.warning("events can't be read at present: %s; it is tried again", error)
                told = True
                newest, events = self._newest, []
                self._reader.close()
            else:
                self._take(after, newest, events)
            if len(events) < PIECE:
                await asyncio.sleep(POLL_S)

    def _take(self, after: int | None, newest: int, events: Iterable[Event]) -> None:
        if after is None or newest < after:
            self._set_back += after is not None
            self._kept, self._floor = [], newest
        elif newest == after:
            return
        self._kept += [_sent(event) for event in events]
        if len(self._kept) > KEPT:
            self._floor = self._kept[-KEPT - 1].id
            del self._kept[:-KEPT]
        self._newest = newest
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class _Reader:
    """The reader's connection, opened anew where the file at that place is another."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def read(self, after: int | None) -> tuple[int, list[Event]]:
        """How far the next :data:`PIECE` events above ``after`` go, and these; without it, only how far all go."""
        connection = self._open()
        newest = newest_event(connection)
        if after is None or newest <= after:
            return newest, []
        upto = min(newest, after + PIECE)
        return upto, events_between(connection, after, upto)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._file = None

    def _open(self) -> sqlite3.Connection:
        try:
            there = os.stat(self._database)
        except OSError:
            there = None
        file = None if there is None else (there.st_dev, there.st_ino)
        if self._connection is None or file != self._file:
            self.close()
            self._connection, self._file = open_reader(self._database), file
        return self._connection


def _sent(event: Event) -> _Sent:
    data = f"id: {event.id}\nevent: {event.kind}\ndata: {event.data}\n\n"
    return _Sent(event.id, event.kind, event.stream, data.encode())


def _end(code: str, detail: str) -> bytes:
    return f"event: end\ndata: {compact({'code': code, 'detail': detail})}\n\n".encode()
