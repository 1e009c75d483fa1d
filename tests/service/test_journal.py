from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import DirectoryRefused, StorageFailed, StorageFull
from service.history import lineage, patch_row, records_after_id
from service.journal import Admitted, Alarm, Forget, Journal, Result, Timeline, Turn
from service.records import Record, pack
from service.storage import open_reader
from tests.service.histories import records_page


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "rjepa.db")
    yield made
    made.close()


def fixation(seq: int, stream: str = "s", content: bytes = b"patch") -> Admitted:
    return Admitted(
        stream, seq, 100.0 + seq, '{"onset": 1.0}', content.ljust(32, b"."), content, padded=seq == 0,
        frame_deg_assumed=True,
    )  # fmt: skip


def record(entry: int, seq: int, timeline: int = 0, stream: str = "s", skipped: str | None = None) -> Record:
    return Record(
        id=entry,
        stream=stream,
        seq=seq,
        time=100.0 + seq,
        timeline=timeline,
        gaze=(0.25, 0.5),
        prediction_error=0.5,
        trivial_error={"ar1": 0.75, "copy_last": float("nan")},
        skipped=skipped,
        embedding=pack(np.arange(3, dtype=np.float32)),
    )


def test_fixations_are_appended_in_order_with_their_cursor(journal: Journal) -> None:
    journal.claim("s", 1, 99.0)
    journal.append([fixation(0), fixation(1)])
    journal.claim("t", 1, 99.0)
    journal.append([fixation(2), fixation(0, "t")])
    assert [(c.name, c.epoch, c.next_seq, c.learned_seq) for c in journal.cursors()] == [
        ("s", 1, 3, -1),
        ("t", 1, 1, -1),
    ]
    assert [(e.stream, e.seq) for e in journal.entries(0, 10)] == [("s", 0), ("s", 1), ("s", 2), ("t", 0)]
    assert [e.id for e in journal.entries(2, 1)] == [3]
    assert journal.digest("s", 1) == b"patch".ljust(32, b".")
    assert journal.digest("s", 3) is None
    assert journal.patch(1) == b"patch"
    assert journal.waiting() == (4, 100.0)
    with closing(open_reader(journal.path)) as reader:
        row = reader.execute("SELECT padded, frame_deg_assumed, last_time FROM streams WHERE name = 's'").fetchone()
        assert tuple(row) == (1, 3, 102.0)
        found = patch_row(reader, "s", 1)
        assert found is not None
        assert (found.id, found.bytes) == (2, b"patch")
        assert patch_row(reader, "s", 9) is None


def test_a_batch_that_does_not_fit_leaves_nothing(journal: Journal) -> None:
    journal.claim("s", 1, 99.0)
    with pytest.raises(StorageFailed, match="seq 5"):
        journal.append([fixation(0), fixation(5)])
    assert journal.last_id() == 0
    assert journal.cursors()[0].next_seq == 0
    journal.append([fixation(0)])
    assert journal.last_id() == 1, "the id of the batch that failed is used again"


def test_a_gap_is_journalled_with_the_epoch(journal: Journal) -> None:
    journal.claim("s", 4, 99.0, lost=range(0, 3), alarm=Alarm("data_lost", "0 to 2", "s"))
    assert [(e.kind, e.seq, e.body) for e in journal.entries(0, 9)] == [("lost", seq, {}) for seq in range(3)]
    cursor = journal.cursors()[0]
    assert (cursor.epoch, cursor.next_seq) == (4, 3)
    with closing(open_reader(journal.path)) as reader:
        assert reader.execute("SELECT kind, stream FROM alarms").fetchone()[:] == ("data_lost", "s")


def test_features_come_back_with_their_bits(journal: Journal) -> None:
    journal.claim("s", 1, 99.0)
    journal.append([fixation(0), fixation(1)])
    z = np.array([np.pi, -0.0, 1e-40], dtype=np.float32)
    journal.put_features([(2, z)])
    first, second = journal.entries(0, 9)
    assert first.z is None
    assert second.z is not None
    assert second.z.tobytes() == z.tobytes()


def test_a_turn_is_one_commit(journal: Journal) -> None:
    journal.claim("s", 1, 99.0)
    journal.append([fixation(0), fixation(1)])
    command = journal.append_command("reset", "s", {}, 103.0)
    turn = Turn(
        learned_id=command,
        writes=[record(1, 0), record(2, 1, skipped="repeat"), Result(command, {"ok": True})],
        alarms=[Alarm("refused", "why")],
    )
    journal.put_turn(turn, 104.0)
    assert journal.learned_id() == 3
    assert journal.cursors()[0].learned_seq == 1
    assert journal.waiting() == (0, None)
    with closing(open_reader(journal.path)) as reader:
        page, after = records_page(reader, "s")
        assert after is None
        assert page[0].json() == {
            **{key: None for key in ("onset", "duration", "position", "sequence_id", "effective_rank", "update_norm")},
            "stream": "s", "seq": 0, "time": 100.0, "timeline": 0, "gaze": {"x": 0.25, "y": 0.5},
            "prediction_error": 0.5, "latency_ms": None, "skipped": None,
            "trivial_error": dict.fromkeys(
                ("copy_last", "running_mean", "carry_mean", "carry_ar1", "carry_mean_recent", "carry_ar1_recent",
                 "carry_scene")) | {"ar1": 0.75},
        }  # fmt: skip
        assert page[1].json(embedding=True)["embedding"] == [0.0, 1.0, 2.0]
        assert page[0] == replace(record(1, 0), trivial_error=page[0].trivial_error)
        assert [r.seq for r in records_after_id(reader, 1)] == [1]
        assert reader.execute("SELECT learned FROM streams").fetchone()[0] == 1, "a skipped one is not learned"
        assert reader.execute("SELECT result FROM journal WHERE id = 3").fetchone()[0] == '{"ok": true}'


def test_pages_follow_each_other(journal: Journal) -> None:
    journal.claim("s", 1, 99.0)
    journal.append([fixation(seq) for seq in range(5)])
    journal.put_turn(Turn(5, [record(seq + 1, seq) for seq in range(5)]), 110.0)
    with closing(open_reader(journal.path)) as reader:
        seen: list[int] = []
        after: int | None = -1
        while after is not None:
            page, after = records_page(reader, "s", after=after, limit=2)
            seen += [r.seq for r in page]
    assert seen == [0, 1, 2, 3, 4]


def test_history_follows_timelines(journal: Journal) -> None:
    """0: ids 1-6; 1 forks from 0 at 3 (start 7): ids 8-9; 2 forks from 1 at 8 (start 10): id 11."""
    journal.claim("s", 1, 99.0)
    journal.append([fixation(seq) for seq in range(6)])
    journal.put_turn(Turn(6, [record(seq + 1, seq) for seq in range(6)]), 110.0)
    restore = journal.append_command("restore", None, {}, 110.0)
    journal.append([fixation(6), fixation(7)])
    journal.put_turn(Turn(9, [Timeline(1, 111.0, 0, "a", 3, restore), record(8, 6, 1), record(9, 7, 1)]), 111.0)
    restore = journal.append_command("restore", None, {}, 112.0)
    journal.append([fixation(8)])
    journal.put_turn(Turn(11, [Timeline(2, 113.0, 1, "b", 8, restore), record(11, 8, 2)]), 113.0)
    assert journal.timeline() == 2
    assert [(t.parent, t.fork, t.start) for t in journal.timelines().values()] == [(0, 3, 7), (1, 8, 10)]
    with closing(open_reader(journal.path)) as reader:
        assert [r.seq for r in records_page(reader, "s")[0]] == [0, 1, 2, 6, 8]
        assert [r.seq for r in records_page(reader, "s", timeline=1)[0]] == [0, 1, 2, 6, 7]
        assert [r.seq for r in records_page(reader, "s", timeline=0)[0]] == [0, 1, 2, 3, 4, 5]
        assert records_page(reader, "s", timeline=9) == ([], None)
        assert [(part.timeline, part.last) for part in lineage(reader)] == [(2, None), (1, 8), (0, 3)]


def test_forgetting_a_stream_keeps_its_place_and_the_others(journal: Journal) -> None:
    for stream in ("s", "t"):
        journal.claim(stream, 1, 99.0)
        journal.append([fixation(0, stream), fixation(1, stream)])
    journal.put_alarm(Alarm("refused", "x", "s"), 100.0)
    delete = journal.append_command("delete", "s", {}, 105.0)
    journal.append([fixation(2)])
    writes = [record(1, 0), record(2, 1), record(3, 0, stream="t"), record(4, 1, stream="t")]
    journal.put_turn(Turn(6, [*writes, Forget(delete, "s"), Result(delete, {"ok": True}), record(6, 2)]), 106.0)
    assert journal.cursors()[0].next_seq == 3
    assert journal.digest("s", 0) is not None
    assert journal.patch(1) is None
    assert journal.patch(3) == b"patch"
    with closing(open_reader(journal.path)) as reader:
        assert [r.seq for r in records_page(reader, "s")[0]] == [2], "what came after the deletion stays"
        assert [r.seq for r in records_page(reader, "t")[0]] == [0, 1]
        assert reader.execute("SELECT count(*) FROM alarms").fetchone()[0] == 0


def test_crashes_are_counted_until_the_entry_is_learned(journal: Journal) -> None:
    assert [journal.count_crash(1), journal.count_crash(1), journal.count_crash(2)] == [1, 2, 1]
    assert journal.quarantined() == set()
    assert journal.count_crash(1) == 3
    journal.put_turn(Turn(2), 100.0)
    assert journal.quarantined() == {1}, "once skipped it stays known, so that recovery skips it too"
    assert journal.count_crash(2) == 1


def test_a_full_disk_is_said_and_passes(tmp_path: Path) -> None:
    """SQLite's own page limit makes a real SQLITE_FULL."""
    journal = Journal(tmp_path / "rjepa.db")
    with closing(journal):
        journal.claim("s", 1, 99.0)
        connection = journal._database.connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 4}")
        with pytest.raises(StorageFull) as caught:
            journal.append([fixation(0, content=bytes(100_000))])
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert (journal.last_id(), journal.cursors()[0].next_seq) == (0, 0)
        connection.execute("PRAGMA max_page_count=1000000")
        journal.append([fixation(0, content=bytes(100_000))])
        assert journal.cursors()[0].next_seq == 1


def test_a_failing_commit_leaves_nothing(tmp_path: Path) -> None:
    broken = threading.Event()

    def before_commit(what: str) -> None:
        if broken.is_set():
            raise OSError(5, f"no {what} today")

    with closing(Journal(tmp_path / "rjepa.db", before_commit=before_commit)) as journal:
        journal.claim("s", 1, 99.0)
        broken.set()
        with pytest.raises(StorageFailed, match="no fixations today") as caught:
            journal.append([fixation(0)])
        assert caught.value.code == "storage_failed"
        assert isinstance(caught.value.__cause__, OSError)
        broken.clear()
        journal.append([fixation(0)])
        assert journal.last_id() == 1


def test_threads_write_and_read_at_once(journal: Journal) -> None:
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            failures.append(error)

    def write(stream: str) -> None:
        for seq in range(40):
            journal.append([fixation(seq, stream)])

    def read() -> None:
        while sum(cursor.next_seq for cursor in journal.cursors()) < 120:
            journal.entries(0, 1000)

    for stream in "abc":
        journal.claim(stream, 1, 1.0)
    works: list[Callable[[], None]] = [*(lambda s=s: write(s) for s in "abc"), read]  # type: ignore[misc]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [cursor.next_seq for cursor in journal.cursors()] == [40, 40, 40]


def test_it_is_found_again(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "rjepa.db")) as journal:
        journal.claim("s", 3, 99.0)
        journal.append([fixation(0)])
        journal.put_meta("identity", "{}")
    with closing(Journal(tmp_path / "rjepa.db")) as journal:
        assert journal.cursors()[0].epoch == 3
        assert journal.meta("identity") == "{}"
        assert journal.meta("nothing") is None


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "rjepa.db").close()
    with closing(sqlite3.connect(tmp_path / "rjepa.db", isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(DirectoryRefused, match="schema version 99"):
        Journal(tmp_path / "rjepa.db")


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rjepa.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(DirectoryRefused, match="can't be opened"):
        Journal(tmp_path / "rjepa.db")
    with closing(sqlite3.connect(tmp_path / "other.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE something (x)")
    with pytest.raises(DirectoryRefused, match="something else"):
        Journal(tmp_path / "other.db")


def test_a_reader_cannot_write(journal: Journal) -> None:
    with closing(open_reader(journal.path)) as reader, pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM meta")
    with pytest.raises(DirectoryRefused, match="no such database"):
        open_reader(journal.path.with_name("nothing.db"))
