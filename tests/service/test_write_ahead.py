"""SQLite's log is copied to its file by a thread of its own; what was durable stays, whenever it is cut short."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from service import write_ahead
from service.journal import Admitted, Journal
from service.storage import open_reader
from tests.helpers import ROOT, wait_until

PAGES = 40
PATCH_BYTES = 7500
PAGE_AND_HEADER_BYTES = 4096 + 24
APPENDING = f"""
import os, signal, sys, threading
from pathlib import Path
from service import write_ahead
from tests.service.test_write_ahead import append
from service.journal import Journal
write_ahead.COPY_PAGES = {PAGES}
copy, left = write_ahead.Copier._copy, [None] * int(sys.argv[2])
def killed(copier, connection):
    left.pop()
    if not left:
        threading.Timer(float(sys.argv[3]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    copy(copier, connection)
write_ahead.Copier._copy = killed
journal = Journal(Path(sys.argv[1]))
journal.claim("s", 1, 0.0)
while True:
    print(append(journal, 3), flush=True)
"""
"""Appends until it kills itself, so many seconds after so many copies have begun."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_ahead, "COPY_PAGES", PAGES)


def append(journal: Journal, count: int) -> int:
    """Append ``count`` fixations in one commit; how many there are now."""
    first = next(cursor.next_seq for cursor in journal.cursors())
    journal.append(
        [
            Admitted("s", seq, 0.0, "{}", bytes(32), seq.to_bytes(4, "big") * (PATCH_BYTES // 4), False, True)
            for seq in range(first, first + count)
        ]
    )
    return first + count


def in_the_file(path: Path, folder: Path) -> int:
    """How many fixations the file has without its log."""
    alone = folder / "alone.db"
    shutil.copyfile(path, alone)
    with closing(sqlite3.connect(alone)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM patches").fetchone()[0])
        except sqlite3.DatabaseError:
            return 0  # copied while it was being written
        finally:
            alone.with_name("alone.db-wal").unlink(missing_ok=True)


def copied(journal: Journal, folder: Path, held: int) -> None:
    """Wait until the file has so many fixations and the copying is over: the next commit begins the log anew."""
    wait_until(lambda: in_the_file(journal.path, folder) == held, 10.0, "the file to have it all")
    with journal._database._log_lock:
        return


def log_pages(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size // PAGE_AND_HEADER_BYTES


@pytest.fixture
def copied_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that copied, one for each time."""
    names: list[str] = []
    copy = write_ahead.Copier._copy

    def told(copier: write_ahead.Copier, connection: sqlite3.Connection) -> None:
        names.append(threading.current_thread().name)
        copy(copier, connection)

    monkeypatch.setattr(write_ahead.Copier, "_copy", told)
    return names


def test_the_log_is_copied_by_no_commit_and_begun_again(tmp_path: Path, copied_by: list[str]) -> None:
    path = tmp_path / "rjepa.db"
    with closing(Journal(path)) as journal:
        assert journal._database.connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        journal.claim("s", 1, 0.0)
        held = append(journal, 5)
        assert copied_by == []
        for _ in range(12):
            before, held = len(copied_by), append(journal, 20)
            wait_until(lambda before=before: len(copied_by) > before, 10.0, "the log to be copied")
            copied(journal, tmp_path, held)
        assert set(copied_by) == {"log"}
        assert log_pages(path) < 4 * PAGES, "it was begun again each time"
    assert in_the_file(path, tmp_path) == held


def test_a_batch_is_in_no_log_until_it_commits_and_the_log_is_copied_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "rjepa.db"
    found: list[tuple[int, int]] = []
    held = 0

    def all_is_written(what: str) -> None:
        if what == "fixations":
            wait_until(lambda: in_the_file(path, tmp_path) == held, 10.0, "what was before to be copied")
            found.append((held, log_pages(path)))

    with closing(Journal(path, before_commit=all_is_written)) as journal:
        journal.claim("s", 1, 0.0)
        for count in (PAGES, 600, PAGES):  # 600: more than twice of what SQLite holds in memory by itself
            held = append(journal, count)
        (nothing, empty), (some, before), (most, after) = found
        assert (nothing, some, most) == (0, PAGES, PAGES + 600)
        assert empty < PAGES < before < 4 * PAGES, "the second was not in the log yet"
        assert after > 2 * 600
        assert journal._database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_log_nobody_copies_is_copied_by_a_commit_at_its_bound(
    tmp_path: Path, copied_by: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_ahead, "BOUND_PAGES", 3 * PAGES)
    monkeypatch.setattr(write_ahead.Copier, "_run", lambda copier: None)
    path = tmp_path / "rjepa.db"
    with closing(Journal(path)) as journal:
        journal.claim("s", 1, 0.0)
        for _ in range(30):
            append(journal, 10)
        assert set(copied_by) == {"MainThread"}
        assert log_pages(path) < 4 * PAGES


def test_a_reader_s_open_look_holds_the_log_back_until_it_ends(tmp_path: Path, copied_by: list[str]) -> None:
    path = tmp_path / "rjepa.db"
    with closing(Journal(path)) as journal, closing(open_reader(path)) as reader:
        journal.claim("s", 1, 0.0)
        append(journal, 1)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM patches").fetchone()[0] == 1
        for _ in range(10):
            held = append(journal, 20)
        assert reader.execute("SELECT count(*) FROM patches").fetchone()[0] == 1
        assert log_pages(path) > 5 * PAGES
        reader.execute("COMMIT")
        held = append(journal, 1)
        copied(journal, tmp_path, held)
        before = log_pages(path)
        for _ in range(3):
            append(journal, 20)
        assert log_pages(path) == before, "it was begun again"


def test_killed_while_it_copies_nothing_durable_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "rjepa.db"
    for copies, seconds in (("3", "0"), ("7", "0.001")):
        command = [sys.executable, "-c", APPENDING, str(path), copies, seconds]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == -signal.SIGKILL
        held = int(done.stdout.split("\n")[-2])
        with closing(Journal(path)) as journal:
            (cursor,) = journal.cursors()
            assert held <= cursor.next_seq <= held + 3, "what was said to be durable, and at most one commit more"
            for entry in journal.entries(0, 10_000):
                assert journal.patch(entry.id) == entry.seq.to_bytes(4, "big") * (PATCH_BYTES // 4)
            assert journal._database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_stop_that_comes_while_the_thread_wakes_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waking, stopped = threading.Event(), threading.Event()

    class Late(threading.Event):
        sets = 0

        def set(self) -> None:
            super().set()
            self.sets += 1

        def clear(self) -> None:
            waking.set()
            stopped.wait(10.0)
            super().clear()

    monkeypatch.setattr(write_ahead, "threading", SimpleNamespace(Event=Late, Thread=threading.Thread))
    (tmp_path / "rjepa.db-wal").touch()
    copier = write_ahead.Copier(tmp_path / "rjepa.db", threading.Lock(), sqlite3.connect)
    copier._wanted.set()
    assert waking.wait(10.0)
    stopping = threading.Thread(target=copier.stop, daemon=True)
    stopping.start()
    wait_until(lambda: copier._wanted.sets == 2, 10.0, "the stop")
    stopped.set()
    stopping.join(10.0)
    assert not stopping.is_alive(), "the thread cleared what told it to stop, and waits"
