"""A worker for the clients' tests: a real ROUTER around :class:`ModelWorker`, and videos and gaze to send it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import zmq

from clients import wire
from tests.clients.model_worker import Held, ModelWorker, Reply
from tests.helpers import wait_until


class Peer:
    """Serves a ModelWorker on a loopback port. ``learning``: whether what is durable is learned at once."""

    def __init__(self) -> None:
        self.worker = ModelWorker()
        self.learning = True
        self.answering = True
        self.hellos: list[wire.Hello] = []
        self.patches: dict[tuple[str, int], np.ndarray] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._context: zmq.Context[Any] = zmq.Context()
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, on the same port as before."""
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = 0
        if self.port:
            wait_until(lambda: self._bind(socket), 10, "the port to be free again")
        else:
            self.port = socket.bind_to_random_port("tcp://127.0.0.1")
        self._stop.clear()
        self._thread = threading.Thread(target=self._serve, args=(socket,))
        self._thread.start()

    def crash(self) -> None:
        """kill -9: what is not durable is gone, connections too; nobody answers until :meth:`start`."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        self.worker.crash()

    def close(self) -> None:
        self.crash()
        self._context.term()

    def held(self, stream: str) -> Held:
        with self._lock:
            return self.worker.streams.get(stream, Held())

    def messages(self, stream: str) -> list[wire.FixationMessage]:
        """What is durable of a stream, in order."""
        held = self.held(stream)
        return [message for message in held.messages[: held.durable] if message is not None]

    def _bind(self, socket: zmq.Socket[bytes]) -> bool:
        try:
            socket.bind(self.address)
        except zmq.ZMQError:
            return False
        return True

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        while not self._stop.is_set():
            if socket.poll(10) and self.answering:
                with self._lock:
                    self._turn(socket)
            elif self.learning:
                with self._lock:
                    self._send(socket, self._learn())
        socket.close()

    def _turn(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(64):
            try:
                identity, *frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            assert len(identity) == 5, "a client sets no identity"
            message, patch = wire.decode(frames, wire.FROM_CLIENT)
            if isinstance(message, wire.Hello):
                self.hellos.append(message)
            elif isinstance(message, wire.FixationMessage):
                shape = (message.patch.height, message.patch.width, message.patch.channels)
                rgb = np.frombuffer(patch or b"", np.uint8).reshape(shape)
                self.patches.setdefault((message.stream, message.seq), rgb)
            self._send(socket, self.worker.take(identity, message, patch))
        self._send(socket, self.worker.commit())
        if self.learning:
            self._send(socket, self._learn())

    def _learn(self) -> list[Reply]:
        return [reply for name in self.worker.streams for reply in self.worker.learn(name, 1000)]

    def _send(self, socket: zmq.Socket[bytes], replies: list[Reply]) -> None:
        for identity, message in replies:
            if isinstance(identity, bytes):
                socket.send_multipart([identity, *wire.encode(message)])


@contextmanager
def running_peer() -> Iterator[Peer]:
    peer = Peer()
    try:
        yield peer
    finally:
        peer.close()
