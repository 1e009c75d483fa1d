"""A real ``rjepa worker``, for tests that need no HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.control import ControlClient
from service.errors import WorkerUnreachable
from tests.helpers import Running, free_port, start_rjepa, wait_until


@dataclass
class Working:
    """A worker that is ready, and its two addresses."""

    process: Running
    ingest: str
    publish: str


@contextmanager
def working(data_dir: Path, logs: Path, ingest: str | None = None, options: Sequence[str] = ()) -> Iterator[Working]:
    """A worker with random weights on ``data_dir``, at ``ingest`` or a free port; what is left of it is killed."""
    ingest, publish = ingest or f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    words = ("--data-dir", data_dir, "--weights", "random", "--ingest", ingest, "--publish", publish)
    with start_rjepa("worker", *words, *options, logs=logs) as process:

        def ready() -> bool:
            assert process.alive(), process.stderr()[-3000:]
            try:
                return not ControlClient(data_dir).ask({"op": "status"}, timeout_s=30.0)["recovering"]
            except WorkerUnreachable:
                return False

        wait_until(ready, 170.0, "the worker")
        yield Working(process, ingest, publish)
