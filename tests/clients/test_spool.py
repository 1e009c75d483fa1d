"""The spool: locked, durable, its own stream's; and what it says when it can't be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from clients.actions import Entry
from clients.errors import SpoolInUse, SpoolRefused
from clients.spool import FILE, Spool
from tests.helpers import ROOT


def test_what_is_kept_is_there_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "new" / "spool", "s1")
    assert (spool.epoch, spool.acked, spool.held_end, spool.entries(), spool.last_row()) == (None, -1, 0, [], 0)
    for row in (1, 2, 3):
        spool.keep(row, f'{{"onset": {row}}}', bytes([row]))
    spool.number([(1, 10), (2, 11)])
    spool.remember(4, 9)
    spool.let_go([1], 10)
    spool.commit()
    spool.close()
    spool = Spool(tmp_path / "new" / "spool", "s1")
    assert (spool.epoch, spool.acked, spool.held_end) == (4, 10, 9)
    assert spool.entries() == [Entry(2, 11), Entry(3, None)]
    assert spool.read(2) == ({"onset": 2}, b"\x02")
    assert spool.last_row() == 3
    spool.remember(None, 0)
    spool.commit()
    assert (spool.epoch, spool.held_end) == (None, 0)
    spool.forget()
    assert (spool.acked, spool.entries()) == (-1, [])
    spool.close()


def test_what_was_not_committed_is_not_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s1")
    spool.keep(1, "{}", b"")
    spool.rollback()
    assert spool.entries() == []
    spool.keep(1, "{}", b"")
    spool.close()
    spool = Spool(tmp_path, "s1")
    assert spool.entries() == []
    spool.close()


def test_one_client_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s1")
    with pytest.raises(SpoolInUse, match="--spool") as refused:
        Spool(tmp_path, "s1")
    assert str(tmp_path) in str(refused.value)
    assert refused.value.exit_code == 3
    spool.close()
    Spool(tmp_path, "s1").close()


def test_a_crash_gives_the_lock_back(tmp_path: Path) -> None:
    """Another process holds it, then is killed in the middle: what it committed is there."""
    script = (
        "import sys, pathlib; from clients.spool import Spool\n"
        "spool = Spool(pathlib.Path(sys.argv[1]), 's1')\n"
        "spool.keep(1, '{}', b'a'); spool.commit(); spool.keep(2, '{}', b'b')\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"ready"
        with pytest.raises(SpoolInUse):
            Spool(tmp_path, "s1")
        other.kill()
        other.wait(10)
    spool = Spool(tmp_path, "s1")
    assert spool.entries() == [Entry(1, None)]
    spool.close()


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s1")
    assert spool._database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert spool._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert spool._database.execute("PRAGMA locking_mode").fetchone() == ("exclusive",)
    spool.close()


def test_another_streams_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s1")
    spool.keep(1, "{}", b"")
    spool.remember(7, 3)
    spool.commit()
    spool.close()
    with pytest.raises(SpoolRefused, match="holds 1 fixations of stream s1"):
        Spool(tmp_path, "s2")
    spool = Spool(tmp_path, "s1")
    spool.let_go([1], 0)
    spool.commit()
    spool.close()
    spool = Spool(tmp_path, "s2")
    assert (spool.epoch, spool.acked, spool.held_end) == (None, -1, 0), "s1's epoch is nothing to s2"
    spool.close()


def test_a_file_that_is_no_spool(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"something else entirely" * 100)
    with pytest.raises(SpoolRefused, match="is no spool"):
        Spool(tmp_path, "s1")


def test_a_database_that_is_no_spool(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TABLE meta (other TEXT)")
    database.close()
    with pytest.raises(SpoolRefused, match="no spool of this version"):
        Spool(tmp_path, "s1")


def test_a_later_format(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "s1")
    spool._put("format", 99)
    spool.commit()
    spool.close()
    with pytest.raises(SpoolRefused, match="format 99"):
        Spool(tmp_path, "s1")


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolRefused, match="can't be made"):
        Spool(tmp_path / "file" / "spool", "s1")


def test_a_disk_that_is_full_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, "s1")

    def full(self: Spool) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Spool, "commit", full)
    for begin in (spool.begin_live, spool.begin_recording):
        with pytest.raises(SpoolRefused, match="disk is full"):
            begin()
    spool.close()
    with pytest.raises(SpoolRefused, match="disk is full"):
        Spool(tmp_path, "s1")
