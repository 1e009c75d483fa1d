"""Old patches go, everything else stays: known again, learned again; an old database is brought up."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from clients.wire import FixationMessage, Gaze, Hello, digest
from service.admission import Admission, Answer, Duplicate
from service.check import check
from service.errors import DirectoryRefused
from service.events import events_between, newest_event
from service.journal import Alarm, Journal
from service.manifests import LEARNER
from service.retained import AT_ONCE, DAY_S, Limits, held_patches
from service.retention import Retention
from service.schema import SCHEMA_VERSION
from service.storage import Database, open_reader
from tests.helpers import fixation_body
from tests.service.bench import PATCH_BYTES, Bench, life, same_bits

NO_AGE = Limits(age_s=0.0, size_bytes=1e12)
MANY = Limits(age_s=1e9, size_bytes=1e12)


def held(bench: Bench) -> list[int]:
    return [row[0] for row in bench.journal._read("SELECT id FROM patches ORDER BY id")]


def with_checkpoints(bench: Bench, *counts: int) -> list[int]:
    """So many fixations before each checkpoint; the journal ids they stand at."""
    stood = []
    for count in counts:
        bench.offer("a", count)
        bench.learn()
        bench.loop.finish()
        bench.loop._checkpoint_id = bench.applier.cursor
        stood.append(bench.applier.cursor)
    return stood


def test_patches_go_behind_the_second_newest_verified_checkpoint(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        retention = Retention(bench.journal, bench.checkpoints, NO_AGE)
        with_checkpoints(bench, 20)
        assert retention.drop() == 0, "one checkpoint is too few"
        first, second, third = 20, *with_checkpoints(bench, 10, 10)
        assert second == 30
        damaged = bench.checkpoints.list()[-1].id
        (tmp_path / "checkpoints" / damaged / LEARNER).write_bytes(b"bad")
        assert Retention(bench.journal, bench.checkpoints, MANY).drop() == 0, "nothing is over a limit"
        assert retention.drop() == first, "the third is bad: the second newest good one is the first"
        assert held(bench) == list(range(first + 1, third + 1))
        learned = bench.learner.snapshot()
        assert {line for line in check(tmp_path).said() if damaged not in line} == set()
    with life(tmp_path) as bench:
        assert same_bits(bench.learner.snapshot(), learned), "learned again without its patches"
        for manifest in bench.checkpoints.list():
            bench.checkpoints.delete(manifest.id)
    with life(tmp_path) as bench:
        assert bench.recovery.progress.recovered == third
        assert same_bits(bench.learner.snapshot(), learned), "from the very start too"


def test_the_oldest_go_first_up_to_a_size_or_an_age(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        with_checkpoints(bench, 3 * AT_ONCE, 5, 5)
        size = Limits(1e9, 20.0 * PATCH_BYTES)
        assert Retention(bench.journal, bench.checkpoints, size).drop() == 3 * AT_ONCE + 10 - 20
        assert len(held(bench)) == 20
        with closing(open_reader(tmp_path / "rjepa.db")) as reader:
            assert held_patches(reader) == (20, 20 * PATCH_BYTES)
        limits = Limits(30 * DAY_S, 1e12)
        times = [row[0] for row in bench.journal._read("SELECT time FROM journal ORDER BY id DESC LIMIT 17")]
        assert bench.journal.drop_patches(limits, 10**9, times[-1] + 30 * DAY_S + 1e-6) == 20 - 16
        assert bench.journal.drop_patches(limits, 10**9, times[-1] + 30 * DAY_S) == 0


def test_what_has_no_features_keeps_its_patch(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 5)
        with bench.journal._database.write("test") as connection:
            connection.execute("DELETE FROM features WHERE id = 2")
        assert bench.journal.drop_patches(NO_AGE, 5, time.time() + 1.0) == 4
        assert held(bench) == [2]


def test_a_duplicate_is_known_after_its_patch_is_gone(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 5)
        assert bench.journal.drop_patches(NO_AGE, 5, time.time() + 1.0) == 5
        admission = Admission(bench.journal.cursors(), bench.journal.digest)
        hello = Hello(stream="a", notify="learned")
        admission.granted(b"c", hello, admission.hello(b"c", hello))
        body = fixation_body("a", 3)
        message = FixationMessage.model_validate(body)
        known = digest(body["onset"], body["duration"], Gaze(**body["gaze"]), bytes([3]) * PATCH_BYTES)
        assert isinstance(admission.fixation(b"c", message, known, 0.0), Duplicate)
        assert isinstance(admission.fixation(b"c", message, bytes(32), 0.0), Answer), "a conflict"


def test_the_file_stops_growing(tmp_path: Path) -> None:
    """What a dropped patch took is taken by the next one."""
    with life(tmp_path) as bench:
        retention = Retention(bench.journal, bench.checkpoints, NO_AGE)
        pages = []
        for _ in range(4):
            with_checkpoints(bench, 120, 1)
            retention.drop()
            pages.append(bench.journal._read("PRAGMA page_count")[0][0])
        ((size,),) = bench.journal._read("PRAGMA page_size")
        grown = (pages[-1] - pages[1]) * size
        with closing(open_reader(tmp_path / "rjepa.db")) as reader:
            kept = reader.execute("SELECT sum(pgsize) FROM dbstat WHERE name <> 'patches'").fetchone()[0]
        assert grown < kept * 0.6, "records and features grow, patches do not"


def test_it_goes_on_beside_learning_and_ends_when_asked(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        with_checkpoints(bench, 10, 10, 10)
        retention = Retention(bench.journal, bench.checkpoints, NO_AGE, look_s=0.01)
        retention.start()
        done = threading.Event()
        while len(held(bench)) > 10 and not done.wait(0.02):
            pass
        bench.offer("a", 5)
        bench.learn()
        retention.stop()
        assert not retention.is_alive()
        assert len(bench.records()) == 35


def old_database(path: Path) -> list[tuple[object, ...]]:
    """A database as the first version made it, with a journal in it; its journal, records and patches."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(VERSION_1)
        connection.execute("INSERT INTO meta VALUES ('schema_version', '1'), ('timeline', '0'), ('learned_id', '2')")
        connection.execute("INSERT INTO timelines (id, created, start) VALUES (0, 1.0, 0)")
        connection.execute("INSERT INTO streams (name, created, epoch, next_seq, learned_seq, learned) "
                           "VALUES ('a', 1.0, 1, 3, 1, 2)")  # fmt: skip
        for seq in range(3):
            body, patch = fixation_body("a", seq), bytes([seq]) * 70
            known = digest(body["onset"], body["duration"], Gaze(**body["gaze"]), patch)
            row = (2.0, "fixation", "a", seq, json.dumps(body), known)
            connection.execute("INSERT INTO journal (time, kind, stream, seq, body, digest) VALUES (?,?,?,?,?,?)", row)
            connection.execute("INSERT INTO patches VALUES (?, ?)", (seq + 1, patch))
        connection.execute("INSERT INTO features SELECT id, zeroblob(48) FROM journal WHERE id < 3")
        connection.execute("INSERT INTO records (id, stream, seq, time, prediction_error, timeline) "
                           "SELECT id, stream, seq, time, 0.5, 0 FROM journal WHERE id < 3")  # fmt: skip
        return contents(connection)


def contents(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for table in ("journal", "patches", "features", "records", "streams", "timelines", "alarms", "attempts"):
        found += [(table, *row) for row in connection.execute(f"SELECT * FROM {table}")]
    return found


def test_a_database_of_the_first_version_is_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "rjepa.db"
    before = old_database(path)
    assert check(tmp_path).said() == [], "it can be read as it is"
    with closing(Journal(path)) as journal:
        assert journal.meta("schema_version") == str(SCHEMA_VERSION)
        assert contents(journal._database.connection) == before
        assert held_patches(journal._database.connection) == (3, 210)
        assert journal.drop_patches(NO_AGE, 3, 1e9) == 2
        assert held_patches(journal._database.connection) == (1, 70)
        assert newest_event(journal._database.connection) == 0, "what was before has no events"
        journal.put_alarm(Alarm("lag", "240 wait"), 3.0)
        (event,) = events_between(journal._database.connection, 0, 1)
        assert (event.id, event.kind) == (1, "alarm")
    assert check(tmp_path).said() == []
    Journal(path).close()


def test_a_database_that_counted_patches_one_by_one_counts_each_once(tmp_path: Path) -> None:
    path = tmp_path / "rjepa.db"
    Journal(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(PATCH_CAME)
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'")
    with life(tmp_path) as bench:
        bench.offer("a", 5)
        assert held_patches(bench.journal._database.connection) == (5, 5 * PATCH_BYTES)
    assert check(tmp_path).said() == []


def test_a_migration_that_is_cut_short_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rjepa.db"
    before = old_database(path)

    def cut(what: str) -> None:
        assert what == "migration"
        raise OSError(28, "full")

    with pytest.raises(DirectoryRefused):
        Database(path, before_commit=cut)
    with closing(sqlite3.connect(path)) as connection:
        assert contents(connection) == before
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone() == ("1",)
        made_since = "SELECT count(*) FROM sqlite_master WHERE name IN ('held', 'events', 'checkpoints')"
        assert connection.execute(made_since).fetchone() == (0,)
    Journal(path).close()


def test_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    Journal(tmp_path / "rjepa.db").close()
    newer = SCHEMA_VERSION + 1
    with closing(sqlite3.connect(tmp_path / "rjepa.db", isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(newer),))
    for open_it in (lambda: Journal(tmp_path / "rjepa.db"), lambda: check(tmp_path)):
        with pytest.raises(DirectoryRefused, match=f"has schema version {newer}, this program knows 1, 2"):
            open_it()


PATCH_CAME = """
CREATE TRIGGER patch_came AFTER INSERT ON patches BEGIN
    UPDATE held SET count = count + 1, bytes = bytes + length(new.bytes) WHERE what = 'patches';
END
"""
"""As versions 2 and 3 had it."""

VERSION_1 = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE streams (
    name TEXT PRIMARY KEY,
    created REAL NOT NULL,
    epoch INTEGER NOT NULL,
    next_seq INTEGER NOT NULL,
    learned_seq INTEGER NOT NULL DEFAULT -1,
    learned INTEGER NOT NULL DEFAULT 0,
    padded INTEGER NOT NULL DEFAULT 0,
    frame_deg_assumed INTEGER NOT NULL DEFAULT 0,
    last_time REAL
) WITHOUT ROWID;

CREATE TABLE journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('fixation', 'lost', 'command')),
    stream TEXT,
    seq INTEGER,
    body TEXT NOT NULL,
    digest BLOB,
    result TEXT
);
CREATE UNIQUE INDEX journal_stream_seq ON journal (stream, seq) WHERE seq IS NOT NULL;

CREATE TABLE patches (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE features (id INTEGER PRIMARY KEY, z BLOB NOT NULL);

CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    time REAL NOT NULL,
    onset REAL, duration REAL,
    gaze_x REAL, gaze_y REAL,
    position INTEGER,
    sequence_id TEXT,
    prediction_error REAL,
    trivial_copy_last REAL, trivial_running_mean REAL, trivial_ar1 REAL, trivial_carry_mean REAL,
    trivial_carry_ar1 REAL, trivial_carry_mean_recent REAL, trivial_carry_ar1_recent REAL, trivial_carry_scene REAL,
    effective_rank REAL,
    update_norm REAL,
    latency_ms REAL,
    skipped TEXT CHECK (skipped IN ('lost', 'refused', 'quarantined', 'repeat')),
    timeline INTEGER NOT NULL,
    embedding BLOB
);
CREATE INDEX records_stream_seq ON records (stream, seq);
CREATE INDEX records_skipped ON records (stream, skipped) WHERE skipped IS NOT NULL;

CREATE TABLE timelines (
    id INTEGER PRIMARY KEY,
    created REAL NOT NULL,
    parent INTEGER,
    checkpoint TEXT,
    fork INTEGER,
    start INTEGER NOT NULL
);

CREATE TABLE alarms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    kind TEXT NOT NULL,
    stream TEXT,
    detail TEXT NOT NULL
);

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, count INTEGER NOT NULL
);
"""
"""The tables as the first version made them: written down, for the program no longer knows them."""
