"""Bytes that are not what was written: in a checkpoint, at the end of SQLite's log, in the database itself."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.control import ControlClient
from service.manifests import LEARNER, MANIFEST, digest_of
from service.storage import Database, open_reader
from tests.faults import judge
from tests.faults.story import WAIT_S, Home, ready, send_all
from tests.faults.whole import LOADED, ORDER, OneByOne, Whole, stop, told
from tests.helpers import wait_until

HALF = ORDER[:36]
LOG_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096


@pytest.fixture(scope="module")
def left(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two directories with the first half learned: of a worker that was ``stopped``, and of one that was ``killed``."""
    folders = {}
    for name in ("stopped", "killed"):
        folders[name] = tmp_path_factory.mktemp(name) / "data"
        home = whole.home(folders[name])
        process = home.worker()
        send_all(home.ingest, HALF, ahead=4)
        ready(process)
        if name == "killed":
            wait_until(
                lambda: newest_checkpoint(folders["killed"]) >= len(HALF), WAIT_S, "a checkpoint that knows everything"
            )
            process.kill()
        else:
            stop(process)
    return folders


def newest_checkpoint(data: Path) -> int:
    """The journal id up to which it knows; -1 where there is none."""
    names = [path.name for path in (data / "checkpoints").iterdir() if path.name[0] != "."]
    return max((int(name.split("-")[1]) for name in names), default=-1)


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("control.sock", "rjepa.db-shm"))
    return to


def alarms(data: Path) -> list[tuple[str, str]]:
    with closing(open_reader(data / "rjepa.db")) as reader:
        return [tuple(row) for row in reader.execute("SELECT kind, detail FROM alarms ORDER BY id")]


def _flip(folder: Path, generator: np.random.Generator) -> None:
    data = bytearray((folder / LEARNER).read_bytes())
    for at in generator.integers(0, len(data), 3):
        data[at] ^= 1 << int(generator.integers(8))
    (folder / LEARNER).write_bytes(data)


def _cut(folder: Path, generator: np.random.Generator) -> None:
    data = (folder / LEARNER).read_bytes()
    (folder / LEARNER).write_bytes(data[: int(generator.integers(0, len(data)))])


def _no_manifest(folder: Path, generator: np.random.Generator) -> None:
    (folder / MANIFEST).unlink()


def _of_another_seed(folder: Path, generator: np.random.Generator) -> None:
    body = json.loads((folder / MANIFEST).read_bytes())
    del body["manifest_sha256"]
    body["identity"]["seed"] += 1
    (folder / MANIFEST).write_text(json.dumps(body | {"manifest_sha256": digest_of(body)}))


DAMAGE: dict[str, tuple[Callable[[Path, np.random.Generator], None], str]] = {
    "flipped bits": (_flip, "not what was written"),
    "cut off": (_cut, "not what was written"),
    "no manifest": (_no_manifest, "has no manifest.json"),
    "another configuration": (_of_another_seed, "is of another configuration (seed)"),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint(whole: Whole, left: dict[str, Path], tmp_path: Path, damage: str) -> None:
    """It is refused by name, the one before it is used, and the bits at the end are the same."""
    data = copy_of(left["stopped"], tmp_path / "data")
    # By journal id, as recovery orders them.
    ids = sorted((path.name for path in (data / "checkpoints").iterdir()), key=lambda name: name.split("-")[1])
    spoil, said = DAMAGE[damage]
    spoil(data / "checkpoints" / ids[-1], np.random.default_rng(11))
    home = Home.at(whole.nursery, data)
    process = home.worker()
    ready(process)
    assert told(process, LOADED) == [ids[-2]]
    (alarm,) = [detail for kind, detail in alarms(data) if kind == "checkpoint_bad"]
    assert ids[-1] in alarm
    assert said in alarm
    send_all(home.ingest, ORDER)
    stop(process)
    print(damage, whole.judge(data, faultless=False))


def commits(log: bytes) -> Iterator[int]:
    """Where each commit of SQLite's log ends, in bytes: after a frame that says how large the database is then."""
    salts = log[16:24]
    at = LOG_HEADER
    while at + FRAME_HEADER + PAGE <= len(log) and log[at + 8 : at + 16] == salts:
        (size,) = struct.unpack_from(">I", log, at + 4)
        at += FRAME_HEADER + PAGE
        if size:
            yield at


def tear(left: Path, to: Path, cut: int, generator: np.random.Generator | None = None) -> Path:
    """A copy whose log is good up to ``cut`` and then gone, or (by a generator) garbage."""
    copy_of(left, to)
    log = (to / "rjepa.db-wal").read_bytes()
    rest = b"" if generator is None else generator.bytes(len(log) - cut + int(generator.integers(9000)))
    (to / "rjepa.db-wal").write_bytes(log[:cut] + rest)
    return to


def found(data: Path) -> judge.Found:
    """What a worker finds there."""
    Database(data / "rjepa.db").close()
    return judge.read(data)


def tear_everywhere(left: Path, folder: Path, count: int, seed: int) -> None:
    """Torn at ``count`` places, gone or garbage from there on, it is what it was at the last whole commit before."""
    ends = list(commits((left / "rjepa.db-wal").read_bytes()))
    assert len(ends) >= 2, "a worker that was killed leaves some"
    generator = np.random.default_rng(seed)
    for number, cut in enumerate(generator.integers(LOG_HEADER, ends[-1], count)):
        kept = max([LOG_HEADER, *(end for end in ends if end <= cut)])
        here = folder / str(number)
        expected = found(tear(left, here / "whole", kept))
        assert found(tear(left, here / "cut", int(cut))) == expected
        assert found(tear(left, here / "garbage", int(cut), generator)) == expected
        shutil.rmtree(here)
    print(f"torn at {count} places, seed {seed}; {len(ends)} commits")


@pytest.mark.soak
def test_a_log_torn_at_two_hundred_places(left: dict[str, Path], tmp_path: Path) -> None:
    tear_everywhere(left["killed"], tmp_path, 200, 18)


@pytest.mark.timeout(900)
def test_a_log_with_a_torn_tail(whole: Whole, left: dict[str, Path], tmp_path: Path) -> None:
    """The last whole commit is gone back to, wherever it is torn; the rest is offered again and learned once."""
    tear_everywhere(left["killed"], tmp_path, 8, 17)
    log = (left["killed"] / "rjepa.db-wal").read_bytes()
    ends = list(commits(log))
    appended = found(tear(left["killed"], tmp_path / "appended", len(log), np.random.default_rng(19)))
    assert len(appended.fixations) == len(HALF)

    cut = ends[len(ends) // 3] - 100
    before = found(tear(left["killed"], tmp_path / "look", cut))
    data = tear(left["killed"], tmp_path / "data", cut)
    ids = [path.name for path in (data / "checkpoints").iterdir() if path.name[0] != "."]
    beyond = {name for name in ids if int(name.split("-")[1]) > before.learned_id}
    assert beyond, "some had learned what is gone"
    home = Home.at(whole.nursery, data)
    process = home.worker()
    begun = send_all(home.ingest, ORDER)
    assert sum(begun.values()) == len(before.fixations)
    stop(process)
    aside = {path.name.removeprefix(".beyond-") for path in (data / "checkpoints").iterdir() if path.name[0] == "."}
    assert aside == beyond, "what knows more than the journal is never used again"
    assert all(any(name in detail for _, detail in alarms(data)) for name in beyond)
    print(f"{len(before.fixations)} of {len(HALF)} left, {len(beyond)} set aside", whole.judge(data))


def spoil_page(data: Path, table: str | None) -> None:
    """Garbage in the first page of the database, or in the first of a table."""
    number = 1
    if table is not None:
        with closing(open_reader(data / "rjepa.db")) as reader:
            (number,) = reader.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    with (data / "rjepa.db").open("r+b") as file:
        file.seek((number - 1) * PAGE)
        file.write(np.random.default_rng(23).bytes(PAGE))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("table", [None, "streams"])
def test_a_damaged_database_is_refused(whole: Whole, left: dict[str, Path], tmp_path: Path, table: str | None) -> None:
    """In one line, with the way out."""
    data = copy_of(left["stopped"], tmp_path / "data")
    spoil_page(data, table)
    process = Home.at(whole.nursery, data).worker()
    assert process.wait(WAIT_S) == 3, process.said()
    last = process.said().splitlines()[-1]
    assert last.startswith(f"rjepa worker: {data / 'rjepa.db'} ")
    assert "backup" in last
    assert "Traceback" not in process.said()


@pytest.mark.timeout(900)
def test_damage_that_is_met_while_it_runs(whole: Whole, left: dict[str, Path], tmp_path: Path) -> None:
    """Where no record can be kept nothing is learned; it is said why, and what is acked is in the journal."""
    data = copy_of(left["stopped"], tmp_path / "data")
    spoil_page(data, "records")
    home = Home.at(whole.nursery, data)
    process = home.worker()
    ready(process)
    with OneByOne(home.ingest) as client:
        client.claim()
        assert client.offer(*ORDER[36]) is None

    def why() -> str:
        return str(ControlClient(data).ask({"op": "status"}, timeout_s=30.0)["storage"])

    wait_until(lambda: "is damaged" in why(), WAIT_S, "the reason")
    assert "restore the directory from a backup" in why()
    assert process.terminate(WAIT_S) == 0, process.said()
    with closing(open_reader(data / "rjepa.db")) as reader:
        assert reader.execute("SELECT sum(next_seq) FROM streams").fetchone()[0] == 37
        assert reader.execute("SELECT sum(learned_seq + 1) FROM streams").fetchone()[0] == 36
