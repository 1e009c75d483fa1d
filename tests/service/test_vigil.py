"""Alarms that stand: raised once, told while they are on, cleared once, over a restart too."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from service.alarms import STANDING_KINDS, Alarms
from service.api.streams import alarms_on
from service.dropped import Drops
from service.errors import StorageFailed
from service.journal import Journal
from service.storage import open_reader
from service.vigil import ENDED_S, Bounds, Vigil
from tests.helpers import wait_until
from tests.service.api_support import Lab, interface, working
from tests.service.bench import life

BOUNDS = Bounds(waiting=10, room_bytes=1e9, idle_s=60.0)


def told(journal: Journal) -> list[tuple[str, str | None]]:
    return [(kind, stream) for kind, stream in journal._read("SELECT kind, stream FROM alarms ORDER BY id")]


def on(folder: Path, stream: str | None = None) -> list[str]:
    with closing(open_reader(folder / "rjepa.db")) as reader:
        return [alarm["kind"] for alarm in alarms_on(reader, stream)]


def vigil(journal: Journal, folder: Path, room: Callable[[Path], float] | float = 1e12, look_s: float = 1.0) -> Vigil:
    alarms = Alarms(journal)
    free = room if callable(room) else lambda _: room
    return Vigil(journal, alarms, Drops(journal, alarms), folder, BOUNDS, room=free, look_s=look_s)  # type: ignore[arg-type]


def test_lag(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        watch = vigil(bench.journal, tmp_path)
        bench.offer("a", 10)
        watch.look(0.0)
        assert on(tmp_path) == []
        bench.offer("a", 1)
        for _ in range(3):
            watch.look(0.0)
        assert on(tmp_path) == ["lag"]
        assert told(bench.journal) == [("lag", None)], "once"
        bench.learn()
        watch.look(0.0)
        assert on(tmp_path) == []
        assert told(bench.journal) == [("lag", None), ("cleared", None)]


def test_room_on_the_disk(tmp_path: Path) -> None:
    room = 2 * 10**9
    with life(tmp_path) as bench:
        watch = vigil(bench.journal, tmp_path, lambda _: room)
        for room, expected in ((2e9, []), (0.9e9, ["disk_low"]), (1.05e9, ["disk_low"]), (1.2e9, [])):
            watch.look(0.0)
            assert on(tmp_path) == expected, room
        assert told(bench.journal) == [("disk_low", None), ("cleared", None)]


def test_a_stream_falls_silent(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("old", 1)
        watch = vigil(bench.journal, tmp_path)
        watch.look(0.0)
        bench.journal.claim("quiet", 1, 0.0)
        bench.offer("a", 1)
        watch.look(1.0)
        watch.look(60.9)
        assert on(tmp_path, "a") == []
        watch.look(61.0)
        assert on(tmp_path, "a") == ["stream_idle"]
        assert on(tmp_path, "old") == on(tmp_path, "quiet") == [], "what was not fed in this life is not missed"
        bench.offer("a", 1)
        watch.look(62.0)
        assert on(tmp_path, "a") == []
        watch.look(62.0 + 60.0)
        after = vigil(bench.journal, tmp_path)
        after.look(0.0)
        after.look(70.0)
        assert told(bench.journal).count(("stream_idle", "a")) == 2, "a restart does not raise it again"
        after.look(ENDED_S)
        assert on(tmp_path, "a") == [], "it has ended"
        after.look(ENDED_S + 100.0)
        assert told(bench.journal) == [("stream_idle", "a"), ("cleared", "a")] * 2


def test_a_failed_checkpoint_stands_until_one_is_written(tmp_path: Path) -> None:
    full = True

    def fault(point: str) -> None:
        if full and point == "sync":
            raise OSError(28, "full")

    with life(tmp_path, fault=fault) as bench:
        bench.offer("a", 10)
        bench.learn()
        for _ in range(2):
            bench.loop.finish()
        assert on(tmp_path) == ["checkpoint_failed"]
        full = False
        bench.loop.finish()
        assert on(tmp_path) == []
        assert told(bench.journal) == [("checkpoint_failed", None), ("cleared", None)]


def test_a_failed_checkpoint_is_tried_again_though_nothing_comes(tmp_path: Path) -> None:
    full = True

    def fault(point: str) -> None:
        if full and point == "sync":
            raise OSError(28, "full")

    with life(tmp_path, fault=fault) as bench:
        bench.offer("a", 10)
        bench.learn()
        bench.loop._every_s = 0.0
        for state in (["checkpoint_failed"], ["checkpoint_failed"], []):
            full = bool(state)
            bench.loop._checkpoint_when_due()
            wait_until(lambda: not bench.writer.busy, 20, "the checkpoint's end")
            assert on(tmp_path) == state
        written = bench.writer.last
        bench.loop._checkpoint_when_due()
        wait_until(lambda: not bench.writer.busy, 20, "nothing to be written")
        assert bench.writer.last == written, "one that was written is not written again"


def test_what_the_disk_refuses_is_told_later(tmp_path: Path) -> None:
    full = True

    def before_commit(what: str) -> None:
        if full and what == "alarm":
            raise OSError(28, "full")

    with closing(Journal(tmp_path / "rjepa.db", before_commit=before_commit)) as journal:
        watch = vigil(journal, tmp_path, room=0)
        watch.look(0.0)
        assert on(tmp_path) == []
        full = False
        watch.look(1.0)
        assert on(tmp_path) == ["disk_low"]


def test_it_runs_until_it_is_stopped_and_survives_a_disk_that_is_gone(tmp_path: Path) -> None:
    asked = []

    def room(_: Path) -> int:
        asked.append(1)
        if len(asked) == 1:
            raise OSError(5, "gone")
        return 0

    with closing(Journal(tmp_path / "rjepa.db")) as journal:
        watch = vigil(journal, tmp_path, room, look_s=0.01)
        watch.start()
        try:
            from tests.helpers import wait_until

            wait_until(lambda: on(tmp_path) == ["disk_low"], 20.0, "the second look")
        finally:
            watch.stop()
        assert not watch.is_alive()


def test_what_is_on_is_told_over_http(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.learn([0.5] * 3)
    alarms = Alarms(lab.journal)
    alarms.stand("disk_low", "0.1 GB are free")
    alarms.stand("stream_idle", "nothing came for 60 s", "s1")
    none = {"value": None, "low": None, "high": None}
    look = {"learning": False, "skill": none, "learned_skill": none, "rank_ratio": None, "live_cosine": None}
    warned = [{"kind": "rank_low", "detail": "low", "since": 5.0}]
    lab.journal.put_meta("look/s1", json.dumps({"entry": 3, "seq": 2, "time": 9.0, **look, "alarms": warned}))
    with working(tmp_path), interface(tmp_path) as client:
        streams = client.get("/v1/streams").json()
        metrics = client.get("/metrics").text
        alarms.clear("disk_low", "3 GB are free")
        after = client.get("/v1/streams").json()
    assert [alarm["kind"] for alarm in streams["alarms_on"]] == ["disk_low"]
    (stream,) = streams["streams"]
    assert [alarm["kind"] for alarm in stream["alarms_on"]] == ["rank_low", "stream_idle"]
    assert set(stream["alarms_on"][0]) == {"since", "kind", "stream", "detail"}
    assert 'rjepa_alarm{kind="disk_low"} 1.0' in metrics
    assert 'rjepa_stream_alarm{kind="stream_idle",stream="s1"} 1.0' in metrics
    assert 'rjepa_stream_alarm{kind="rank_low",stream="s1"} 1.0' in metrics
    assert after["alarms_on"] == []
    assert [alarm["kind"] for alarm in after["alarms"]][:1] == ["cleared"]
    lab.journal.close()


def test_only_kinds_that_stand_do(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "rjepa.db")) as journal:
        alarms = Alarms(journal)
        with pytest.raises(AssertionError):
            alarms.stand("refused", "no")
        alarms.clear(STANDING_KINDS[0], "it was not on")
        assert told(journal) == []
    with pytest.raises(StorageFailed):
        vigil(journal, tmp_path).look(0.0)
