"""`rjepa backup`: one moment of a directory, taken while its worker runs, and a worker that goes on with it."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from service.backup import backup
from service.check import check
from service.checkpoints import Checkpoints
from service.errors import CopyRefused, DirectoryInUse, DirectoryRefused, StorageFailed
from service.journal import Journal
from service.manifests import LEARNER
from service.storage import open_reader
from tests.helpers import PlainClient, run_rjepa
from tests.service.bench import life, same_bits
from tests.service.test_recovery import story
from tests.service.test_worker import PATCHES, working_on


def test_a_copy_taken_while_it_runs_is_gone_on_with(data_dir: Path, tmp_path: Path) -> None:
    """The restored worker is behind its clients: what they have no more is said to be lost, the rest is learned."""
    copy, logs = tmp_path / "copy", tmp_path / "logs"
    with working_on(data_dir, logs, "--checkpoint-every", "1") as working:
        working.stream("s", 0, 20)
        working.command("checkpoint", label="before", pinned=True)
        stop = threading.Event()

        def feed() -> None:
            with working.client() as client:
                seq = client.hello("s")["next_seq"]
                while not stop.is_set() and seq < len(PATCHES):
                    client.fixation("s", seq, PATCHES[seq])
                    client.until_learned(seq)
                    seq += 1

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            done = run_rjepa("backup", "--data-dir", data_dir, "--to", copy, limit_s=170.0)
        finally:
            stop.set()
            feeder.join()
        assert done.returncode == 0, done.stderr
        assert str(copy) in done.stdout
        taken = len(working.records("s"))
        assert check(data_dir).said() == [], "as it runs"
        assert working.process.terminate(limit_s=60.0) == 0
    assert not list(tmp_path.glob(".*"))
    with working_on(copy, logs) as working:
        with closing(open_reader(copy / "rjepa.db")) as reader:
            (held,) = reader.execute("SELECT next_seq FROM streams WHERE name = 's'").fetchone()
        assert 20 <= held <= taken
        gap = taken + 2
        with PlainClient(working.ingest) as client:
            assert client.hello("s", epoch=2, acked=gap - 1, have_from=gap)["next_seq"] == gap
            client.fixation("s", gap, PATCHES[0])
            client.until_learned(gap)
        records = working.records("s")
        assert [record.seq for record in records] == list(range(gap + 1))
        assert {record.skipped for record in records[held:gap]} == {"lost"}
        assert (records[gap].position, records[gap].skipped) == (0, None), "a new sequence"
        with closing(open_reader(copy / "rjepa.db")) as reader:
            assert ("data_lost", "s") in [tuple(row) for row in reader.execute("SELECT kind, stream FROM alarms")]
        assert working.process.terminate(limit_s=60.0) == 0
    assert check(copy).said() == []


def test_what_comes_meanwhile_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Between any two steps of the copy the source goes on, and goes back, and is tidied up."""
    with life(tmp_path / "data") as bench:
        story(bench, 0)
        bench.learn()
        bench.loop.finish()
        steps: list[str] = []

        def tell(what: str, done: int, whole: int) -> None:
            steps.append(what)
            if what == "checkpoints":
                story(bench, 1)
                early = bench.checkpoint()
                bench.offer("a", 5)
                bench.learn()
                bench.command("restore", checkpoint=early)
                bench.learn()
                bench.offer("a", 5)
                bench.learn()
            elif what == "database" and steps.count(what) == 1:
                bench.offer("b", 5)
                bench.command("restore", checkpoint=bench.checkpoint())
                bench.learn()

        assert backup(tmp_path / "data", tmp_path / "copy", tell) == []
        assert steps[0] == "checkpoints"
        assert "database" in steps
        assert bench.applier.timeline == 2
        seen = bench.journal.last_id()
        snapshot = bench.learner.snapshot()
    with life(tmp_path / "copy") as bench:
        assert bench.applier.timeline == 1, "one moment: before the second way back"
        assert bench.journal.last_id() < seen
        learned = bench.applier.cursor
    with life(tmp_path / "data") as bench:
        assert same_bits(bench.learner.snapshot(), snapshot)
        assert bench.applier.cursor > learned


def test_a_damaged_checkpoint_is_left_out_and_named(tmp_path: Path) -> None:
    with life(tmp_path / "data") as bench:
        story(bench, 0)
        bench.learn(1)
        good = bench.checkpoint()
        bench.learn()
        bad = bench.checkpoint()
        (tmp_path / "data" / "checkpoints" / bad / LEARNER).write_bytes(b"bad")
    (tmp_path / "data" / "access").mkdir(mode=0o700)
    (tmp_path / "data" / "access" / "secret").write_text("s")
    (tmp_path / "data" / "access" / "secret").chmod(0o600)
    (wrong,) = backup(tmp_path / "data", tmp_path / "copy")
    assert bad in wrong
    assert [manifest.id for manifest in Checkpoints(tmp_path / "copy" / "checkpoints").list()] == [good]
    assert check(tmp_path / "copy").said() == []
    assert (tmp_path / "copy" / "access" / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0


def test_refusals_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(_made(tmp_path / "data") / "rjepa.db").close()
    with pytest.raises(DirectoryRefused, match="no such database"):
        backup(tmp_path / "nothing", tmp_path / "copy")
    with pytest.raises(CopyRefused, match="is no folder"):
        backup(tmp_path / "data", tmp_path / "no" / "copy")
    (tmp_path / "there").mkdir()
    with pytest.raises(CopyRefused, match="exists already"):
        backup(tmp_path / "data", tmp_path / "there")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copy2", full)
        (tmp_path / "data" / "calibration.safetensors").write_bytes(b"x")
        with pytest.raises(StorageFailed, match="No space left"):
            backup(tmp_path / "data", tmp_path / "copy")

    def meanwhile(what: str, done: int, whole: int) -> None:
        if what == "database":
            with pytest.raises(DirectoryInUse):
                backup(tmp_path / "data", tmp_path / "copy")

    backup(tmp_path / "data", tmp_path / "copy", meanwhile)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data", "there"]
    with closing(sqlite3.connect(tmp_path / "copy" / "rjepa.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
