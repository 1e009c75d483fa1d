"""Sixty thousand fixations through one worker as fast as it goes, as four hours of looking would bring."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from model.deadleaves import dead_leaves
from tests.helpers import PlainClient
from tests.soak.test_fuzz_wire import Live, live

pytestmark = pytest.mark.soak

COUNT = 60_000
AHEAD = 256
"""Sent and not learned yet: the worker never waits for the client."""
WINDOW = 2_000
"""Fixations before a mark that its step time is taken of."""
FLAT_KB = 64_000
"""One kB kept of each fixation would be seen."""
PATCHES = dead_leaves(512, seed=3)


@dataclass
class Mark:
    """What the worker was like after ``count`` fixations. Times are of the :data:`WINDOW` before, in ms a fixation."""

    count: int
    resident_kb: int
    descriptors: int
    wall_ms: float
    cpu_ms: float

    def __str__(self) -> str:
        size = f"{self.resident_kb / 1024:.0f} MB, {self.descriptors} descriptors"
        return f"{self.count:6d}: {size}, {self.wall_ms:.2f} ms a fixation, {self.cpu_ms:.2f} ms of processor time"


@dataclass
class Watch:
    """Marks at 10, 50 and 100 % of ``count``."""

    worker: Live
    count: int
    marks: list[Mark] = field(default_factory=list)
    _begun: tuple[float, float] = (0.0, 0.0)

    def learned(self, done: int) -> None:
        """``done`` are learned: called with each number once."""
        wanted = [round(self.count * share) for share in (0.1, 0.5, 1.0)]
        if done + WINDOW in wanted:
            self._begun = time.perf_counter(), self._cpu_s()
        if done in wanted:
            wall, cpu = time.perf_counter() - self._begun[0], self._cpu_s() - self._begun[1]
            descriptors = len(list(Path(f"/proc/{self.worker.process.pid}/fd").iterdir()))
            per = 1000.0 / WINDOW
            self.marks.append(Mark(done, self.worker.resident_kb(), descriptors, wall * per, cpu * per))
            print(self.marks[-1], flush=True)

    def _cpu_s(self) -> float:
        """Processor time of all the worker's threads, as :func:`time.process_time` counts it."""
        return time.clock_gettime(_clock_of(self.worker.process.pid))


def _clock_of(pid: int) -> int:
    """The kernel's number of a process's processor-time clock (clock_getcpuclockid(3))."""
    return ~pid << 3 | 2


def drive(worker: Live, count: int) -> Watch:
    """``count`` fixations of one stream, none like the one before it; each is learned, in order."""
    watch = Watch(worker, count)
    with PlainClient(worker.address) as client:
        client.hello("s")
        sent = done = 0
        while done < count:
            while sent < count and sent - done < AHEAD:
                client.fixation("s", sent, PATCHES[sent * 199 % len(PATCHES)])
                sent += 1
            kind, told = client.receive(120.0)
            assert kind in ("ack", "learned"), (kind, told)
            if kind == "learned":
                assert told["seq"] == done, "in order, each once"
                assert told["skipped"] is None, told
                done += 1
                watch.learned(done)
    return watch


def test_memory_and_descriptors_stay_as_they_are(data_dir: Path, tmp_path: Path) -> None:
    with live(data_dir, tmp_path / "logs") as worker:
        watch = drive(worker, COUNT)
        assert worker.process.terminate(60.0) == 0, worker.process.stderr()[-3000:]
    first, _, last = watch.marks
    assert last.descriptors == first.descriptors
    assert last.resident_kb - first.resident_kb < FLAT_KB, [str(mark) for mark in watch.marks]
