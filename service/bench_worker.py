"""Real workers for benchmarks: processes of their own, with sockets and temporary data directories of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from service.control import ControlClient
from service.datadir import DATABASE
from service.errors import BenchRefused, ServiceError
from service.storage import open_reader

SEED = 0
LIMIT_S = 300.0
"""How long a worker may take to be ready; a new directory is calibrated first."""
TICK_S = 0.01


@dataclass(frozen=True)
class Used:
    """What a process has taken of the machine so far."""

    cpu_s: float
    resident_mb: float


class BenchWorker:
    """``rjepa worker`` on ``data_dir``, or ``rjepa serve`` with ``http``. Ends with the ``with`` block."""

    def __init__(self, data_dir: Path, *words: str, http: bool = False) -> None:
        """Start it; :meth:`ready` waits for it."""
        self.data_dir = data_dir
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self._command = ["serve", "--http", self.http] if http else ["worker"]
        self._words = ["--data-dir", str(data_dir), "--weights", "random", "--seed", str(SEED), *words]
        self._words += ["--ingest", self.address, "--publish", f"tcp://127.0.0.1:{free_port()}"]
        self._serving = http
        self._control = ControlClient(data_dir)
        self._log: IO[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the process, at the same addresses as before."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RJEPA_")}
        self._log = (self.data_dir.parent / f"{self.data_dir.name}.log").open("ab")
        self.started_s = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rjepa", *self._command, *self._words],
            env=kept, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def __enter__(self) -> BenchWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60.0)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._log is not None:
            self._log.close()

    def kill(self) -> None:
        """End it without a word, as a crash would."""
        self._process.kill()
        self._process.wait()
        if self._log is not None:
            self._log.close()

    def ready(self) -> float:
        """Wait until it takes fixations and has recovered; seconds since it was started.

        Raises :class:`BenchRefused` where it ends instead.
        """
        while True:
            if self._process.poll() is not None or time.perf_counter() - self.started_s > LIMIT_S:
                log = (self.data_dir.parent / f"{self.data_dir.name}.log").read_text(errors="replace")
                raise BenchRefused(f"the worker to be measured did not start: {log[-500:]}")
            if (self.data_dir / "control.sock").exists() and self._is_ready():
                return time.perf_counter() - self.started_s
            time.sleep(TICK_S)

    def _is_ready(self) -> bool:
        try:
            told = self.status()
            if told["pid"] != self._process.pid and not self._serving:
                return False
            return not told["recovering"] and (not self._serving or self._http_ready())
        except (ServiceError, KeyError, OSError):
            return False

    def _http_ready(self) -> bool:
        try:
            return self.fetch("/readyz") > 0
        except OSError:  # refused, or not ready yet (503)
            return False

    def fetch(self, path: str, accept: str = "application/json") -> int:
        """Read an answer of the HTTP interface to its end; how many bytes. Raises OSError."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"http://{self.http}{path}", headers={"Accept": accept})
        count = 0
        with opener.open(request, timeout=60.0) as answer:
            while piece := answer.read(1 << 16):
                count += len(piece)
        return count

    def status(self) -> dict[str, Any]:
        """What the worker says of itself."""
        return self._control.ask({"op": "status"}, timeout_s=10.0)

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for what it comes to."""
        return self._control.ask({"op": "command", "name": name, "arguments": arguments}, timeout_s=60.0)

    def used(self) -> Used | None:
        """Of the process that learns; None where the system does not tell."""
        pid = self.status()["pid"]
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            return None
        ticks = os.sysconf("SC_CLK_TCK")
        return Used((int(fields[11]) + int(fields[12])) / ticks, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def disk_bytes(self) -> int:
        """What the database holds."""
        with closing(open_reader(self.data_dir / DATABASE)) as reader:
            (pages,), (size,) = (reader.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
            return int(pages) * int(size)


class Directories:
    """Fresh data directories: one is made, calibrated and all, and copied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = folder / "made"
        self._count = 0

    def fresh(self) -> Path:
        """A data directory in which nothing was learned yet."""
        if not self._made.exists():
            with BenchWorker(self._made) as worker:
                worker.ready()
        self._count += 1
        copy = self._folder / f"data{self._count}"
        shutil.copytree(self._made, copy, ignore=shutil.ignore_patterns("*.sock", "lock"))
        return copy

    @contextmanager
    def worker(self, *words: str, http: bool = False) -> Iterator[BenchWorker]:
        """A ready worker on a fresh directory, which is gone afterwards."""
        data_dir = self.fresh()
        try:
            with BenchWorker(data_dir, *words, http=http) as worker:
                worker.ready()
                yield worker
        finally:
            shutil.rmtree(data_dir, ignore_errors=True)


def free_port() -> int:
    """A TCP port of the loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
