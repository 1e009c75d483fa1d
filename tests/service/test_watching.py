"""Diagnostics beside the worker's learner: they cost it no bit, survive as it does, and tell what begins and ends."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import warned
from model.diagnostics import MOST_STREAMS, Diagnostics
from model.moment import Moment
from model.noted import Noted
from model.twin import Twin, TwinStep
from service import alarms, learning
from service.manifests import DIAGNOSTICS
from tests.helpers import wait_until
from tests.service.bench import CONFIG, Bench, life, same_bits
from tests.service.test_recovery import story


def told(bench: Bench) -> dict[str, Any]:
    """Everything that is told of both streams and of all, and what was last looked at."""
    diagnostics = bench.watching.diagnostics
    found = {str(stream): diagnostics.representation(stream) for stream in ("a", "b", None)}
    found["gradient"] = diagnostics.gradient()
    looks = bench.journal.looks()
    for look in looks.values():
        for timed in (look, *look["alarms"]):
            timed.pop("time", timed.pop("since", None))
    return {**found, "looks": looks, "alarms": bench.alarms()}


def shaken(count: int = 1030) -> np.ndarray:
    """z' = R z and noise; from 500 to 604 z' = -R z, by which what was learned is misled."""
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((CONFIG.features,) * 2))[0]
    z = rng.standard_normal((count, CONFIG.features))
    for t in range(1, count):
        sign = -1.0 if 500 <= t < 604 else 1.0
        z[t] = sign * 0.8 * turn @ z[t - 1] + 0.6 * z[t]
    return z.astype(np.float32)


def test_the_learner_and_its_records_are_the_same_without(tmp_path: Path) -> None:
    lives = []
    for watched in (False, True):
        with life(tmp_path / str(watched), watched=watched) as bench:
            for part in range(3):
                story(bench, part)
                bench.learn()
            bench.offer("a", 300)
            bench.learn()
            lives.append((bench.learner.snapshot(), bench.records()))
    assert same_bits(lives[0][0], lives[1][0])
    assert lives[0][1] == lives[1][1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """What is told, and what is packed, at the end of one life."""
    with life(tmp_path_factory.mktemp("undisturbed"), watched=True) as bench:
        bench.offer("b", 40)
        bench.offer("a", 1030, seen=shaken())
        bench.learn()
        return told(bench), bench.watching.pack()


def test_a_look_that_fails_is_told_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Moment, "look", broken)
    with life(tmp_path, watched=True) as bench:
        bench.offer("a", 1030, seen=shaken())
        bench.learn()
        assert bench.alarms() == ["diagnostics_lost", "diagnostics_lost"]
        assert len(bench.records()) == 1030


def test_a_fixation_that_kills_its_measures_is_left_out_though_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = np.full(CONFIG.features, 0.25, np.float32)
    step = Twin.step

    def dies(twin: Twin, seen: Noted, *arguments: Any, **named: Any) -> TwinStep:
        if bool((seen.z == 0.25).all()):
            raise SystemExit
        return step(twin, seen, *arguments, **named)

    monkeypatch.setattr(Twin, "step", dies)
    with life(tmp_path, watched=True) as bench:
        bench.offer("a", 12)
        bench.journal.put_features([(7, deadly)])
    for _ in range(3):
        with pytest.raises(SystemExit), life(tmp_path, watched=True) as bench:
            bench.learn()
    with life(tmp_path, watched=True) as bench:
        assert bench.applier.quarantined == {7}
        bench.learn()
        assert [record[7] for record in bench.records()] == [None] * 6 + ["quarantined"] + [None] * 5


def test_an_alarm_begins_and_ends(undisturbed: tuple[dict[str, Any], Any]) -> None:
    assert undisturbed[0]["alarms"] == ["skill_negative", "cleared"]
    look = undisturbed[0]["looks"]["a"]
    assert (look["count"], look["alarms"]) == (1000, [])
    assert look["skill"]["value"] > 0.0
    assert set(warned.KINDS) <= set(alarms.KINDS)


@pytest.mark.parametrize(
    ("counts", "checkpoints"),
    [((610, 420), False), ((300, 310, 200, 220), True)],
    ids=["no checkpoint", "checkpoints"],
)
def test_crashes_leave_no_trace_in_diagnostics(
    tmp_path: Path, undisturbed: tuple[dict[str, Any], Any], counts: tuple[int, ...], checkpoints: bool
) -> None:
    """Crashed between blocks, after the look that raises the alarm, before the one that clears it, and after that."""
    z = shaken()
    with life(tmp_path, watched=True) as bench:
        bench.offer("b", 40)
    for count in counts:
        with life(tmp_path, watched=True) as bench:
            bench.offer("a", count, seen=z)
            bench.learn(3)
            bench.learn()
            if checkpoints:
                bench.loop.finish()
    with life(tmp_path, watched=True) as bench:
        bench.learn()
        assert told(bench) == undisturbed[0]
        assert same_bits(bench.watching.pack(), undisturbed[1])


def test_a_look_that_was_not_durable_is_made_again(
    tmp_path: Path, undisturbed: tuple[dict[str, Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after the records of the fixations and before their looks are told."""
    with life(tmp_path, watched=True) as bench:
        monkeypatch.setattr(bench.loop, "_tell_looks", lambda **_: None)
        bench.offer("b", 40)
        bench.offer("a", 1030, seen=shaken())
        bench.learn()
        assert bench.alarms() == []
    with life(tmp_path, watched=True) as bench:
        bench.learn()
        assert told(bench) == undisturbed[0]


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_without_good_diagnostics_the_learner_is_as_good(tmp_path: Path, how: str) -> None:
    with life(tmp_path, watched=True) as bench:
        bench.offer("a", 150)
        bench.learn()
        bench.loop.finish()
        (manifest,) = bench.checkpoints.list()
        snapshot = bench.learner.snapshot()
        assert bench.watching.diagnostics.representation("a")["count"] == 149
    file = tmp_path / "checkpoints" / manifest.id / DIAGNOSTICS
    data = bytearray(file.read_bytes())
    file.unlink()
    if how == "flipped":
        data[-100] ^= 1
        file.write_bytes(data)
    with life(tmp_path, watched=True) as bench:
        assert bench.recovery.progress.to_recover == 0
        assert same_bits(bench.learner.snapshot(), snapshot)
        assert bench.alarms() == (["diagnostics_lost"] if how == "flipped" else [])
        assert bench.watching.diagnostics.representation("a")["count"] == 0
        bench.offer("a", 10)
        bench.learn()
        assert bench.watching.diagnostics.representation("a")["count"] == 10


def test_going_back_takes_the_diagnostics_back(tmp_path: Path) -> None:
    z = shaken()
    with life(tmp_path, watched=True) as bench:
        bench.offer("a", 140, seen=z)
        bench.learn()
        name = bench.checkpoint()
        then = bench.watching.pack()
        bench.offer("a", 510, seen=z)
        bench.learn()
        assert bench.alarms() == ["skill_negative"]
        entry = bench.command("restore", checkpoint=name)
        bench.learn()
        assert bench.results[entry]["ok"]
        assert same_bits(bench.watching.pack(), then)
        assert bench.alarms() == ["skill_negative", "cleared"]
        assert bench.journal.looks() == {}
        bench.offer("a", 20, seen=z)
        bench.learn()
        assert bench.watching.diagnostics.representation("a")["count"] == 139 + 19
        now = bench.watching.pack()
    for _ in range(2):
        with life(tmp_path, watched=True) as bench:
            bench.learn()
            assert same_bits(bench.watching.pack(), now)
            assert bench.alarms() == ["skill_negative", "cleared"]
        for manifest in bench.checkpoints.list():
            if manifest.id != name:  # what it began with is gone: the way back is made again
                bench.checkpoints.delete(manifest.id)


def test_a_deleted_stream_has_no_diagnostics(tmp_path: Path) -> None:
    with life(tmp_path, watched=True) as bench:
        bench.offer("a", 20)
        bench.offer("b", 20)
        bench.learn()
        bench.journal.put_meta("look/a", json.dumps({"entry": 20, "alarms": []}))
    with life(tmp_path, watched=True) as bench:
        assert list(bench.journal.looks()) == ["a"]
        bench.command("delete", "a")
        bench.learn()
        assert bench.journal.looks() == {}
        assert bench.watching.diagnostics.representation("a")["count"] == 0
        assert bench.watching.diagnostics.representation("b")["count"] == 19
    with life(tmp_path, watched=True) as bench:
        bench.learn()
        assert bench.journal.looks() == {}
        assert bench.watching.diagnostics.representation("a")["count"] == 0


def test_old_checkpoints_keep_the_learner_alone(tmp_path: Path) -> None:
    with life(tmp_path, watched=True) as bench:
        for _ in range(5):
            bench.offer("a", 2)
            bench.learn()
            bench.loop.finish()
            bench.loop._checkpoint_id = 0
        kept = [bench.checkpoints.diagnostics(manifest.id) is not None for manifest in bench.checkpoints.list()]
        assert kept == [False, True, True, True], "the first of the hour is thinned, three are the newest"


def test_looks_of_streams_that_began_together_hold_up_neither_fixations_nor_a_checkpoint_that_can_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def held(moment: Moment) -> dict[str, Any]:
        released.wait(5.0)
        return look(moment)

    look = Moment.look
    monkeypatch.setattr(Moment, "look", held)
    monkeypatch.setattr(Diagnostics, "due", lambda diagnostics, stream: True)
    monkeypatch.setattr(learning, "PATIENCE_S", 0.0)
    with life(tmp_path, watched=True) as bench:
        for number in range(MOST_STREAMS):
            bench.offer(f"s{number}", 1)
        first, second = bench.command("checkpoint"), bench.command("checkpoint")
        while bench.loop._turn():
            continue
        assert len(bench.records()) == MOST_STREAMS
        assert not any(pending.made.done() for pending in bench.watching._pending), "none was waited for"
        bench.loop._take_wanted()
        assert [wanted.entry for wanted in bench.loop._wanted] == [first, second], "nor does one force the other"
        released.set()
        wait_until(lambda: not bench.watching.looking, 30.0, "the looks")
        bench.loop._take_wanted()
        wait_until(lambda: {first, second} <= bench.results.keys(), 30.0, "the checkpoints")
        assert len(bench.journal.looks()) == MOST_STREAMS
