"""``python -m service.bench_sender ADDRESS N``: N fixations of four streams as fast as they go; prints the seconds
from the first byte to the last ack.

A process of its own, and no more of one than it must be, so that it takes little from the one that is measured: a
client over plain TCP, as docs/wire.md has one byte by byte, whose fixations lie ready as they go over the wire. It
reads every ack.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

import numpy as np

from clients.wire import VERSION

STREAMS = 4
LIMIT_S = 60.0
AT_ONCE_BYTES = 1 << 18
"""Handed to the system at once, of one stream."""

_HEADER = {"encoding": "raw", "height": 50, "width": 50, "channels": 3, "color": "rgb", "degrees": 5.0}
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
_READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
_MORE, _LONG, _COMMAND = 1, 2, 4


def fixations(count: int) -> list[tuple[str, int, list[bytes]]]:
    """Stream, seq and frames of ``count`` fixations; the patches are noise: nobody looks at them."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(count):
        stream, seq = f"stream{number % STREAMS}", number // STREAMS
        body = {
            "stream": stream, "seq": seq, "onset": 0.25 * seq, "duration": 0.2,
            "gaze": {"x": 0.25, "y": 0.5}, "patch": _HEADER,
        }  # fmt: skip
        made.append((stream, seq, [VERSION, b"fixation", json.dumps(body).encode(), generator.bytes(7500)]))
    return made


class Connection:
    """One stream's client: what it still has to send, and the highest seq it was told is durable."""

    def __init__(self, address: str, stream: str, fixations: list[list[bytes]]) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last = len(fixations) - 1
        self.acked = -1
        self._came = bytearray()
        self._left = memoryview(b"".join(map(_on_the_wire, fixations)))
        self.socket.sendall(_GREETING)
        self._wait_for(len(_GREETING))
        del self._came[: len(_GREETING)]
        self.socket.sendall(_READY)
        hello = json.dumps({"stream": stream, "notify": "durable"}).encode()
        self.socket.sendall(_on_the_wire([VERSION, b"hello", hello]))
        while not (told := self._messages()):
            self._wait_for(len(self._came) + 1)
        assert told[0][1] == b"welcome", told
        self.socket.setblocking(False)

    @property
    def sending(self) -> bool:
        """Whether something is left to send."""
        return bool(self._left)

    def send(self) -> None:
        """Hand the system as much as it takes."""
        self._left = self._left[self.socket.send(self._left[:AT_ONCE_BYTES]) :]

    def hear(self) -> None:
        """Take in the acks that have come."""
        self._take()
        for frames in self._messages():
            assert frames[1] == b"ack", frames
            self.acked = json.loads(frames[2])["seq"]

    def _wait_for(self, count: int) -> None:
        while len(self._came) < count:
            self._take()

    def _take(self) -> None:
        came = self.socket.recv(1 << 16)
        assert came, "the door has closed the connection"
        self._came += came

    def _messages(self) -> list[list[bytes]]:
        """Every message that has come whole; commands are passed over."""
        messages: list[list[bytes]] = []
        frames: list[bytes] = []
        at = whole = 0
        while len(self._came) >= at + 2:
            flags = self._came[at]
            begin = at + (9 if flags & _LONG else 2)
            end = begin + int.from_bytes(self._came[at + 1 : begin], "big")
            if len(self._came) < max(begin, end):
                break
            at = end
            if not flags & _COMMAND:
                frames.append(bytes(self._came[begin:end]))
                if flags & _MORE:
                    continue
                messages.append(frames)
                frames = []
            whole = at
        del self._came[:whole]
        return messages


def send(address: str, count: int) -> float:
    """Send them, and wait for the last ack; seconds."""
    streams: dict[str, list[list[bytes]]] = {}
    for stream, _, frames in fixations(count):
        streams.setdefault(stream, []).append(frames)
    with selectors.DefaultSelector() as ready:
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        for stream, every in streams.items():
            connection = Connection(address, stream, every)
            ready.register(connection.socket, both, connection)
        begun_s = time.perf_counter()
        while ready.get_map():
            came = ready.select(LIMIT_S)
            assert came, "no ack"
            for key, what in came:
                _go_on(ready, key.data, what)
        return time.perf_counter() - begun_s


def _go_on(ready: selectors.BaseSelector, connection: Connection, what: int) -> None:
    if what & selectors.EVENT_WRITE:
        connection.send()
        if not connection.sending:
            ready.modify(connection.socket, selectors.EVENT_READ, connection)
    if what & selectors.EVENT_READ:
        connection.hear()
        if connection.acked == connection.last:
            ready.unregister(connection.socket)
            connection.socket.close()


def _on_the_wire(frames: list[bytes]) -> bytes:
    """A message as ZMTP has it."""
    parts: list[bytes] = []
    for number, frame in enumerate(frames, 1):
        flags = _MORE if number < len(frames) else 0
        size = len(frame)
        parts += [bytes([flags, size]) if size < 256 else bytes([flags | _LONG]) + size.to_bytes(8, "big"), frame]
    return b"".join(parts)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"seconds": send(sys.argv[1], int(sys.argv[2]))}))
