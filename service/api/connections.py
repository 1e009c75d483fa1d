"""Connections of the HTTP interface: how many there may be, how long one may be silent or deaf, and what it is told.

What the framework never sees is answered here, as a problem like everything else: a connection too many, a
request whose head does not come, bytes that are no HTTP.
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
import struct
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.api.problems import Problem, problem_response
from service.api.streaming import cuttable

HEAD_S = 20.0
"""How long the head of a request may take to come, from the connection's beginning or its first byte."""
TAKEN_S = 30.0
"""How long an answer may wait without anything of it being taken; then its connection is cut."""

log = logging.getLogger("rjepa.api")


class _Connection(H11Protocol):
    limit: ClassVar[int]
    _head: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None
    _left_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app = cuttable(self.app, self._cut)
        transport.set_write_buffer_limits(high=0)  # so writing is paused as long as anything waits to be taken
        if len(self.connections) > self.limit:
            told = f"{self.limit} connections are open, the limit of http_connections; close one or come again"
            self._refuse(Problem(503, "too_many_connections", told, {"Retry-After": "1"}))
        else:
            self._head = self.loop.call_later(HEAD_S, self._late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        complete = self.conn.their_state is not h11.IDLE
        if complete or self.transport.is_closing():
            self._unset_head()
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_S, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_head()
        self._unset_untaken()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends: answers that have no end of their own are told so, the others finished."""
        stopping = self.app_state.get("stopping")
        if stopping is not None:
            stopping()
        super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        self._unset_untaken()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, "bad_request", msg))

    def _late(self) -> None:
        self._head = None
        if not self.transport.is_closing() and self.conn.our_state is h11.IDLE:
            self._refuse(Problem(408, "too_slow", f"the head of a request may take {HEAD_S:g} s"))

    def _watch(self) -> None:
        self._left_bytes = self.transport.get_write_buffer_size()
        self._untaken = self.loop.call_later(TAKEN_S, self._look)

    def _look(self) -> None:
        if self.transport.get_write_buffer_size() < self._left_bytes:
            self._watch()
        else:
            log.info("an answer of which nothing was taken in %g s is given up", TAKEN_S)
            self.transport.abort()

    def _cut(self) -> None:
        """End the connection so that its client sees an error, whatever it knows of ends."""
        peer = self.transport.get_extra_info("socket")
        if peer.fileno() < 0:
            return  # closed meanwhile
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its close is a reset
        self.transport.abort()

    def _unset_untaken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _unset_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _refuse(self, problem: Problem) -> None:
        """Answer with the problem and close."""
        response = problem_response(problem, "")
        head = h11.Response(
            status_code=problem.status_code,
            headers=[*response.raw_headers, (b"connection", b"close")],
            reason=http.HTTPStatus(problem.status_code).phrase.encode(),
        )
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def limited(connections: int) -> type[H11Protocol]:
    """A connection of a server that holds at most so many."""

    class Limited(_Connection):
        limit = connections

    return Limited
