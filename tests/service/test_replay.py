"""`rjepa replay`: the same bits with the same settings, something else with others, and never half a directory."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from model.snapshot import Snapshot
from service import replay_cli
from service.check import check
from service.checkpoints import Checkpoints
from service.errors import CopyRefused, DirectoryRefused
from service.journal import Journal
from service.replay import Otherwise, Source, replay
from service.storage import open_reader
from tests.service.bench import IDENTITY, life, same_bits
from tests.service.test_recovery import story


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two streams and everything a journal can have in it: losses, rates, pauses, a deletion, two ways back."""
    folder = tmp_path_factory.mktemp("source") / "data"
    with life(folder, watched=True) as bench:
        bench.journal.put_meta("identity", json.dumps(IDENTITY))
        story(bench, 0)
        bench.learn(1)
        early = bench.checkpoint()
        story(bench, 1)
        named = bench.checkpoint()
        bench.offer("a", 10)
        bench.learn()
        bench.command("restore", checkpoint=named)
        story(bench, 2)
        bench.learn()
        bench.loop.finish()
        bench.command("restore", checkpoint=early)
        bench.offer("a", 6)
        bench.learn()
        bench.loop.finish()
        assert bench.applier.timeline == 2
    return folder


def records(folder: Path) -> list[tuple[Any, ...]]:
    with closing(open_reader(folder / "rjepa.db")) as reader:
        return [tuple(row) for row in reader.execute(f"SELECT {_ALL} FROM records ORDER BY id")]


_ALL = "id, stream, seq, time, position, sequence_id, prediction_error, trivial_ar1, skipped, timeline, embedding"


def last(folder: Path) -> Snapshot:
    checkpoints = Checkpoints(folder / "checkpoints")
    return checkpoints.read(checkpoints.list()[-1].id)[1]


def state(folder: Path) -> list[tuple[Any, ...]]:
    """What the database says of streams, timelines and where it stands."""
    with closing(open_reader(folder / "rjepa.db")) as reader:
        found = [tuple(row) for row in reader.execute("SELECT * FROM streams")]
        found += [tuple(row) for row in reader.execute("SELECT id, created, parent, fork, start FROM timelines")][1:]
        return found + [
            tuple(row) for row in reader.execute("SELECT * FROM meta WHERE key IN ('learned_id', 'timeline')")
        ]


@pytest.mark.parametrize("number", [None, 0, 1, -1], ids=["start", "before it all", "between", "at the end"])
def test_the_same_settings_give_the_same_bits(
    source: Path, tmp_path: Path, number: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file() and path.suffix != ".db-shm"}
    begin = "start" if number is None else Checkpoints(source / "checkpoints").list()[number].id
    into = tmp_path / "into"
    assert replay_cli.main(["--data-dir", str(source), "--from", begin, "--into", str(into), "--quiet"]) == 0
    assert all(path.read_bytes() == content for path, content in before.items()), "only read"
    assert records(into) == records(source)
    assert state(into) == state(source)
    assert same_bits(last(into), last(source))
    assert check(into).said() == []
    lines = capsys.readouterr().out.splitlines()
    same, _, count = lines[-1].split()[:3]
    assert same == count
    assert [line.split()[0] for line in lines[1:-1]] == ["a", "b"]
    with life(into, watched=True) as bench:  # a worker goes on with it
        assert not bench.recovery.progress.to_recover
        bench.offer("a", 3)
        bench.learn()
        assert check(into).said() == []
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def test_other_rates_hold_throughout_and_in_every_recovery(source: Path, tmp_path: Path) -> None:
    begin = Checkpoints(source / "checkpoints").list()[1].id
    for name, start in (("start", "start"), ("between", begin)):
        into = tmp_path / name
        replay(Source.open(source), start, into, Otherwise(rates={"gates": 3e-4, "input": 0.0}))
        assert check(into).said() == []
        assert len(records(into)) == len(records(source))
        assert records(into)[-1] != records(source)[-1]
        learned = last(into)
        checkpoints = Checkpoints(into / "checkpoints")
        kept = [manifest.id for manifest in checkpoints.list()]
        with closing(Journal(into / "rjepa.db")) as journal:
            begun = json.loads(journal.meta("begun") or "")["checkpoint"]
        for later in kept:
            if later not in {begun, *_restored(into)}:
                checkpoints.delete(later)
        with life(into, watched=True) as bench:
            assert bench.recovery.progress.recovered > 0
            assert bench.learner.rates["gates"] == 3e-4
            snapshot = bench.learner.snapshot()
            told = json.loads(json.dumps(snapshot.meta))
            assert same_bits(snapshot._replace(meta=told), learned), "through the ways back again"
        for manifest in checkpoints.list():
            checkpoints.delete(manifest.id)
        with pytest.raises(DirectoryRefused, match=begun), life(into, watched=True):
            pass
        assert any("none can be used" in line for line in check(into).said())


def _restored(folder: Path) -> set[str]:
    with closing(Journal(folder / "rjepa.db")) as journal:
        return journal.begun_from()


def test_other_gates(source: Path, tmp_path: Path) -> None:
    """From the start the model may be another, as long as it sees the same features."""
    told = Source.open(source)
    with pytest.raises(CopyRefused, match="--from start"):
        replay(told, Checkpoints(source / "checkpoints").list()[0].id, tmp_path / "into", Otherwise(gates="dense"))
    with pytest.raises(CopyRefused, match="rjepa learn --from"):
        replay(told, "start", tmp_path / "into", Otherwise(preset="paper"))
    with pytest.raises(CopyRefused, match="this model has"):
        replay(told, "start", tmp_path / "into", Otherwise(rates={"nothing": 0.1}))
    with pytest.raises(CopyRefused, match="there are 2"):
        replay(told, "nothing", tmp_path / "into", Otherwise())
    assert list(tmp_path.iterdir()) == []


def test_cut_short_nothing_is_there_and_the_next_one_is_whole(source: Path, tmp_path: Path) -> None:
    class Crash(BaseException):
        pass

    def tell(what: str, done: int, whole: int) -> None:
        if what == "learning":
            raise Crash

    with pytest.raises(Crash):
        replay(Source.open(source), "start", tmp_path / "into", Otherwise(), tell=tell)
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / ".into.part"  # what a killed one leaves
    (left / "checkpoints" / "old").mkdir(parents=True)
    (left / "rjepa.db").write_bytes(b"half")
    replay(Source.open(source), "start", tmp_path / "into", Otherwise())
    assert check(tmp_path / "into").said() == []
    assert [path.name for path in tmp_path.iterdir()] == ["into"]
    with pytest.raises(CopyRefused, match="exists already"):
        replay(Source.open(source), "start", tmp_path / "into", Otherwise())
