"""A worker and an HTTP interface as the two processes they are, each to be killed and started again at its address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from service.control import ControlClient
from service.errors import WorkerUnreachable
from tests.helpers import PlainClient, Running, free_port, patches, start_rjepa, wait_until


class Halves:
    """Use :func:`halves`."""

    def __init__(self, data_dir: Path, logs: Path, stack: ExitStack) -> None:
        self.data_dir = data_dir
        self.ingest, self.publish = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        self._logs, self._stack = logs, stack
        self._ports = {"api": free_port()}
        self.worker = self.start_worker()
        self.api = self.start_api()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self._ports['api']}"

    def start_worker(self) -> Running:
        sockets = (f"--ingest={self.ingest}", f"--publish={self.publish}")
        words = ("worker", f"--data-dir={self.data_dir}", "--weights=random", *sockets)
        process = self._stack.enter_context(start_rjepa(*words, logs=self._logs / "worker"))

        def ready() -> bool:
            assert process.alive(), process.stderr()[-3000:]
            try:
                return not ControlClient(self.data_dir).ask({"op": "status"}, timeout_s=30.0)["recovering"]
            except WorkerUnreachable:
                return False

        wait_until(ready, 120.0, "the worker")
        self.worker = process
        return process

    def start_api(self, *words: str, name: str = "api") -> Running:
        """An interface on the same directory, at the address it had before; ``name`` another for one more."""
        port = self._ports.setdefault(name, free_port())
        told = ("api", f"--data-dir={self.data_dir}", f"--http=127.0.0.1:{port}", f"--publish={self.publish}", *words)
        process = self._stack.enter_context(start_rjepa(*told, logs=self._logs / name))

        def live() -> bool:
            assert process.alive(), process.stderr()[-3000:]
            try:
                return httpx.get(f"{self.address(name)}/livez", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(live, 60.0, "the interface")
        return process

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    def look(self, stream: str, count: int) -> int:
        """``count`` more fixations of ``stream``, learned; the seq of the last."""
        with PlainClient(self.ingest) as client:
            first = int(client.hello(stream)["next_seq"])
            for seq, patch in zip(range(first, first + count), patches(count, seed=first), strict=True):
                client.fixation(stream, seq, patch)
            client.until_learned(first + count - 1)
        return first + count - 1


@contextmanager
def halves(data_dir: Path, logs: Path) -> Iterator[Halves]:
    """Both, ready; what is left of them is killed."""
    with ExitStack() as stack:
        yield Halves(data_dir, logs, stack)
