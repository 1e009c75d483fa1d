"""The model of a disk by itself, and the record of a program whose effects are known."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.faults import trace
from tests.faults.disk import SECTOR, Disk
from tests.faults.test_power import strace  # noqa: F401 - a fixture
from tests.faults.trace import Cut, Effect, Folder, Make, Move, Remove, Said, SyncBegun, SyncDone, SyncFailed, Write

ROOT = Path("/root-of-it")
A, B, F = "/root-of-it/a", "/root-of-it/b", "/root-of-it/f"
MADE = Make(A, create=True, truncate=True)


def synced(path: str, number: int) -> list[Effect]:
    return [SyncBegun(path, number), SyncDone(path, number)]


def ends(effects: Sequence[Effect], folder: Path, count: int = 200) -> set[tuple[tuple[str, bytes], ...]]:
    """Everything a loss of power was seen to leave: names and contents."""
    found = set()
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        disk = Disk(ROOT)
        disk.happen(effects)
        left = folder / str(seed)
        disk.after_power_loss(left, np.random.default_rng(seed))
        files = sorted(path for path in left.rglob("*") if path.is_file())
        found.add(tuple((str(path.relative_to(left)), path.read_bytes()) for path in files))
    return found


def test_what_is_synced_with_its_name_is_certain(tmp_path: Path) -> None:
    effects = [MADE, Write(A, 0, b"x" * 700), *synced(A, 1), *synced(str(ROOT), 2)]
    assert ends(effects, tmp_path) == {(("a", b"x" * 700),)}


def test_a_file_that_is_synced_may_have_no_name(tmp_path: Path) -> None:
    assert ends([MADE, Write(A, 0, b"x"), *synced(A, 1)], tmp_path) == {(), (("a", b"x"),)}


def test_what_is_not_synced_is_there_or_not_by_sectors(tmp_path: Path) -> None:
    old, new = b"o" * (2 * SECTOR), b"n" * (2 * SECTOR)
    effects = [MADE, Write(A, 0, old), *synced(A, 1), *synced(str(ROOT), 2), Write(A, 0, new)]
    found = ends(effects, tmp_path)
    assert found == {(("a", one * SECTOR + other * SECTOR),) for one in (b"o", b"n") for other in (b"o", b"n")}


def test_a_sync_covers_what_was_done_before_it_began(tmp_path: Path) -> None:
    effects = [MADE, *synced(str(ROOT), 1), Write(A, 0, b"1"), SyncBegun(A, 2), Write(A, 1, b"2"), SyncDone(A, 2)]
    assert ends(effects, tmp_path) == {(("a", b"1"),), (("a", b"12"),), (("a", b"1\0"),)}
    assert {len(left[0][1]) for left in ends(effects[:-1], tmp_path / "later")} == {0, 1, 2}, "nor before it ended"


def test_a_name_is_old_or_new(tmp_path: Path) -> None:
    before = [MADE, Write(A, 0, b"a"), *synced(A, 1), Make(B, create=True, truncate=True), *synced(str(ROOT), 2)]
    old, new = (("a", b"a"), ("b", b"")), (("b", b"a"),)
    assert ends([*before, Move(A, B)], tmp_path / "moved") == {old, new}
    assert ends([*before, Move(A, B), *synced(str(ROOT), 3)], tmp_path / "synced") == {new}
    assert ends([*before, Remove(B)], tmp_path / "removed") == {old, old[:1]}


def test_a_folder_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    inside = f"{F}/x"
    effects = [Folder(F), Make(inside, create=True, truncate=True), Write(inside, 0, b"x"), *synced(inside, 1)]
    assert ends([*effects, *synced(F, 2)], tmp_path) == {(), (("f/x", b"x"),)}
    assert ends([*effects, *synced(F, 2), *synced(str(ROOT), 3)], tmp_path / "2") == {(("f/x", b"x"),)}


def test_cuts(tmp_path: Path) -> None:
    effects = [MADE, Write(A, 0, b"long"), *synced(A, 1), *synced(str(ROOT), 2), Cut(A, 1), Write(A, None, b"!")]
    assert ends([*effects, *synced(A, 3)], tmp_path) == {(("a", b"l!"),)}
    assert (("a", b"long"),) in ends(effects, tmp_path / "2")


PROGRAM = """
import os, sys, socket
root = sys.argv[1] + "/"
os.makedirs(root + "deep/er")
with open(root + "one", "wb") as file:
    file.write(b"one" * 1000); file.flush(); os.fsync(file.fileno())
os.rename(root + "one", root + "two")
with open(root + "two", "r+b") as file:
    file.seek(10); file.write(b"X"); file.flush(); file.truncate(20)
with open(root + "log", "a") as file:
    file.write("more")
handle = os.open(root, os.O_RDONLY); os.fsync(handle)
one, other = socket.socketpair(); one.send(b"hello, \\x00 world")
os.pwrite(os.open("gone", os.O_CREAT | os.O_WRONLY, dir_fd=handle), b"gone", 3); os.unlink("gone", dir_fd=handle)
os.rmdir(root + "deep/er")
"""


def test_a_program_is_recorded(strace: str, tmp_path: Path) -> None:  # noqa: F811
    root = tmp_path / "root"
    root.mkdir()
    words = [*trace.strace(tmp_path / "log"), sys.executable, "-c", PROGRAM, str(root)]
    subprocess.run(words, check=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    effects = trace.read(tmp_path / "log", root)
    disk = Disk(root)
    disk.happen(effects)
    disk.as_seen(tmp_path / "again")
    assert (tmp_path / "again" / "two").read_bytes() == (b"one" * 4)[:10] + b"X" + (b"one" * 7)[11:20]
    assert (tmp_path / "again" / "log").read_bytes() == b"more"
    for path in root.rglob("*"):
        again = tmp_path / "again" / path.relative_to(root)
        assert again.is_dir() if path.is_dir() else again.read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "again").rglob("*"))) == len(list(root.rglob("*"))) == 3
    assert Said(b"hello, \x00 world") in effects
    syncs = [Path(effect.path).name for effect in effects if isinstance(effect, SyncDone)]
    assert syncs == ["one", "root"]


def test_a_change_that_is_not_understood_is_not_passed_over(strace: str, tmp_path: Path) -> None:  # noqa: F811
    program = f"import os; os.writev(os.open({str(tmp_path / 'x')!r}, os.O_CREAT | os.O_WRONLY), [b'x'])"
    subprocess.run([*trace.strace(tmp_path / "log"), sys.executable, "-c", program], check=True)
    with pytest.raises(ValueError, match="writev"):
        trace.read(tmp_path / "log", tmp_path)


def failed(path: str, number: int) -> list[Effect]:
    return [SyncBegun(path, number), SyncFailed(path, number)]


def test_what_a_failed_sync_should_have_covered_no_later_sync_covers(tmp_path: Path) -> None:
    made = [MADE, Write(A, 0, b"o" * 4), *synced(A, 1), *synced(str(ROOT), 2)]
    effects = [*made, Write(A, 1, b"nn"), *failed(A, 3), *synced(A, 4)]
    assert ends(effects, tmp_path / "1") == {(("a", b"oooo"),), (("a", b"onno"),)}
    again = [*effects, Write(A, 2, b"m"), *synced(A, 5)]
    assert ends(again, tmp_path / "2") == {(("a", b"oomo"),), (("a", b"onmo"),)}, "what is written anew is certain"
    names = [*made, Move(A, B), *failed(str(ROOT), 3), *synced(str(ROOT), 4)]
    assert ends(names, tmp_path / "3") == {(("a", b"oooo"),), (("b", b"oooo"),)}
    assert ends([*names, Move(B, A), *synced(str(ROOT), 5)], tmp_path / "4") == {(("a", b"oooo"),)}
