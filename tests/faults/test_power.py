"""The power goes: what a real worker synced, cut off anywhere, is enough to go on from as if nothing had been.

A worker is recorded by strace (tests/faults/trace.py) from the making of its data directory on: half of two streams,
kill -9, recovery, the other half, an orderly end. At seeded moments of the record the disk loses what was not synced
(tests/faults/disk.py). On what is left another worker must hold all that was acked by then and go on to the same bits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from model.snapshot import Snapshot
from service.checkpoints import Checkpoints
from service.errors import RequestRefused, ServiceError
from service.storage import Database
from tests.faults import judge, trace
from tests.faults.disk import Disk
from tests.faults.nursery import Nursery
from tests.faults.story import WAIT_S, Home, Order, interleaved, nursery_of, ready, send_all, undisturbed
from tests.faults.trace import Effect, Folder, Said, SyncBegun, SyncDone, Write
from tests.helpers import ROOT, environment
from tests.service.bench import same_bits

EACH = 50
ORDER = interleaved(EACH)
DATA = "data"
_ACK = re.compile(rb'\x03ack\x00.(\{"stream":[^{}]*\})', re.DOTALL)
_TAKEN = re.compile(rb"checkpoint (\S+): journal id \d+, \d+ bytes")


@dataclass(frozen=True)
class Recorded:
    """``effects`` under ``root``; the nursery for the workers that go on; the learner of a worker never disturbed."""

    root: Path
    effects: list[Effect]
    nursery: Nursery
    records: list[tuple[object, ...]]
    learner: Snapshot


@dataclass(frozen=True)
class Promised:
    """What had been said to others when the power went."""

    acked: dict[str, int]
    learned: dict[str, int]
    checkpoint: str | None

    @classmethod
    def by(cls, effects: Sequence[Effect]) -> Promised:
        said = b"\0".join(effect.data for effect in effects if isinstance(effect, Said))
        acks = [json.loads(found) for found in _ACK.findall(said)]
        far = {key: {ack["stream"]: ack[key] for ack in acks if ack[key] >= 0} for key in ("seq", "learned")}
        taken = _TAKEN.findall(said)
        return cls(far["seq"], far["learned"], taken[-1].decode() if taken else None)


@pytest.fixture(scope="module")
def strace() -> str:
    """strace, that works; its absence skips on a laptop and fails in CI."""
    try:
        subprocess.run(["strace", "-o", os.devnull, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            pytest.fail(f"strace is needed in CI: {error}")
        pytest.skip(f"no strace that works on this machine (Debian: apt install strace): {error}")
    return "strace"


@pytest.fixture(scope="module")
def recorded(strace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("power")
    root = folder / "root"
    root.mkdir()
    with nursery_of(folder / "quiet") as (nursery, made):
        home = Home.at(nursery, root / DATA)
        effects: list[Effect] = []
        for life, part in enumerate((ORDER[: len(ORDER) // 2], ORDER)):
            log = folder / f"{life}.strace"
            with _traced(home, log, folder / f"{life}.err") as process:
                send_all(home.ingest, part, ahead=8)  # in many commits
                os.kill(int((home.data_dir / "lock").read_text()), signal.SIGTERM if life else signal.SIGKILL)
                process.wait(WAIT_S)
            effects += trace.read(log, root)
        fixations = [(name, number, 0.25 * number) for name, number in ORDER]
        plain = undisturbed(nursery, made, folder / "plain", fixations)
        yield Recorded(root, effects, nursery, judge.read(plain).records, judge.newest(plain)[1])


@pytest.fixture(scope="module")
def crashes(recorded: Recorded) -> Callable[[int, int], list[int]]:
    """Moments of the record by seed: half of them anywhere, half just before or after a sync's end or an ack."""
    first = next(at for at, effect in enumerate(recorded.effects) if isinstance(effect, Folder))
    edges = [at for at, effect in enumerate(recorded.effects) if isinstance(effect, SyncDone) or _ack(effect)]

    def choose(seed: int, count: int) -> list[int]:
        generator = np.random.default_rng(seed)
        anywhere = generator.integers(first, len(recorded.effects) + 1, count - count // 2)
        edge = generator.choice([at for at in edges if at >= first], count // 2) + generator.integers(0, 2, count // 2)
        return [int(at) for at in generator.permutation([*anywhere, *edge])]

    return choose


def _traced(home: Home, log: Path, errors: Path) -> subprocess.Popen[bytes]:
    arguments: dict[str, object] = {"data_dir": str(home.data_dir), "ingest": home.ingest, "publish": home.publish}
    arguments |= {"checkpoint_every_s": 0.1}
    with errors.open("wb") as file:
        return subprocess.Popen(
            [*trace.strace(log), sys.executable, "-m", "tests.faults.mortal", "worker", json.dumps(arguments)],
            cwd=ROOT,
            env=environment({"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )


def _ack(effect: Effect) -> bool:
    return isinstance(effect, Said) and _ACK.search(effect.data) is not None


def cut_off(root: Path, effects: Sequence[Effect], folder: Path, generator: np.random.Generator) -> Path:
    """The data directory as a disk has it after ``effects`` and a loss of power."""
    disk = Disk(root)
    disk.happen(effects)
    shutil.rmtree(folder, ignore_errors=True)
    disk.after_power_loss(folder, generator)
    data = folder / DATA
    (data / "rjepa.db-shm").unlink(
        missing_ok=True
    )  # SQLite's index of the log: mapped, and made anew by whoever is first
    if (data / "step").exists():  # mapped as well: any state it ever had
        (data / "step").write_bytes(struct.pack("<q", int(generator.integers(0, len(ORDER)))))
    return data


def check(data: Path, promised: Promised, order: Order = ORDER) -> None:
    """What was promised by then is there, before any worker has seen it. Raises AssertionError, or what SQLite says."""
    if not promised.acked:
        return
    assert (data / "rjepa.db").exists(), "the database is gone"
    Database(data / "rjepa.db").close()
    found = judge.read(data)
    held = [(name, number) for name, number, _ in found.fixations]
    assert held == list(order[: len(held)])
    for name, seq in promised.acked.items():
        assert found.next_seq.get(name, 0) > seq, f"{name}: acked {seq}, next {found.next_seq}"
    for name, seq in promised.learned.items():
        assert any(record[:2] == (name, seq) for record in found.records), f"{name}: told that {seq} is learned"
    if promised.checkpoint is not None:
        Checkpoints(data / "checkpoints").verified(promised.checkpoint)


def go_on(recorded: Recorded, data: Path, promised: Promised) -> str:
    """Another worker, to the end of both streams: the sha256 of its learner, which is the undisturbed one's."""
    home = Home.at(recorded.nursery, data)
    process = home.worker()
    begun = send_all(home.ingest, ORDER)
    assert all(begun[name] > seq for name, seq in promised.acked.items())
    ready(process)
    assert process.terminate(WAIT_S) == 0, process.said()
    found = judge.read(data)
    assert [(name, number) for name, number, _ in found.fixations] == list(ORDER)
    assert found.records == recorded.records
    learner = judge.newest(data)[1]
    assert same_bits(learner, recorded.learner)
    return judge.sha256(learner)


def _files(folder: Path) -> dict[str, bytes]:
    """Every file's content but of those that are mapped, and of the control socket's."""
    left_out = ("step", "control.sock", "rjepa.db-shm")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in left_out)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lose_power(recorded: Recorded, moments: Sequence[int], folder: Path, seed: int) -> None:
    for number, moment in enumerate(moments):
        effects = recorded.effects[:moment]
        promised = Promised.by(effects)
        data = cut_off(recorded.root, effects, folder, np.random.default_rng([seed, number]))
        copy = folder / "copy"
        if data.exists():
            shutil.copytree(data, copy)
        check(copy, promised)
        found = go_on(recorded, data, promised)
        print(f"seed {seed}, {number}: after {moment} of {len(recorded.effects)}, {promised}: {found}")
    print(f"{len(moments)} losses of power, seed {seed}\n  whole {judge.sha256(recorded.learner)}")


def losses(recorded: Recorded, effects: list[Effect], moments: Sequence[int], folder: Path) -> int:
    """At how many of ``moments`` something promised is gone."""
    lost = 0
    for number, moment in enumerate(moments):
        data = cut_off(recorded.root, effects[:moment], folder, np.random.default_rng(number))
        try:
            check(data, Promised.by(effects[:moment]))
        except (AssertionError, ServiceError, RequestRefused, sqlite3.Error) as error:
            print(f"after {moment}: {type(error).__name__} {str(error).splitlines()[0]}")
            lost += 1
    return lost


@pytest.mark.timeout(1800)
def test_the_record_is_the_whole_truth(recorded: Recorded, tmp_path: Path) -> None:
    """Everything the recorded worker left behind can be made again from the record, to the byte."""
    disk = Disk(recorded.root)
    disk.happen(recorded.effects)
    disk.as_seen(tmp_path / "again")
    found, again = (_files(folder / DATA) for folder in (recorded.root, tmp_path / "again"))
    assert len(found) >= 8
    assert found == again
    assert sum(isinstance(effect, SyncDone) for effect in recorded.effects) > 100
    assert any(
        isinstance(effect, Write) and effect.path.endswith("rjepa.db-wal") and effect.offset == 0
        for effect in recorded.effects[len(recorded.effects) // 2 :]
    ), "SQLite has begun its log again"


@pytest.mark.timeout(1800)
def test_five_losses_of_power(recorded: Recorded, crashes: Callable[[int, int], list[int]], tmp_path: Path) -> None:
    lose_power(recorded, crashes(1, 5), tmp_path / "disk", 1)


@pytest.mark.soak
def test_fifty_losses_of_power(recorded: Recorded, crashes: Callable[[int, int], list[int]], tmp_path: Path) -> None:
    lose_power(recorded, crashes(50, 50), tmp_path / "disk", 50)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("left_out", ["rjepa.db-wal", "learner.safetensors", "checkpoints", DATA])
def test_a_missing_fsync_is_found(
    recorded: Recorded, crashes: Callable[[int, int], list[int]], tmp_path: Path, left_out: str
) -> None:
    """The same record without the syncs of one file or folder: the proof can fail."""
    effects: list[Effect] = []
    left = 0
    for effect in recorded.effects:
        gone = isinstance(effect, (SyncBegun, SyncDone)) and Path(effect.path).name == left_out
        left += gone
        effects.append(Said(b"") if gone else effect)
    assert left >= 2, "there was something to leave out"
    moments = [moment for moment in crashes(2, 60) if Promised.by(effects[:moment]).acked][:12]
    assert losses(recorded, recorded.effects, moments, tmp_path / "disk") == 0
    assert losses(recorded, effects, moments, tmp_path / "disk") > 0
