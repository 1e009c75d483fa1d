"""Does what the protocol wants done: the socket, the disk and the clock of one stream, in one thread.

What the spool is told is durable before anything after it is said to the worker. While the disk takes nothing,
nothing is said.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import zmq

from clients import wire
from clients.actions import Action, Connect, Fail, Greet, LetGo, Number, Remember, Send, SendLast
from clients.connection import Keys, dealer
from clients.errors import ClientError, StreamConflict
from clients.protocol import Protocol
from clients.spool import Spool

SPOOL_AGAIN_S = 1.0
LONGEST_POLL_S = 1.0

log = logging.getLogger("rjepa.sender")


@dataclass(frozen=True)
class Keep:
    """Write an offered fixation to the spool: its JSON without stream and seq, and the patch's bytes."""

    row: int
    body: str
    patch: bytes


Noted = Keep | Number | LetGo | Remember
"""What the spool is told; everything else is said to the worker."""


class Courier:
    """Owns ``spool`` and the DEALER to ``address``; to be used by one thread, and closed by it."""

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        keys: Keys | None,
        spool: Spool,
        protocol: Protocol,
        on_learned: Callable[[wire.Learned], None] | None,
    ) -> None:
        self.error: ClientError | None = None
        """Why it is over; None while it goes on."""
        self.trouble: str | None = None
        """Why the spool can't be written at the moment."""
        self._context = context
        self._address = address
        self._keys = keys
        self._spool = spool
        self._protocol = protocol
        self._on_learned = on_learned
        self._todo: deque[Action | Keep] = deque()
        self._next_row = spool.last_row() + 1
        self._spool_at_s = 0.0
        self._last: list[bytes] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is still to be done, so that nothing more can be taken."""
        return bool(self._todo)

    def take(self, offers: Iterable[tuple[str, bytes]], now_s: float) -> None:
        """Spool these fixations, and send them as far as they may be sent."""
        for body, patch in offers:
            self._todo.append(Keep(self._next_row, body, patch))
            self._todo += self._protocol.offered(self._next_row, now_s)
            self._next_row += 1
        self._do()

    def turn(self, now_s: float) -> None:
        """What time demands, and what has come from the worker."""
        if self.trouble is not None and now_s < self._spool_at_s:
            return
        self._todo += self._protocol.tick(now_s)
        self._do()
        self._hear()

    def poll(self, wake: zmq.Socket[bytes]) -> None:
        """Sleep until a message comes, ``wake`` is written to, or something is due."""
        if self.error is not None:
            return
        due_s = self._protocol.deadline_s() if self.trouble is None else self._spool_at_s
        wait_s = LONGEST_POLL_S if due_s is None else min(LONGEST_POLL_S, max(0.0, due_s - time.monotonic()))
        poller = zmq.Poller()
        poller.register(wake, zmq.POLLIN)
        if self._socket is not None and self.trouble is None:
            poller.register(self._socket, zmq.POLLIN)
        poller.poll(int(wait_s * 1000) + 1)
        while wake.poll(0):
            wake.recv()

    def leave(self, offers: Iterable[tuple[str, bytes]], *, finite: bool) -> None:
        """Close everything. ``offers`` not taken yet are spooled; a finite stream with nothing left is forgotten."""
        if self._socket is not None:
            self._socket.close()
        try:
            rest = list(offers)
            self._todo = deque(action for action in self._todo if isinstance(action, Noted))
            for body, patch in rest:
                self._todo.append(Keep(self._next_row, body, patch))
                self._next_row += 1
            self._do()
            if self._todo:
                lost = sum(isinstance(action, Keep) for action in self._todo)
                log.error("stream %s: %s fixations are lost: %s", self._spool.stream, lost or "no", self.trouble)
            elif isinstance(self.error, StreamConflict):
                self._spool.forget()  # a recording's, which is still there itself
            elif finite and not rest and self.error is None and self._protocol.all_acked:
                self._spool.forget()
        except sqlite3.Error as error:
            log.error("stream %s: spool %s can't be written: %s", self._spool.stream, self._spool.folder, error)
        finally:
            self._spool.close()

    def _hear(self) -> None:
        """Take every message that has come."""
        while self._socket is not None and not self._todo:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message, _ = wire.decode(frames)
            except wire.WireError as error:
                log.warning(
                    "stream %s: a message from %s was not understood: %s", self._spool.stream, self._address, error
                )
                continue
            if isinstance(message, wire.Learned) and self._on_learned is not None:
                self._on_learned(message)
            self._todo += self._protocol.received(message, time.monotonic())
            self._do()

    def _do(self) -> None:
        """Do what is to be done, in order. What the spool is told is durable before anything after it is said."""
        while self._todo:
            if isinstance(self._todo[0], Noted):
                if not self._write():
                    return
            else:
                self._say(self._todo.popleft())

    def _write(self) -> bool:
        """Tell the spool everything up to the next thing to be said; False if the disk does not take it."""
        group: list[Action | Keep] = []
        for action in self._todo:
            if not isinstance(action, Noted):
                break
            group.append(action)
        try:
            for action in group:
                self._note(action)
            self._spool.commit()
        except sqlite3.OperationalError as error:
            self._spool.rollback()
            self.trouble = f"spool {self._spool.folder} can't be written: {error}; trying again"
            self._spool_at_s = time.monotonic() + SPOOL_AGAIN_S
            return False
        self.trouble = None
        for _ in group:
            self._todo.popleft()
        return True

    def _note(self, action: Action | Keep) -> None:
        if isinstance(action, Keep):
            self._spool.keep(action.row, action.body, action.patch)
        elif isinstance(action, Number):
            self._spool.number(action.pairs)
        elif isinstance(action, LetGo):
            self._spool.let_go(action.rows, action.acked)
        elif isinstance(action, Remember):
            self._spool.remember(action.epoch, action.held_end)

    def _say(self, action: Action | Keep) -> None:
        if isinstance(action, Connect):
            if self._socket is not None:
                self._socket.close()
            self._socket = dealer(self._context, self._address, self._keys)
            self._put(wire.encode(action.hello))
        elif isinstance(action, Greet):
            self._put(wire.encode(action.hello))
        elif isinstance(action, Send):
            body, patch = self._spool.read(action.row)
            message = wire.FixationMessage.model_validate({"stream": self._spool.stream, "seq": action.seq, **body})
            self._last = wire.encode(message, patch)
            self._put(self._last)
        elif isinstance(action, SendLast) and self._last is not None:
            self._put(self._last)
        elif isinstance(action, Fail):
            self.error = action.error

    def _put(self, frames: list[bytes]) -> None:
        assert self._socket is not None
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return  # as if lost on the way: silence or a resend brings it again
