"""Pupil Remote: how a Pupil Capture is met. What the stream and the doctor have in common.

A ZeroMQ REP, tcp 50020. It answers ``v``, Capture's version; ``t``, its time, in monotonic seconds from an arbitrary
moment; ``SUB_PORT``, the port of the backbone, which is another one after every start of Capture. What comes in two
parts, topic and msgpack, it forwards to the backbone. ``T`` is never sent: it breaks the fixation detector.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgpack
import zmq

from clients.clock import WINDOW, ClockOffset, RoundTrip
from clients.errors import OptionError, SourceError
from clients.video import SECOND_NS

PORT = 50020
ANSWER_MS = 1000


class NoAnswer(Exception):
    """Pupil Remote did not answer in time."""


def parse_address(text: str) -> str:
    """``HOST``, ``HOST:PORT`` or ``tcp://HOST:PORT`` as ``HOST:PORT``. Raises :class:`OptionError`."""
    bare = text.partition("://")[2] if "://" in text else text
    host, colon, port = bare.rpartition(":")
    host, port = (host, port) if colon else (bare, str(PORT))
    if not host or any(map(str.isspace, host)) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise OptionError(f"{text!r} is no address of Pupil Remote; one looks like 127.0.0.1:{PORT}")
    return f"{host}:{port}"


class Remote:
    """Pupil Remote, for one thread. REQ is lock-step: after a lost answer the socket is made anew."""

    def __init__(self, context: zmq.Context[Any], address: str, answer_ms: int = ANSWER_MS) -> None:
        self._context = context
        self._address = address
        self._answer_ms = answer_ms
        self._socket: zmq.Socket[bytes] | None = None

    def ask(self, *parts: bytes) -> str:
        """Send one request and return its answer. Raises :class:`NoAnswer`."""
        if self._socket is None:
            self._socket = self._context.socket(zmq.REQ)
            self._socket.linger = 0
            self._socket.connect(f"tcp://{self._address}")
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
            if self._socket.poll(self._answer_ms):
                return self._socket.recv().decode(errors="replace")
        except zmq.ZMQError:
            pass  # as if there were no answer: nobody took the request
        self.close()
        raise NoAnswer(self._address)

    def notify(self, subject: str, **more: Any) -> str:
        """Have a notification forwarded to all of Capture."""
        return self.ask(f"notify.{subject}".encode(), msgpack.packb({"subject": subject, **more}))

    def time(self) -> RoundTrip:
        """Capture's time. Raises :class:`NoAnswer` or, where something else answers, :class:`SourceError`."""
        asked_ns = time.monotonic_ns()
        told = self.ask(b"t")
        answered_ns = time.monotonic_ns()
        try:
            return RoundTrip(asked_ns, answered_ns, round(float(told) * SECOND_NS))
        except (ValueError, OverflowError):
            raise self._stranger("t", told) from None

    def sub_port(self) -> int:
        """The backbone's port. Raises as :meth:`time` does."""
        told = self.ask(b"SUB_PORT")
        if not told.isdecimal() or not 0 < int(told) < 65536:
            raise self._stranger("SUB_PORT", told)
        return int(told)

    def version(self) -> str:
        """Capture's version. Raises :class:`NoAnswer`."""
        return self.ask(b"v")

    def meet(self, clock: ClockOffset) -> None:
        """Have ``clock`` follow this Capture from now on: as many round trips as it takes. Raises as :meth:`time`."""
        clock.reset()
        for _ in range(WINDOW):
            clock.add(self.time())

    def backbone(self, port: int) -> str:
        """The endpoint of the backbone at ``port``."""
        return f"tcp://{self._address.rpartition(':')[0]}:{port}"

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _stranger(self, asked: str, told: str) -> SourceError:
        return SourceError(f"{self._address} answers {told[:40]!r} to {asked!r}: is that Pupil Remote's port?")


def subscriber(context: zmq.Context[Any], endpoint: str, topics: Iterable[str], queue: int) -> zmq.Socket[bytes]:
    """A SUB to these topics of the backbone, which holds ``queue`` messages at most."""
    socket: zmq.Socket[bytes] = context.socket(zmq.SUB)
    socket.linger = 0
    socket.rcvhwm = queue
    for topic in topics:
        socket.subscribe(topic)
    socket.connect(endpoint)
    return socket
