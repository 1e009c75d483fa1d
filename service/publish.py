"""Records as they become durable, to whoever listens: a PUB socket.

Frame 0 is ``record/<stream>/``, frame 1 the record as JSON. What a listener can't take in time is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import zmq

from service.records import Record

HANDSHAKE_MS = 10_000
"""How long a listener may take to say what it is; then it is cut."""
SEND_QUEUE = 4096
"""Records ZeroMQ holds for a listener that is slow; then they are dropped."""


def configure(socket: zmq.Socket[Any]) -> None:
    """The options of the PUB socket, before it is bound."""
    socket.linger = 0
    socket.sndhwm = SEND_QUEUE
    socket.maxmsgsize = 1 << 16
    socket.heartbeat_ivl = 5_000
    socket.heartbeat_timeout = 20_000
    socket.handshake_ivl = HANDSHAKE_MS


class Publisher:
    """Owns a bound PUB socket; for one thread."""

    def __init__(self, socket: zmq.Socket[Any], *, embeddings: bool) -> None:
        self._socket = socket
        self._embeddings = embeddings

    def publish(self, records: Iterable[Record]) -> None:
        """Send records that are durable."""
        for record in records:
            body = json.dumps(record.json(embedding=self._embeddings)).encode()
            self._socket.send_multipart([f"record/{record.stream}/".encode(), body], zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
