"""A network that fails: TCP between clients and a worker, forwarded by one thread that can cut, hold, drip and refuse.

A cut strikes when so many bytes have passed one way, hence in the midst of a message nearly always:

=========  ======================================================================================================
refuse     every connection is reset, and no new one is taken until :meth:`Proxy.heal`
silence    no byte passes and nobody is told, until then; what was under way, also of connections whose client has
           given them up since, goes on late
reset      the connection is reset; a new one is taken at once
trickle    a few bytes at a time, until then
=========  ======================================================================================================
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from dataclasses import dataclass, field

KINDS = ("refuse", "silence", "reset", "trickle")
PIECE_BYTES = 1 << 16
DRIP_BYTES, DRIP_S = 200, 0.002
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close at once, with a reset."""


@dataclass
class Cut:
    """``kind`` strikes once ``after_bytes`` have passed: ``up``, to the worker, or down, to the client."""

    kind: str
    up: bool
    after_bytes: int


@dataclass(eq=False)
class _Way:
    """One direction of a connection."""

    source: socket.socket
    target: socket.socket
    up: bool
    waiting: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """The source has said its last."""


class Proxy:
    """Forwards ``address`` to the port of a worker on the loopback; :meth:`close` ends it."""

    def __init__(self, worker_port: int) -> None:
        self._worker_port = worker_port
        self._listener: socket.socket | None = _listening(0)
        self._port = int(self._listener.getsockname()[1])
        self.address = f"tcp://127.0.0.1:{self._port}"
        self.struck = threading.Event()
        """The armed cut has struck."""
        self.knocked = threading.Event()
        """Somebody has tried to connect during the silence."""
        self.connections = 0
        """Taken so far."""
        self.passed_bytes = 0
        self._lock = threading.Lock()
        self._cut: Cut | None = None
        self._fault: str | None = None
        self._ways: list[_Way] = []
        self._end = False
        self._ear, self._bell = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def arm(self, cut: Cut) -> None:
        """The next cut."""
        with self._lock:
            assert self._cut is None
            assert self._fault is None
            self.struck.clear()
            self.knocked.clear()
            self._cut = cut

    def heal(self) -> None:
        """From now on everything passes."""
        with self._lock:
            if self._listener is None:
                self._listener = _listening(self._port)
            self._cut = self._fault = None
        self._bell.send(b"!")

    def close(self) -> None:
        self._end = True
        self._bell.send(b"!")
        self._thread.join(60.0)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._end:
            with self._lock:
                listener, fault = self._listener, self._fault
            still = fault == "silence"
            reading = [way.source for way in self._ways if not (still or way.ended or way.waiting)]
            writing = [way.target for way in self._ways if way.waiting and not still]
            knocking = [listener] if listener is not None and not (still and self.knocked.is_set()) else []
            drips = DRIP_S if fault == "trickle" and writing else None
            able = [] if drips else writing
            readable, writable, _ = select.select([self._ear, *knocking, *reading], able, [], drips)
            if self._ear in readable:
                self._ear.recv(4096)
            if listener in readable:
                self.knocked.set() if still else self._take(listener)
            for way in list(self._ways):
                if way not in self._ways:
                    continue  # its connection was reset
                if way.source in readable and not way.waiting:
                    self._read(way)
                if way.target in writable or (drips and way.waiting):
                    self._write(way, DRIP_BYTES if drips else PIECE_BYTES)
        for way in self._ways:
            way.source.close()
        for end in (self._listener, self._ear, self._bell):
            if end is not None:
                end.close()

    def _take(self, listener: socket.socket | None) -> None:
        assert listener is not None
        client, _ = listener.accept()
        worker = socket.create_connection(("127.0.0.1", self._worker_port))
        for end in (client, worker):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        self._ways += [_Way(client, worker, up=True), _Way(worker, client, up=False)]

    def _read(self, way: _Way) -> None:
        try:
            data = way.source.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            way.ended = True
            self._finish(way)
            return
        way.waiting += data
        with self._lock:
            cut = self._cut if self._cut is not None and self._cut.up == way.up else None
            if cut is not None and len(data) <= cut.after_bytes:
                cut.after_bytes -= len(data)
                cut = None
            if cut is not None:
                self._cut = None
                self._strike(cut, way, len(data))

    def _strike(self, cut: Cut, way: _Way, length: int) -> None:
        """The last ``length`` bytes of what waits in ``way`` are the ones in which it happens."""
        begin = len(way.waiting) - length + cut.after_bytes
        held, way.waiting = way.waiting[begin:], way.waiting[:begin]
        self._write(way, PIECE_BYTES)
        if cut.kind in ("reset", "refuse"):
            for other in [way] if cut.kind == "reset" else list(self._ways):
                self._drop(other)
        way.waiting += held
        if cut.kind == "refuse" and self._listener is not None:
            self._listener.close()
            self._listener = None
        self._fault = None if cut.kind == "reset" else cut.kind
        self.struck.set()

    def _write(self, way: _Way, limit: int) -> None:
        try:
            sent = way.target.send(way.waiting[:limit])
        except BlockingIOError:
            return
        except OSError:
            self._drop(way)
            return
        self.passed_bytes += sent
        del way.waiting[:sent]
        if way.ended and not way.waiting:
            self._finish(way)

    def _finish(self, way: _Way) -> None:
        """What the source said is said: the other side hears that there is no more."""
        if way.waiting:
            return
        for each in [other for other in self._ways if {other.source, other.target} == {way.source, way.target}]:
            self._ways.remove(each)
        way.source.close()
        way.target.close()

    def _drop(self, way: _Way) -> None:
        """Reset both halves of a connection."""
        for each in [other for other in self._ways if {other.source, other.target} == {way.source, way.target}]:
            self._ways.remove(each)
        for end in (way.source, way.target):
            if end.fileno() >= 0:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.close()


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener
