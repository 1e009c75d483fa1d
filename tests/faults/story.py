"""Two streams through a worker, in one order; on whatever directory, to the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import mortal
from tests.faults.nursery import Child, Nursery
from tests.helpers import PlainClient, free_port, wait_until

WAIT_S = 300.0
"""A machine may be busy with other things."""

Order = Sequence[tuple[str, int]]
"""Which fixation of which stream, in the order they are sent: (stream, number)."""


@dataclass
class Home:
    """A data directory with the addresses its workers use."""

    nursery: Nursery
    data_dir: Path
    ingest: str
    publish: str

    @classmethod
    def at(cls, nursery: Nursery, data_dir: Path) -> Home:
        return cls(nursery, data_dir, *(f"tcp://127.0.0.1:{free_port()}" for _ in range(2)))

    def worker(self, **more: Any) -> Child:
        return self.nursery.start(
            "worker", data_dir=str(self.data_dir), ingest=self.ingest, publish=self.publish, **more
        )


def ready(process: Child) -> None:
    """Wait until its recovery is over: ended before, a worker keeps what it has learned again so far."""

    def said() -> bool:
        return process.log.exists() and "rjepa.worker: ready" in process.log.read_text(errors="replace")

    wait_until(said, WAIT_S, "the end of recovery")


def interleaved(count: int) -> Order:
    """``count`` fixations of each stream, not quite by turns."""
    order: list[tuple[str, int]] = []
    left = dict.fromkeys(mortal.STREAMS, 0)
    for turn in range(2 * count):
        name = mortal.STREAMS[(turn + turn // 3) % 2]
        name = name if left[name] < count else next(other for other in mortal.STREAMS if left[other] < count)
        order.append((name, left[name]))
        left[name] += 1
    return order


def body(stream: str, seq: int, number: int) -> dict[str, Any]:
    """The JSON of a stream's fixation ``number`` under ``seq``, as :func:`tests.faults.mortal.client` offers it."""
    said = mortal.said(number)
    patch = {"encoding": "raw", "height": 50, "width": 50, "channels": 3, "color": "rgb", "degrees": 5.0}
    gaze = dict(zip(("x", "y"), said["gaze"], strict=True))
    told = {"stream": stream, "seq": seq, "onset": said["onset_s"], "duration": said["duration_s"]}
    return told | {"gaze": gaze, "patch": patch}


def send_all(address: str, order: Order, *, ahead: int = 2 * mortal.HOLD_BACK) -> dict[str, int]:
    """Send what of ``order`` the worker does not hold yet, at most ``ahead`` of it not learned; until all is learned.

    One connection, so that the worker journals them in this order. Returns each stream's next seq at the hello.
    """
    with PlainClient(address) as client:
        begun = {}
        for name in mortal.STREAMS:
            client.send("hello", {"stream": name, "notify": "learned"})
            begun[name] = client.expect("welcome", limit_s=WAIT_S)["next_seq"]
        todo = [(name, number) for name, number in order if number >= begun[name]]
        last = {name: max(number for other, number in order if other == name) for name in mortal.STREAMS}
        learned = dict.fromkeys(mortal.STREAMS, -1)
        for name, seq in begun.items():
            if seq:  # offered again, the last one it holds is answered by how far it has learned
                client.send("fixation", body(name, seq - 1, seq - 1), mortal.patch_of(name, seq - 1).tobytes())
        sent = done = 0
        while done < len(todo) or any(learned[name] < last[name] for name in learned):
            while sent < len(todo) and sent - done < ahead:
                name, number = todo[sent]
                client.send("fixation", body(name, number, number), mortal.patch_of(name, number).tobytes())
                sent += 1
            kind, told = client.receive(limit_s=WAIT_S)
            assert kind in ("ack", "learned"), (kind, told)
            far = told["learned"] if kind == "ack" else told["seq"]
            learned[told["stream"]] = max(learned[told["stream"]], far)
            done = sum(number <= learned[name] for name, number in todo)
        return begun


def undisturbed(nursery: Nursery, made: Path, folder: Path, fixations: Sequence[tuple[str, int, float]]) -> Path:
    """A directory in which one worker has learned these in one life, one after the other over one connection."""
    shutil.copytree(made, folder)
    home = Home.at(nursery, folder)
    process = home.worker()
    with PlainClient(home.ingest) as client:
        for name in mortal.STREAMS:
            client.send("hello", {"stream": name, "notify": "learned"})
            client.expect("welcome", limit_s=WAIT_S)
        for name, seq, onset in fixations:
            number = round(onset / 0.25)
            client.send("fixation", body(name, seq, number), mortal.patch_of(name, number).tobytes())
        last = {name: seq for name, seq, _ in fixations}
        while last:
            kind, told = client.receive(limit_s=WAIT_S)
            assert kind in ("ack", "learned"), (kind, told)
            far = told["learned"] if kind == "ack" else told["seq"]
            if far >= last.get(told["stream"], 2**60):
                del last[told["stream"]]
    assert process.terminate(WAIT_S) == 0, process.said()
    return folder


@contextmanager
def nursery_of(folder: Path) -> Iterator[tuple[Nursery, Path]]:
    """A nursery, and a data directory made by one of its workers, in which nothing was learned."""
    nursery = Nursery(folder / "logs")
    try:
        home = Home.at(nursery, folder / "made")
        process = home.worker()
        wait_until(lambda: (home.data_dir / "control.sock").exists(), WAIT_S, "a new data directory")
        assert process.terminate(WAIT_S) == 0, process.said()
        yield nursery, home.data_dir
    finally:
        nursery.close()
