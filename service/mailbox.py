"""Between threads: a queue whose reader also waits for sockets, and the wish that everything end."""

from __future__ import annotations

import socket
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Any thread puts; one thread polls :meth:`fileno` and takes everything."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._closed = False

    def fileno(self) -> int:
        """Readable when something lies in the box."""
        return self._reader.fileno()

    def put(self, item: T) -> None:
        """Leave ``item`` and wake the reader; nothing happens once the box is closed."""
        self._items.append(item)
        try:
            self._writer.send(b"!")
        except BlockingIOError:
            return  # the pipe is full of wake-ups: the reader will come anyway
        except OSError:
            if not self._closed:
                raise

    def take(self) -> list[T]:
        """Everything in the box, oldest first."""
        try:
            while self._reader.recv(4096):
                continue
        except BlockingIOError:
            pass
        taken: list[T] = []
        while self._items:
            taken.append(self._items.popleft())
        return taken

    def close(self) -> None:
        """Give the descriptors back."""
        self._closed = True
        self._reader.close()
        self._writer.close()


class Stop:
    """Asked to end: set by a signal, looked at between steps. ``wake`` is the learning loop's bell."""

    def __init__(self, wake: Mailbox[None]) -> None:
        self.asked = False
        self._wake = wake

    def ask(self) -> None:
        """End soon. Safe in a signal handler."""
        self.asked = True
        self._wake.put(None)

    def __call__(self) -> bool:
        """Whether to end."""
        return self.asked
