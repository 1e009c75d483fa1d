"""Events in the database: with what they are about in one commit, each once, in one order, through crashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.events import Event, events_between, newest_event
from service.journal import Alarm
from tests.helpers import wait_until
from tests.service.bench import Bench, life


def told(bench: Bench) -> list[Event]:
    connection = bench.journal._database.connection
    return events_between(connection, 0, newest_event(connection))


def checkpoints_told(bench: Bench) -> list[str]:
    return [json.loads(event.data)["id"] for event in told(bench) if event.kind == "checkpoint"]


def take(bench: Bench) -> str:
    """A checkpoint by the writer that is at work; its id."""
    entry = bench.command("checkpoint")
    bench.learn()
    wait_until(lambda: entry in bench.results, 30.0, "the checkpoint")
    return str(bench.results[entry]["checkpoint"]["id"])


def test_they_come_in_the_order_of_what_happened(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 2)
        bench.learn()
        first = bench.checkpoint()
        bench.journal.put_alarm(Alarm("lag", "240 wait", "a"), 1.0)
        bench.offer("a", 1)
        bench.learn()
        bench.command("restore", checkpoint=first)
        bench.learn()
        events = told(bench)
        new = bench.checkpoints.list()[-1]
    assert [(event.id, event.kind, event.stream) for event in events] == [
        (1, "record", "a"),
        (2, "record", "a"),
        (3, "checkpoint", None),
        (4, "alarm", "a"),
        (5, "record", "a"),
        (6, "checkpoint", None),
    ]
    assert json.loads(events[2].data)["id"] == first
    assert json.loads(events[5].data) == new.json_object()
    with life(tmp_path) as bench:
        assert told(bench) == events, "recovery tells nothing again"
        bench.offer("a", 1)
        bench.learn()
        assert [event.id for event in told(bench)] == list(range(1, 8))


def test_a_checkpoint_whose_event_the_disk_refused_is_told_later(tmp_path: Path) -> None:
    full = True

    def before_commit(what: str) -> None:
        if what == "checkpoints" and full:
            raise OSError(28, "full")

    with life(tmp_path, before_commit=before_commit) as bench:
        bench.offer("a", 1)
        bench.learn()
        first = take(bench)
        assert checkpoints_told(bench) == []
        full = False
        bench.offer("a", 1)
        bench.learn()
        second = take(bench)
        assert checkpoints_told(bench) == [first, second]
        full = True
        bench.offer("a", 1)
        bench.learn()
        third = take(bench)
    with life(tmp_path, before_commit=before_commit) as bench:
        assert checkpoints_told(bench) == [first, second], "not even now; the worker starts all the same"
    with life(tmp_path) as bench:
        assert checkpoints_told(bench) == [first, second, third]


def test_a_checkpoint_that_is_pinned_later_is_told_once(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 1)
        bench.learn()
        name = take(bench)
        assert bench.checkpoints.keep(name, pinned=True, label="kept").pinned
    with life(tmp_path) as bench:
        assert checkpoints_told(bench) == [name]


def test_a_restore_that_never_was_has_no_event(tmp_path: Path) -> None:
    class Crash(BaseException):
        pass

    def before_commit(what: str) -> None:
        if what == "records":
            raise Crash

    with life(tmp_path) as bench:
        bench.offer("a", 3)
        bench.learn()
        earlier = bench.checkpoint()
        bench.command("restore", checkpoint=earlier)
    with pytest.raises(Crash), life(tmp_path, before_commit=before_commit) as bench:
        bench.learn()
    with life(tmp_path) as bench:
        assert checkpoints_told(bench) == [earlier]
        bench.learn()
        new = bench.checkpoints.list()[-1]
        assert new.parent == earlier
        assert checkpoints_told(bench) == [earlier, new.id]
