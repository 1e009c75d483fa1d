"""What every resource needs: the database for one short read, the worker's ear, and a place in a queue.

Reading never waits for the worker and the worker never waits for a reader: reads are SQLite snapshots that
end before the answer is sent, calls that compute stand in a narrow queue, and the worker is asked for its
status at most twice a second, however often the interface is asked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio.to_thread
import numpy as np
from fastapi import Body, Depends, params
from fastapi import Path as PathParameter
from numpy.typing import NDArray
from starlette.responses import Response

from clients.wire import MAX_SEQ
from service.access import NAME_PATTERN, Access
from service.api.problems import Problem, unknown_stream
from service.control import ControlClient
from service.errors import RequestRefused, ServiceError
from service.settings import Settings
from service.storage import open_reader

STATUS_KEPT_S = 0.5
STATUS_LIMIT_S = 2.0
COMMAND_LIMIT_S = 60.0
"""How long a command may take to become durable; a checkpoint waits for its turn and the disk."""
QUEUE_LENGTH = 64

T = TypeVar("T")
StreamId = Annotated[str, PathParameter(pattern=NAME_PATTERN, description="the stream's name", examples=["s1"])]
Anything = Annotated[Any, Body(description="not looked at; {} will do", examples=[{}])]
"""The body of a call that needs none but must be declared as JSON."""
SeqNumber = Annotated[
    int, PathParameter(ge=0, le=MAX_SEQ, description="number of the fixation in its stream, from 0", examples=[7])
]


class Queue:
    """At most ``width`` calls at work and :data:`QUEUE_LENGTH` waiting; the next is told to come again."""

    def __init__(self, width: int) -> None:
        self._free = asyncio.Semaphore(width)
        self._waiting = 0

    async def enter(self) -> AsyncIterator[None]:
        """Wait for a place, and hold it while the call is at work."""
        if self._waiting >= QUEUE_LENGTH:
            raise Problem(503, "busy", f"{self._waiting} calls wait already; ask less often", {"Retry-After": "1"})
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()

    async def piece(self, make: Callable[[], T]) -> T:
        """``make``, run in a thread in its turn: a further piece of an answer whose call was let in."""
        async with self._free:
            return await anyio.to_thread.run_sync(make)


class Worker:
    """The worker, asked over its control socket."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._known: tuple[float, dict[str, Any] | ServiceError] | None = None

    def status(self) -> dict[str, Any]:
        """What the worker says of itself, at most :data:`STATUS_KEPT_S` old.

        Raises :class:`~service.errors.WorkerUnreachable` when it does not answer.
        """
        with self._lock:
            now = time.monotonic()
            if self._known is None or now - self._known[0] > STATUS_KEPT_S:
                try:
                    told: dict[str, Any] | ServiceError = self._ask({"op": "status"}, STATUS_LIMIT_S)
                except ServiceError as error:
                    told = error
                self._known = (time.monotonic(), told)
            known = self._known[1]
        if isinstance(known, ServiceError):
            raise known
        return known

    def status_or_none(self) -> dict[str, Any] | None:
        """The same, or None when it does not answer."""
        try:
            return self.status()
        except ServiceError:
            return None

    def command(self, name: str, stream: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Have the worker do something that changes the learner; returns once that is durable.

        ``applied`` in the answer says whether its turn in the journal has come already.
        """
        request = {"op": "command", "name": name, "stream": stream, "arguments": arguments}
        try:
            return self._ask(request, COMMAND_LIMIT_S)
        finally:
            with self._lock:
                self._known = None

    def embed(self, patches: list[NDArray[np.uint8]]) -> list[list[float]]:
        """The embeddings of patches, uint8 (height, width, 3) RGB, each from the zero state, by the same weights."""
        told = [
            {"height": len(one), "width": len(one[0]), "rgb": base64.b64encode(one.tobytes()).decode("ascii")}
            for one in patches
        ]
        embeddings: list[list[float]] = self._ask({"op": "embed", "patches": told}, COMMAND_LIMIT_S)["embeddings"]
        return embeddings

    def diagnostics(self, what: str, stream: str | None) -> dict[str, Any]:
        """``representation`` or ``gradient``, of one stream or of all."""
        request = {"op": "diagnostics", "what": what, "stream": stream}
        told: dict[str, Any] = self._ask(request, COMMAND_LIMIT_S)["diagnostics"]
        return told

    def _ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        told = self._client.ask(request, timeout_s=limit_s)
        if not told.get("ok"):
            raise RequestRefused(int(told["status"]), str(told["code"]), str(told["detail"]))
        return told


class Site:
    """The interface's surroundings, made once by :func:`service.api.app.create_app`."""

    def __init__(self, settings: Settings, access: Access) -> None:
        self.settings = settings
        self.access = access
        self.worker = Worker(ControlClient(settings.data_dir))
        self.database: Path = settings.data_dir / "rjepa.db"
        self.queues: dict[str, Queue] = {}

    def open_queues(self) -> None:
        """Make the queues in the running event loop."""
        self.queues = {"heavy": Queue(1), "command": Queue(4), "embed": Queue(1), "diagnostics": Queue(1)}

    def queue(self, name: str) -> params.Depends:
        """A dependency: the call stands in that queue, and leaves it before its answer is sent."""

        async def enter() -> AsyncIterator[None]:
            async for _ in self.queues[name].enter():
                yield

        dependency: params.Depends = Depends(enter, scope="function")
        return dependency

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One snapshot of the database; leave it soon, an open read lets the write-ahead log grow.

        Raises :class:`~service.errors.DirectoryRefused` while there is no database yet.
        """
        connection = open_reader(self.database)
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``value`` as JSON."""
    body = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(body, status, headers=headers, media_type="application/json")


def done_or_accepted(*results: dict[str, Any]) -> int:
    """The status of an answer: 200, or 202 where a command is durable and its turn has not come yet."""
    return 200 if all(result.get("applied", True) for result in results) else 202


def check_stream(connection: sqlite3.Connection, stream: str) -> None:
    """Raise the 404 if nobody ever said hello for ``stream``."""
    if connection.execute("SELECT 1 FROM streams WHERE name = ?", (stream,)).fetchone() is None:
        raise unknown_stream(stream)
