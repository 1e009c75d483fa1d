"""Connections of the HTTP interface: how many there may be, how long one may be silent, and what it is told.

What the framework never sees is answered here, as a problem like everything else: a connection too many, a
request whose head does not come, bytes that are no HTTP.
"""

from __future__ import annotations

import asyncio
import http
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.api.problems import Problem, problem_response

HEAD_S = 20.0
"""How long the head of a request may take to come, from the connection's beginning or its first byte."""


class _Connection(H11Protocol):
    limit: ClassVar[int]
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
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
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, "bad_request", msg))

    def _late(self) -> None:
        self._head = None
        if not self.transport.is_closing() and self.conn.our_state is h11.IDLE:
            self._refuse(Problem(408, "too_slow", f"the head of a request may take {HEAD_S:g} s"))

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
