"""`rjepa check`: finds nothing in what is good, and names each thing that is not."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from service import check_cli
from service.check import check
from service.checkpoints import Checkpoints
from service.errors import DirectoryRefused
from service.journal import Journal
from service.manifests import DIAGNOSTICS, LEARNER
from tests.service.bench import life
from tests.service.test_recovery import story


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything in it: losses, resets, a deletion, a restore, three checkpoints, a rest to learn."""
    folder = tmp_path_factory.mktemp("whole") / "data"
    with life(folder, watched=True) as bench:
        for part in range(2):
            story(bench, part)
            bench.learn()
        earlier = bench.checkpoint()
        story(bench, 2)
        bench.command("restore", checkpoint=earlier)
        bench.offer("a", 4)
        bench.learn()
        bench.loop.finish()
        assert check(folder).said() == [], "also while it is open"
        bench.offer("b", 3)
    return folder


def test_nothing_is_wrong_with_what_is_good(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file() and path.suffix != ".db-shm"}
    assert check_cli.main(["--data-dir", str(whole), "--quiet"]) == 0
    assert all(path.read_bytes() == content for path, content in before.items()), "only read"
    lines = capsys.readouterr().out.splitlines()
    told = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    with closing(Journal(whole / "rjepa.db")) as journal:
        assert told["journal"] == [str(journal.last_id()), "0"]
    assert told["checkpoints"] == ["3", "0"]
    assert told["timelines"] == ["2", "0"]
    assert int(told["patches"][0]) > 60


def sql(statement: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "rjepa.db", isolation_level=None)) as connection:
            assert connection.execute(statement).rowcount > 0

    return damage


def flipped(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "checkpoints" / Checkpoints(folder / "checkpoints").list()[-1].id / name
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)

    return damage


def a_page(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "rjepa.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with (folder / "rjepa.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 512)


def the_ones_it_began_from(folder: Path) -> None:
    """The restored checkpoint is gone, and the present timeline's are bad: recovery would refuse."""
    checkpoints = Checkpoints(folder / "checkpoints")
    first, *later = checkpoints.list()
    assert [manifest.timeline for manifest in (first, *later)] == [0, 1, 1]
    shutil.rmtree(folder / "checkpoints" / first.id)
    for manifest in later:
        (folder / "checkpoints" / manifest.id / LEARNER).write_bytes(b"bad")


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an entry is gone": (sql("DELETE FROM journal WHERE id = 30"), "has a hole"),
    "the cursor is ahead": (sql("UPDATE streams SET next_seq = 99 WHERE name = 'a'"), "the next one is 99"),
    "learned beyond the end": (sql("UPDATE meta SET value = '999' WHERE key = 'learned_id'"), "the journal ends at"),
    "a patch is another": (sql("UPDATE patches SET bytes = zeroblob(50) WHERE id = 80"), "is not what came"),
    "a patch is of nothing": (sql("INSERT INTO patches VALUES (9999, x'00')"), "entry 9999, which is no fixation"),
    "patches are miscounted": (sql("UPDATE held SET bytes = bytes + 1"), "are counted"),
    "features are gone": (sql("DELETE FROM features WHERE id = 80"), "was learned and has none"),
    "a record is gone": (sql("DELETE FROM records WHERE id = 80"), "was learned and has none"),
    "a record is of nothing": (sql("UPDATE records SET seq = 1000 WHERE id = 80"), "has no such entry"),
    "a record is too early": (
        sql("UPDATE meta SET value = (SELECT max(id) - 1 FROM records) WHERE key = 'learned_id'"),
        "is there before it was learned",
    ),
    "a timeline never was": (sql("UPDATE records SET timeline = 7 WHERE id = 80"), "timeline 7, which never was"),
    "a result is missing": (
        sql("UPDATE journal SET result = NULL WHERE json_extract(body, '$.name') = 'reset'"),
        "the command reset",
    ),
    "parameters are flipped": (flipped(LEARNER), "not what was written"),
    "diagnostics are flipped": (flipped(DIAGNOSTICS), "diagnostics would begin anew"),
    "recovery would refuse": (the_ones_it_began_from, "recovery needs"),
    "a page is gone": (a_page, "SQLite finds it damaged"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named(whole: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage, told = FAULTS[name]
    shutil.copytree(whole, tmp_path / "data")
    damage(tmp_path / "data")
    assert check_cli.main(["--data-dir", str(tmp_path / "data"), "--quiet"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert any(told in line and ";" in line for line in said), said


def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DirectoryRefused, match="no such database"):
        check(tmp_path)
    (tmp_path / "rjepa.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(DirectoryRefused, match="damaged"):
        check(tmp_path)
