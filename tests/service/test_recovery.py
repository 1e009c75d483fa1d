"""What was learned survives: the same bits after a crash as without one, each fixation once, on every way back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import ModelConfig
from model.learner import Learner
from model.snapshot import Snapshot
from service.checkpoints import LEARNER, MANIFEST
from service.errors import DirectoryRefused
from tests.service.bench import CONFIG, IDENTITY, Bench, life, same_bits


def story(bench: Bench, part: int) -> None:
    """A third of a run with everything in it: two streams, marks, losses, pauses, rates, resets, a deletion."""
    if part == 0:
        bench.offer("a", 20, sequence="first")
        bench.offer("b", 10)
        bench.command("rates", rates={"gates": 5e-4})
        bench.offer("a", 7)
    elif part == 1:
        bench.command("pause")
        bench.offer("b", 5)
        bench.command("resume")
        bench.journal.claim("b", 2, 1.0, lost=range(15, 18))
        bench.offer("b", 6)
        bench.command("reset", "a")
        bench.offer("a", 12)
    else:
        bench.command("delete", "b")
        bench.offer("b", 9, sequence="again")
        bench.offer("a", 9)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, list[Any]]:
    """The learner and the records of the whole story, learned in one life."""
    with life(tmp_path_factory.mktemp("undisturbed")) as bench:
        for part in range(3):
            story(bench, part)
            bench.learn()
        return bench.learner.snapshot(), bench.records()


def test_the_story_has_everything_in_it(undisturbed: tuple[Snapshot, list[Any]]) -> None:
    _, records = undisturbed
    assert [r[2] for r in records if r[1] == "a"] == list(range(48))
    assert [r[2] for r in records if r[1] == "b"] == list(range(24, 33)), "the deletion took the others"
    assert {r[4] for r in records if r[1] == "b"} == {"again"}
    assert any(r[5] is not None for r in records)
    assert [r[3] for r in records if r[1] == "a"][-30:] == [*range(18, 27), *range(21)], (
        "position begins anew at the reset"
    )


@pytest.mark.parametrize("turns", [0, 1, 3, 6])
@pytest.mark.parametrize("checkpoints", [False, True], ids=["no checkpoint", "checkpoints"])
def test_crashes_leave_no_trace(
    tmp_path: Path, undisturbed: tuple[Snapshot, list[Any]], turns: int, checkpoints: bool
) -> None:
    """A life for each third, crashed after so many turns; whatever arrived is learned in the next."""
    for part in range(3):
        with life(tmp_path) as bench:
            story(bench, part)
            bench.learn(turns)
            if checkpoints:
                bench.loop.finish()
    with life(tmp_path) as bench:
        bench.learn()
        snapshot, records = undisturbed
        assert same_bits(bench.learner.snapshot(), snapshot)
        assert bench.records() == records
        assert bench.applier.cursors == {"a": 48, "b": 33}
    with life(tmp_path) as bench:
        assert not bench.recovery.progress.recovering
        assert same_bits(bench.learner.snapshot(), snapshot), "nothing new, the same again"


def test_a_crash_inside_a_commit_or_right_after_it(tmp_path: Path, undisturbed: tuple[Snapshot, list[Any]]) -> None:
    class Crash(BaseException):
        pass

    left = 0

    def before_commit(what: str) -> None:
        nonlocal left
        if what == "records":
            left -= 1
            if left == 0:
                raise Crash

    for part in range(3):
        left = 0
        with life(tmp_path) as bench:
            story(bench, part)
        for moment in (1, 2):
            left = moment
            with pytest.raises(Crash), life(tmp_path, before_commit=before_commit) as bench:
                bench.learn()
        left = 0
    with life(tmp_path) as bench:
        bench.learn()
        assert same_bits(bench.learner.snapshot(), undisturbed[0])
        assert bench.records() == undisturbed[1]


def test_five_hundred_in_other_bursts_give_the_same_bits(tmp_path: Path) -> None:
    """The default model at its full size: all at once, or a few at a time with turns in between."""
    full = ModelConfig.preset("default")
    snapshots = []
    for name, seed in (("at once", None), ("in bursts", 1)):
        generator = np.random.default_rng(seed)
        with life(tmp_path / name.replace(" ", "-"), learner=lambda: Learner(full, seed=0)) as bench:
            left = 500
            while left:
                burst = left if seed is None else min(left, int(generator.integers(1, 40)))
                bench.offer("a", burst, size=full.features)
                left -= burst
                bench.learn(1 if seed is None else int(generator.integers(0, 3)))
            bench.learn()
            assert bench.applier.cursors == {"a": 500}
            snapshots.append(bench.learner.snapshot())
    assert same_bits(*snapshots)


def damage(folder: Path, how: str) -> None:
    if how == "flipped":
        data = bytearray((folder / LEARNER).read_bytes())
        data[-100] ^= 1
        (folder / LEARNER).write_bytes(data)
    elif how == "truncated":
        (folder / LEARNER).write_bytes((folder / LEARNER).read_bytes()[:-1])
    elif how == "no parameters":
        (folder / LEARNER).unlink()
    elif how == "no manifest":
        (folder / MANIFEST).unlink()
    elif how == "manifest flipped":
        text = (folder / MANIFEST).read_text()
        (folder / MANIFEST).write_text(text.replace('"a": 27', '"a": 26'))
        assert text != (folder / MANIFEST).read_text()


@pytest.mark.parametrize("how", ["flipped", "truncated", "no parameters", "no manifest", "manifest flipped"])
def test_a_bad_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, undisturbed: tuple[Snapshot, list[Any]], how: str
) -> None:
    with life(tmp_path) as bench:
        story(bench, 0)
        bench.learn(2)
        bench.loop.finish()
        bench.learn()
        bench.loop.finish()
        first, second = bench.checkpoints.list()
    damage(tmp_path / "checkpoints" / second.id, how)
    with life(tmp_path) as bench:
        assert bench.alarms() == ["checkpoint_bad"]
        assert bench.recovery.progress.to_recover == second.journal - first.journal
        for part in (1, 2):
            story(bench, part)
        bench.learn()
        assert same_bits(bench.learner.snapshot(), undisturbed[0])


def test_a_checkpoint_of_another_configuration_or_ahead_of_the_journal_is_not_used(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 10)
        bench.learn()
        bench.loop.finish()
        snapshot = bench.learner.snapshot()
    with life(tmp_path, identity=IDENTITY | {"seed": 1}) as bench:
        assert bench.alarms() == ["checkpoint_bad"]
        assert same_bits(bench.learner.snapshot(), snapshot), "learned again from the start"
    older = tmp_path.with_name("older")
    shutil.copytree(tmp_path, older)
    with life(tmp_path) as bench:
        bench.offer("a", 5)
        bench.learn()
        bench.loop.finish()
        newest = bench.checkpoints.list()[-1].id
    shutil.copytree(tmp_path / "checkpoints" / newest, older / "checkpoints" / newest)
    with life(older) as bench:
        assert bench.alarms() == ["checkpoint_bad", "checkpoint_bad"]
        assert same_bits(bench.learner.snapshot(), snapshot)


def test_a_deleted_stream_is_forgotten(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 3)
        bench.offer("b", 3, sequence="one")
        bench.learn()
        bench.loop.finish()
        bench.command("delete", "b")
        bench.learn()
        assert bench.learner.streams() == ["a"]
        assert list(bench.applier.sequences) == ["a"]
    with life(tmp_path) as bench:
        assert bench.recovery.progress.recovered == 1
        assert bench.learner.streams() == ["a"], "recovery forgets it too"
        bench.offer("b", 2)
        bench.learn()
        assert [r[3:5] for r in bench.records() if r[1] == "b"] == [(0, None), (1, None)]


def test_going_back(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 20, sequence="first")
        earlier = bench.checkpoint()
        old = bench.learner.snapshot()
        bench.offer("a", 10)
        bench.offer("b", 10)
        bench.learn()
        restore = bench.command("restore", checkpoint=earlier)
        bench.learn()
        told = bench.results[restore]
        assert told["ok"]
        assert told["checkpoint"]["parent"] == earlier
        assert told["checkpoint"]["timeline"] == 1
        assert told["checkpoint"]["cursors"] == {"a": 30, "b": 10}, "present cursors, old parameters"
        now = bench.learner.snapshot()
        for name, tensor in old.tensors.items():
            if name.startswith("parameters/"):
                assert np.array_equal(tensor.numpy(), now.tensors[name].numpy()), name
        bench.offer("a", 5)
        bench.learn()
        after = bench.learner.snapshot()
        assert [(r[2], r[3], r[8]) for r in bench.records()][-5:] == [(30 + n, n, 1) for n in range(5)], (
            "a new sequence on a new timeline"
        )
        records = bench.records()
    with life(tmp_path) as bench:
        assert same_bits(bench.learner.snapshot(), after)
        assert bench.records() == records
        assert bench.applier.timeline == 1
        newest = bench.checkpoints.list()[-1].id
    damage(tmp_path / "checkpoints" / newest, "flipped")
    with life(tmp_path) as bench:
        assert same_bits(bench.learner.snapshot(), after), "from an ancestor, through the restore again"
        assert bench.applier.timeline == 1
    damage(tmp_path / "checkpoints" / earlier, "flipped")
    with pytest.raises(DirectoryRefused, match=earlier), life(tmp_path):
        pass


def test_a_restore_that_fails_changes_nothing(tmp_path: Path) -> None:
    full = False

    def fault(point: str) -> None:
        if full and point == "sync":
            raise OSError(28, "full")

    with life(tmp_path, fault=fault) as bench:
        bench.offer("a", 10)
        earlier = bench.checkpoint()
        bench.offer("a", 10)
        bench.learn()
        before = bench.learner.snapshot()
        full = True
        failed = [bench.command("restore", checkpoint=earlier)]
        bench.learn()
        full = False
        failed.append(bench.command("restore", checkpoint="never-was"))
        damage(tmp_path / "checkpoints" / earlier, "truncated")
        failed.append(bench.command("restore", checkpoint=earlier))
        bench.learn()
        assert [bench.results[entry]["status"] for entry in failed] == [503, 404, 409]
        assert bench.results[failed[0]]["code"] == "storage_full"
        assert same_bits(bench.learner.snapshot(), before)
        assert bench.journal.timelines() == {}
        assert set(bench.alarms()) == {"checkpoint_failed", "command_failed"}
        bench.offer("a", 3)
        bench.learn()
        after = bench.learner.snapshot()
    with life(tmp_path) as bench:
        assert same_bits(bench.learner.snapshot(), after)


def test_a_crash_before_a_restore_is_recorded_makes_it_again(tmp_path: Path) -> None:
    class Crash(BaseException):
        pass

    with life(tmp_path) as bench:
        bench.offer("a", 10)
        earlier = bench.checkpoint()
        bench.offer("a", 10)
        bench.learn()
        bench.command("restore", checkpoint=earlier)

    def before_commit(what: str) -> None:
        if what == "records":
            raise Crash

    with pytest.raises(Crash), life(tmp_path, before_commit=before_commit) as bench:
        bench.learn()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2, "the new one had been written"
    with life(tmp_path) as bench:
        assert len(bench.checkpoints.list()) == 1, "a timeline that never was has none"
        bench.learn()
        assert bench.applier.timeline == 1
        assert len(bench.checkpoints.list()) == 2


class Deadly(Learner):
    """Dies at one fixation, as a crash in a native library would."""

    def observe(self, stream: str, z: Any, *rest: Any, **more: Any) -> Any:
        if np.array_equal(np.asarray(z), deadly):
            raise SystemExit("killed")
        return super().observe(stream, z, *rest, **more)


deadly = np.full(CONFIG.features, 0.5, np.float32)


def test_a_fixation_that_kills_the_process_is_skipped_after_three_times(tmp_path: Path) -> None:
    make: Callable[[], Learner] = lambda: Deadly(CONFIG, seed=0)  # noqa: E731
    with life(tmp_path) as bench:
        bench.offer("a", 12)
        bench.journal.put_features([(7, deadly)])
    for _ in range(3):
        with pytest.raises(SystemExit), life(tmp_path, learner=make) as bench:
            bench.learn()
    with life(tmp_path, learner=make) as bench:
        assert bench.applier.quarantined == {7}
        bench.learn()
        assert [r[7] for r in bench.records()] == [None] * 6 + ["quarantined"] + [None] * 5
        assert [r[3] for r in bench.records()][7:] == [0, 1, 2, 3, 4], "a new sequence begins behind it"
        assert bench.alarms() == ["quarantined"]
        after = bench.learner.snapshot()
    with life(tmp_path, learner=make) as bench:
        assert same_bits(bench.learner.snapshot(), after), "recovery leaves it out too"


def test_a_full_disk_holds_learning_up_and_nothing_is_told_before_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.learning.TURN_S", 600.0)  # one turn takes all, however slow the machine
    full = 0

    def before_commit(what: str) -> None:
        nonlocal full
        if what == "records" and full > 0:
            full -= 1
            raise OSError(28, "full")

    with life(tmp_path, before_commit=before_commit) as bench:
        bench.offer("a", 5)
        full = 2
        bench.learn(1)
        assert full == 0, "it was tried until it went"
        assert [told.seq for told in bench.told] == [0, 1, 2, 3, 4]
        bench.offer("a", 5)
        full = 1_000_000
        bench.stop.ask()
        bench.learn(1)
        assert len(bench.told) == 5
        bench.loop.finish()
        assert [manifest.cursors for manifest in bench.checkpoints.list()] == [], "no checkpoint ahead of the journal"
    with life(tmp_path) as bench:
        bench.learn()
        assert [r[2] for r in bench.records()] == list(range(10))


def test_a_last_good_checkpoint_is_not_deleted(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 5)
        only = bench.checkpoint()
        refused = bench.command("delete_checkpoint", checkpoint=only)
        bench.learn()
        assert (bench.results[refused]["status"], bench.results[refused]["code"]) == (409, "last_checkpoint")
        second = bench.checkpoint()
        gone = bench.command("delete_checkpoint", checkpoint=only)
        bench.learn()
        assert bench.results[gone]["ok"]
        assert [manifest.id for manifest in bench.checkpoints.list()] == [second]


def test_sequences_reach_records(tmp_path: Path) -> None:
    with life(tmp_path) as bench:
        bench.offer("a", 3)
        bench.offer("a", 3, sequence="scene 1")
        bench.offer("a", 2, sequence="scene 2")
        bench.journal.claim("a", 2, 1.0, lost=range(8, 9))
        bench.offer("a", 2)
        bench.learn()
        assert [(r[3], r[4], r[7]) for r in bench.records()] == [
            (0, None, None),
            (1, None, None),
            (2, None, None),
            (0, "scene 1", None),
            (1, "scene 1", None),
            (2, "scene 1", None),
            (0, "scene 2", None),
            (1, "scene 2", None),
            (None, None, "lost"),
            (0, None, None),
            (1, None, None),
        ]
