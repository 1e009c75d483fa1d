"""The disk runs full, for real: it is said, nothing is acked that isn't there, and it goes on once there is room."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.check import check
from service.control import ControlClient
from tests.faults import judge
from tests.faults.namespace import SmallDisk, small_disk
from tests.faults.nursery import Nursery
from tests.faults.story import WAIT_S, Home, ready, send_all
from tests.faults.whole import LOADED, ORDER, OneByOne, Whole, stop, taken, told
from tests.helpers import free_port, wait_until


def home_on(disk: SmallDisk, made: Path) -> Home:
    """A new data directory on ``disk``."""
    wait_until(lambda: (disk.seen / "checkpoints").is_dir(), WAIT_S, "the disk")
    shutil.copytree(made, disk.seen, dirs_exist_ok=True)
    return Home.at(disk.nursery, disk.path)


@contextmanager
def interface(nursery: Nursery, data: Path) -> Iterator[httpx.Client]:
    """``rjepa api`` beside a worker."""
    port = free_port()
    process = nursery.start(
        "interface", data_dir=str(data), http=f"127.0.0.1:{port}", http_connections=64, taken_s=30.0
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:

        def answers() -> bool:
            try:
                return client.get("/livez").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, WAIT_S, "the interface")
        yield client
    assert process.terminate() == 0, process.said()


def idle(disk: SmallDisk) -> None:
    """Wait until nothing is left to be learned."""
    asked = ControlClient(disk.seen)
    wait_until(lambda: asked.ask({"op": "status"}, timeout_s=30.0)["waiting"] == 0, WAIT_S, "all to be learned")


@pytest.mark.timeout(900)
def test_no_room_for_anything(whole: Whole, tmp_path: Path) -> None:
    with small_disk(tmp_path, size="24m") as disk:
        home = home_on(disk, whole.made)
        process = home.worker()
        ready(process)
        with interface(disk.nursery, disk.path) as http, OneByOne(home.ingest) as client:
            client.claim()
            assert [client.offer(*each) for each in ORDER[:8]] == [None] * 8
            idle(disk)
            wait_until(lambda: http.get("/readyz").status_code == 200, WAIT_S, "readiness")
            filler = disk.fill(disk.seen.parent)
            for _ in range(3):
                assert client.offer(*ORDER[8]) == "storage_full"
            client.send("hello", {"stream": "c", "notify": "durable"})
            while (answer := client.receive(WAIT_S))[0] == "ack":  # of what was learned
                continue
            assert answer[1]["code"] == "storage_full", "an epoch can't be given, either"
            wait_until(lambda: http.get("/readyz").status_code == 503, WAIT_S, "the interface to hear of it")
            unready = http.get("/readyz")
            assert any("no room to write" in reason for reason in unready.json()["reasons"]), unready.text
            copy = disk.copy(tmp_path / "copy")
            assert check(copy).said() == [], "nothing is half written"
            found = judge.read(copy)
            assert [each[:2] for each in found.fixations] == list(ORDER[:8]), "what was acked and nothing else"
            assert [path.name for path in (disk.seen / "checkpoints").iterdir() if path.name.startswith(".")] == []
            filler.unlink()
            wait_until(lambda: http.get("/readyz").status_code == 200, WAIT_S, "it to go on by itself")
            assert client.offer(*ORDER[8]) is None
        begun = send_all(home.ingest, ORDER)
        assert sum(begun.values()) == 9
        stop(process)
        print(whole.judge(disk.copy(tmp_path / "end")))


@pytest.mark.timeout(900)
def test_no_room_for_checkpoints(whole: Whole, tmp_path: Path) -> None:
    """The journal has room: all is taken and learned, the alarm is on, and the last good checkpoint is gone on from."""
    with small_disk(tmp_path, size="24m", checkpoints="8m") as disk:
        home = home_on(disk, whole.made)
        process = home.worker()
        ready(process)
        with OneByOne(home.ingest) as client:
            client.claim()
            assert [client.offer(*each) for each in ORDER[:10]] == [None] * 10
            taken(process)
            idle(disk)
            filler = disk.fill(disk.seen / "checkpoints")
            kept = sorted(path.name for path in (disk.seen / "checkpoints").iterdir())
            assert [client.offer(*each) for each in ORDER[10:30]] == [None] * 20
            failed = "alarm checkpoint_failed: no room for a checkpoint"
            wait_until(lambda: failed in process.log.read_text(), WAIT_S, "the alarm")
            idle(disk)
        process.kill()
        left = sorted(path.name for path in (disk.seen / "checkpoints").iterdir() if path.name[:6] != ".part-")
        assert set(left) <= set(kept), "none that is half written"
        copy = disk.copy(tmp_path / "copy")
        assert check(copy).said() == []
        assert len(judge.read(copy).fixations) == 30
        process = home.worker()
        ready(process)
        assert told(process, LOADED)[0] in kept
        assert [path.name for path in (disk.seen / "checkpoints").iterdir() if path.name[0] == "."] == [], "no debris"
        filler.unlink()
        send_all(home.ingest, ORDER)
        stop(process)
        assert "cleared: checkpoint_failed" in process.log.read_text()
        assert process.ended() != -signal.SIGKILL
        print(whole.judge(disk.copy(tmp_path / "end")))
