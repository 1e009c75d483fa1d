"""The disk says EIO, now and then, to syncs and writes: nothing that failed is taken for done, and it goes on.

After a failed sync Linux takes what it could not write for written: the next sync of the same bytes succeeds and means
nothing (tests/faults/disk.py knows that, as of what strace has recorded). Only writing them anew is of use.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.check import check as faults_of
from tests.faults import trace
from tests.faults.failing import failing
from tests.faults.story import Home, ready, send_all
from tests.faults.test_power import DATA, Promised, check, cut_off, strace  # noqa: F401 - strace is a fixture
from tests.faults.trace import Effect, SyncFailed
from tests.faults.whole import LAST, ORDER, OneByOne, Whole, stop

pytestmark = pytest.mark.usefixtures("strace")
EVERYWHERE = ("fdatasync:error=EIO:when=5+17", "pwrite64:error=EIO:when=90+260")
"""SQLite's syncs and writes, of each thread some."""
CHECKPOINTS = ("fsync:error=EIO:when=2+11", "rename:error=EIO:when=1+7", "ftruncate:error=EIO:when=6+9")
"""Those of checkpoints; the last is how the library that writes a learner begins its file."""


def offer_all(client: OneByOne, order: Sequence[tuple[str, int]]) -> list[str]:
    """Offer each again and again until it is acked; what was answered meanwhile."""
    refused = []
    for name, number in order:
        while (code := client.offer(name, number)) is not None:
            refused.append(code)
    return refused


def lose_power(root: Path, effects: Sequence[Effect], folder: Path, moments: Sequence[int]) -> None:
    """All that was promised by then is there, whatever the disk made of what failed."""
    for number, moment in enumerate(moments):
        data = cut_off(root, effects[:moment], folder, np.random.default_rng([7, number]))
        check(data, Promised.by(effects[:moment]), ORDER)


def new_home(whole: Whole, folder: Path) -> tuple[Home, list[Effect]]:
    """A new data directory on a disk of its own, and the effects by which it came to be there, durably."""
    root = folder / "root"
    root.mkdir()
    return whole.home(root / DATA), settled(root)


def settled(root: Path) -> list[Effect]:
    """The effects that make, durably, what lies under ``root``."""
    effects: list[Effect] = []
    number = -1
    for path in sorted(root.rglob("*")):
        if path.name in ("step", "control.sock", "rjepa.db-shm"):
            continue
        effects.append(trace.Folder(str(path)) if path.is_dir() else trace.Make(str(path), True, False))
        if path.is_file():
            effects.append(trace.Write(str(path), 0, path.read_bytes()))
        for each in (path, path.parent):
            effects += [trace.SyncBegun(str(each), number), trace.SyncDone(str(each), number)]
            number -= 1
    return effects


@pytest.mark.timeout(900)
def test_a_sync_that_failed_is_never_taken_for_one(whole: Whole, tmp_path: Path) -> None:
    """A fixation whose commit's sync failed is not acked; a worker that finds it in the log makes it durable first.

    The worker is killed while what failed still lies in the system's cache, where it looks as good as the rest.
    """
    home, effects = new_home(whole, tmp_path)
    root = home.data_dir.parent
    failures = ["fdatasync:error=EIO:when=9..11"]
    with failing(home, tmp_path / "first", failures) as worker, OneByOne(home.ingest) as client:
        acked = client.claim()
        for name, number in ORDER:
            if (code := client.offer(name, number)) is not None:
                break
            acked[name] = number + 1
            client.until_learned({name: number})
        assert code == "storage_failed"
        worker.signal(signal.SIGKILL)
        assert ("fdatasync", "rjepa.db-wal") in worker.failures()
    effects += trace.read(worker.record, root)
    assert any(isinstance(effect, SyncFailed) for effect in effects)
    lose_power(root, effects, tmp_path / "cut", [len(effects)] * 8)
    with failing(home, tmp_path / "second") as worker, OneByOne(home.ingest) as client:
        for other, count in acked.items():
            client.send("hello", {"stream": other, "notify": "durable", "acked": count - 1})
            next_seq = client.expect("welcome")["next_seq"]
            assert next_seq in ((count, count + 1) if other == name else (count,))
            print(f"{other}: acked {count}, then next {next_seq}")
            while client.receive()[0] != "ack":
                continue
        worker.signal(signal.SIGKILL)
    begun = len(effects)
    effects += trace.read(worker.record, root)
    acks = [at for at in range(begun, len(effects) + 1) if Promised.by(effects[begun:at]).acked]
    lose_power(root, effects, tmp_path / "cut", [acks[0]] * 12 + [acks[-1]] * 12)
    process = home.worker()
    send_all(home.ingest, ORDER)
    stop(process)
    print(whole.judge(home.data_dir))


@pytest.mark.timeout(900)
def test_syncs_and_writes_that_fail_now_and_then(whole: Whole, tmp_path: Path) -> None:
    """In one life: of the journal, of records, of checkpoints; the power may go at any moment of it."""
    home, effects = new_home(whole, tmp_path)
    root = home.data_dir.parent
    with failing(home, tmp_path / "life", [*EVERYWHERE, *CHECKPOINTS]) as worker, OneByOne(home.ingest) as client:
        client.claim()
        refused = offer_all(client, ORDER)
        client.until_learned(LAST)
        assert set(refused) == {"storage_failed"}
        worker.wait_for("alarm checkpoint_failed")
        worker.wait_for("alarm cleared: checkpoint_failed")
        folder = home.data_dir / "checkpoints"
        code = worker.signal(signal.SIGTERM)
        assert code == 0, worker.errors.read_text()[-3000:]
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [], "no debris"
        failures = worker.failures()
        print(f"{len(refused)} refused; made to fail: {sorted(failures)}")
        calls = {call for call, _ in failures}
        # How many checkpoints there are, and so which of their calls it hits, hangs on how fast the machine is.
        assert {"fdatasync", "pwrite64", "fsync"} <= calls <= {"fdatasync", "pwrite64", "fsync", "rename", "ftruncate"}
    assert faults_of(home.data_dir).said() == []
    begun = len(effects)
    effects += trace.read(worker.record, root)
    generator = np.random.default_rng(3)
    lose_power(root, effects, tmp_path / "cut", [int(at) for at in generator.integers(begun, len(effects) + 1, 12)])
    process = home.worker()  # the last checkpoint may have been among those that failed
    send_all(home.ingest, ORDER)
    stop(process)
    print(whole.judge(home.data_dir))


@pytest.mark.timeout(900)
def test_the_database_file_itself_fails(whole: Whole, tmp_path: Path) -> None:
    """What SQLite brings from its log to its file, at first and every other time in vain: nobody notices."""
    home = whole.home(tmp_path / "data")
    database = home.data_dir / "rjepa.db"
    failures = ["fdatasync,fsync:error=EIO:when=1+2", "pwrite64:error=EIO:when=3..4"]
    with failing(home, tmp_path / "life", failures, [database]) as worker, OneByOne(home.ingest) as client:
        client.claim()
        refused = offer_all(client, ORDER)
        client.until_learned(LAST)
        assert refused == []
        worker.signal(signal.SIGKILL)
        assert worker.failures() == {("fdatasync", "rjepa.db"), ("pwrite64", "rjepa.db")}
    process = home.worker()
    assert sum(send_all(home.ingest, ORDER).values()) == len(ORDER)
    ready(process)
    stop(process)
    print(whole.judge(home.data_dir))
