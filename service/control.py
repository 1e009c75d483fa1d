"""The worker's control socket, both ends: ``DATA_DIR/control.sock``, one JSON object each way.

A request is ``{"op": "status" | "embed" | "diagnostics" | "command", ...}``; the answer ``{"ok": true, ...}`` or
``{"ok": false, "status": <HTTP status>, "code": ..., "detail": ...}``. What each op takes and gives is in
:mod:`service.desk`. Only who may enter the data directory can reach the socket.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import zmq

from service.errors import RequestRefused, ServiceError, WorkerUnreachable
from service.mailbox import Mailbox

SOCKET_NAME = "control.sock"
MAX_REQUEST_BYTES = 4 << 20
TICK_S = 0.1
PATH_LIMIT_BYTES = 100
"""A Unix socket's path may have 107 bytes."""

log = logging.getLogger("rjepa.control")


class Call:
    """One request; answered once, from any thread."""

    def __init__(self, request: dict[str, Any], identity: bytes, outbox: Mailbox[tuple[bytes, dict[str, Any]]]) -> None:
        self.request = request
        self._identity = identity
        self._outbox = outbox
        self._lock = threading.Lock()
        self._answered = False

    def answer(self, value: dict[str, Any]) -> None:
        """Answer ``{"ok": true}`` and ``value``; the second answer to a call is dropped."""
        self._send({"ok": True} | value)

    def refuse(self, status: int, code: str, detail: str) -> None:
        """Answer that it can't be done."""
        self._send({"ok": False, "status": status, "code": code, "detail": detail})

    def _send(self, value: dict[str, Any]) -> None:
        with self._lock:
            if self._answered:
                return
            self._answered = True
        self._outbox.put((self._identity, value))


class Handler(Protocol):
    """What a :class:`ControlServer` asks."""

    def handle(self, call: Call) -> None:
        """Answer ``call`` now or later; may raise :class:`ServiceError`."""

    def tick(self) -> None:
        """Called every :data:`TICK_S` seconds or more often: a place to give up on what takes too long."""


class ControlServer(threading.Thread):
    """Takes requests in a thread of its own and passes them to ``handler``; ``on_end`` is called when it ends."""

    def __init__(
        self, context: zmq.Context[Any], data_dir: Path, handler: Handler, *, on_end: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name="control", daemon=True)
        self._on_end = on_end
        self._handler = handler
        self._outbox: Mailbox[tuple[bytes, dict[str, Any]]] = Mailbox()
        self._stopping = threading.Event()
        self._file = data_dir / SOCKET_NAME
        self._folder = os.open(data_dir, os.O_RDONLY)
        self._socket: zmq.Socket[Any] = context.socket(zmq.ROUTER)
        self._socket.linger = 200
        self._socket.maxmsgsize = MAX_REQUEST_BYTES
        self._socket.bind(f"ipc://{_path(data_dir, self._folder)}")

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._outbox.fileno(), zmq.POLLIN)
        try:
            while not self._stopping.is_set():
                ready = dict(poller.poll(int(TICK_S * 1000)))
                if self._socket in ready:
                    self._take()
                self._answer()
                self._handler.tick()
            self._answer()
        except Exception:  # the thread's boundary: the worker ends with it, and says why
            log.exception("the control socket ended by an error of its own")
        finally:
            self._on_end()
            self._socket.close()
            self._file.unlink(missing_ok=True)
            self._outbox.close()
            os.close(self._folder)

    def stop(self) -> None:
        """End the thread once what was answered is sent."""
        self._stopping.set()
        self.join()

    def _take(self) -> None:
        identity, *frames = self._socket.recv_multipart()
        try:
            request = json.loads(frames[-1]) if frames else None
        except (ValueError, RecursionError):
            request = None
        call = Call(request if isinstance(request, dict) else {}, identity, self._outbox)
        try:
            self._handler.handle(call)
        except RequestRefused as error:
            call.refuse(error.status, error.code, error.detail)
        except ServiceError as error:
            call.refuse(503, error.code, str(error))
        except Exception:  # the thread's boundary: one bad request must not end the others
            log.exception("a control request failed: %s", call.request.get("op"))
            call.refuse(500, "internal", "the worker failed on this request; its log says why")

    def _answer(self) -> None:
        for identity, value in self._outbox.take():
            self._socket.send_multipart([identity, b"", json.dumps(value).encode()])


class ControlClient:
    """Asks the worker of a data directory. Safe from several threads."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def ask(self, request: dict[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
        """The worker's answer, also where it says no (``ok`` is false then).

        Raises :class:`WorkerUnreachable` where no worker runs or it does not answer within ``timeout_s``.
        """
        with _reachable(self._data_dir) as path, zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(f"ipc://{path}")
            dealer.send_multipart([b"", json.dumps(request).encode()])
            if not dealer.poll(int(timeout_s * 1000)):
                raise WorkerUnreachable(
                    f"the worker of {self._data_dir} did not answer within {timeout_s:g} s; ask again"
                )
            answer: dict[str, Any] = json.loads(dealer.recv_multipart()[-1])
            return answer


def _path(data_dir: Path, folder: int) -> str:
    """The socket's path, short enough; ``folder`` is an open descriptor of the directory."""
    plain = str(data_dir.absolute() / SOCKET_NAME)
    return plain if len(plain.encode()) < PATH_LIMIT_BYTES else f"/proc/self/fd/{folder}/{SOCKET_NAME}"


@contextmanager
def _reachable(data_dir: Path) -> Iterator[str]:
    """The path of a control socket somebody listens on."""
    unreachable = f"no worker runs on {data_dir}; start one with `rjepa serve` or `rjepa worker`"
    try:
        folder = os.open(data_dir, os.O_RDONLY)
    except OSError as error:
        raise WorkerUnreachable(f"{unreachable} ({error.strerror})") from None
    try:
        path = _path(data_dir, folder)
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError:
                raise WorkerUnreachable(unreachable) from None
        yield path
    finally:
        os.close(folder)
