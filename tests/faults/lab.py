"""A worker on a directory of its own, its interface, and what both hold; and the learner it must come to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from service.storage import open_reader
from tests.faults import judge
from tests.faults.nursery import Child, Nursery
from tests.faults.story import WAIT_S, Home, ready, undisturbed
from tests.helpers import free_port, wait_until
from tests.service.bench import same_bits

FLAT_KB = 32_000
"""How far a process may grow that does nothing but its usual work: the allocator's, and what is loaded late."""


@dataclass
class Lab:
    """``worker`` is ready; ``made`` is the directory that both it and the undisturbed one begin with."""

    home: Home
    worker: Child
    made: Path
    folder: Path

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(open_reader(self.home.data_dir / "rjepa.db")) as reader:
            return [tuple(row) for row in reader.execute(query)]

    def learned(self, stream: str) -> int:
        """How many fixations of a stream have been learned."""
        found = self.rows(f"SELECT learned_seq + 1 FROM streams WHERE name = '{stream}'")
        return int(found[0][0]) if found else 0

    def end(self) -> judge.Found:
        """An orderly end; what is there then, all of it learned in order and once."""
        assert self.worker.terminate(WAIT_S) == 0, self.worker.said()
        assert "Traceback" not in self.worker.log.read_text(errors="replace"), self.worker.said()
        found = judge.read(self.home.data_dir)
        assert found.learned_id == found.last_id
        return found

    def check_bits(self, found: judge.Found) -> None:
        """Records and learner are those of a worker that learned the same fixations undisturbed."""
        plain = undisturbed(self.home.nursery, self.made, self.folder / "plain", found.fixations)
        assert judge.read(plain).records == found.records
        (cursors, learner), (_, plain_learner) = judge.newest(self.home.data_dir), judge.newest(plain)
        assert {name: end for name, end in cursors.items() if end} == {n: e for n, e in found.next_seq.items() if e}
        assert same_bits(learner, plain_learner)
        print(f"disturbed {judge.sha256(learner)}\nplain     {judge.sha256(plain_learner)}")
        assert judge.sha256(learner) == judge.sha256(plain_learner)


@contextmanager
def lab(prepared: tuple[Nursery, Path], folder: Path) -> Iterator[Lab]:
    nursery, made = prepared
    shutil.copytree(made, folder / "data")
    home = Home.at(nursery, folder / "data")
    worker = home.worker()
    try:
        ready(worker)
        yield Lab(home, worker, made, folder)
    finally:
        worker.kill()


@contextmanager
def interface(lab: Lab, *, http_connections: int = 512, taken_s: float = 30.0) -> Iterator[tuple[Child, httpx.Client]]:
    """The interface on the same directory, as a process, and a client of it."""
    port = free_port()
    process = lab.home.nursery.start(
        "interface", data_dir=str(lab.home.data_dir), http=f"127.0.0.1:{port}", http_connections=http_connections,
        taken_s=taken_s,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as client:
            wait_until(lambda: _answers(process, client), WAIT_S, "the interface")
            yield process, client
        assert process.ended() is None, process.said()
    finally:
        process.kill()


def _answers(process: Child, client: httpx.Client) -> bool:
    assert process.ended() is None, process.said()
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def resident_kb(pid: int, line: str = "VmRSS") -> int:
    """Resident memory now (VmRSS) or at its highest (VmHWM), as the kernel tells it."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(one.split()[1]) for one in text.splitlines() if one.startswith(line))


def open_files(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
