from __future__ import annotations

import json
import os
import stat
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from model.snapshot import Snapshot
from service.checkpoints import NEW_MANIFEST, PIECE_BYTES, Checkpoints, Place
from service.errors import RequestRefused, StorageFailed, StorageFull
from service.manifests import LEARNER, MANIFEST, digest_of
from tests.service.bench import life, same_bits

SNAPSHOT = Snapshot({"w": torch.arange(6.0), "empty": torch.zeros(0)}, {"steps": 3, "nested": {"a": [1, 2.5, None]}})
IDENTITY = {"seed": 0}


def write(checkpoints: Checkpoints, journal: int, *, timeline: int = 0, created: float = 1e9, **more: bool) -> str:
    place = Place(journal, timeline, {"s": journal}, {}, created=created, **more)
    return checkpoints.write(SNAPSHOT, place, IDENTITY, "cpu").id


def test_what_is_written_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.list() == []
    name = write(checkpoints, 7)
    manifest, snapshot = checkpoints.read(name)
    assert snapshot.meta == SNAPSHOT.meta
    assert all(torch.equal(snapshot.tensors[key], value) for key, value in SNAPSHOT.tensors.items())
    assert (manifest.journal, manifest.cursors, manifest.identity, manifest.torch_version) == (
        7,
        {"s": 7},
        IDENTITY,
        str(torch.__version__),
    )
    assert checkpoints.list() == [manifest]
    assert sorted(path.name for path in (tmp_path / "checkpoints" / name).iterdir()) == [LEARNER, MANIFEST]
    assert set(manifest.json_object()) == {
        *("id", "created", "label", "pinned", "size_bytes", "sha256", "timeline", "parent", "cursors")
    }
    assert checkpoints.path(name).stat().st_size == manifest.size_bytes


def test_it_goes_to_the_disk_a_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large it is, no more than that keeps the journal's own syncs waiting."""
    synced: dict[int, list[int]] = {}
    sync = os.fsync

    def told(handle: int) -> None:
        sync(handle)
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode):
            synced.setdefault(found.st_ino, [0]).append(found.st_size)

    monkeypatch.setattr(os, "fsync", told)
    checkpoints = Checkpoints(tmp_path)
    sizes = (300_000, 1_000_000, 3, 70_000)
    large = Snapshot({str(size): torch.arange(float(size)) for size in sizes}, {})
    manifest = checkpoints.write(large, Place(7, 0, {}, {}), IDENTITY, "cpu")
    places = synced[checkpoints.path(manifest.id).stat().st_ino]
    assert places[-1] == manifest.size_bytes > 5 * PIECE_BYTES, "the whole, at the end"
    assert max(after - before for before, after in pairwise(places)) < 2 * PIECE_BYTES
    assert checkpoints.verified(manifest.id) == manifest


def test_one_place_twice_gets_two_ids(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert write(checkpoints, 7) != write(checkpoints, 7)


@pytest.mark.parametrize("point", ["write", "sync", "rename"])
@pytest.mark.parametrize(("number", "kind"), [(28, StorageFull), (5, StorageFailed)])
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, point: str, number: int, kind: type[StorageFailed]) -> None:
    def fault(now: str) -> None:
        if now == point:
            raise OSError(number, "no")

    with pytest.raises(kind) as caught:
        write(Checkpoints(tmp_path, fault=fault), 7)
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []
    write(Checkpoints(tmp_path), 7)


def test_a_crash_leaves_a_part_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".part-x").mkdir()
    (tmp_path / ".part-x" / LEARNER).write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path)
    kept, doomed = write(checkpoints, 1), write(checkpoints, 2, timeline=5)
    (tmp_path / kept / NEW_MANIFEST).write_text("half")
    assert len(checkpoints.list()) == 2
    checkpoints.clean({0})
    assert [path.name for path in tmp_path.iterdir()] == [kept]
    assert sorted(path.name for path in (tmp_path / kept).iterdir()) == [LEARNER, MANIFEST]
    assert doomed != kept


def test_retention(tmp_path: Path) -> None:
    """The newest two, the first of each hour, the pinned."""
    checkpoints = Checkpoints(tmp_path)
    hour = 3600.0
    ids = [write(checkpoints, n, created=1e9 // hour * hour + n * hour / 4, pinned=n == 6) for n in range(1, 12)]
    checkpoints.prune(2, 0)
    assert [manifest.journal for manifest in checkpoints.list()] == [1, 4, 6, 8, 10, 11]
    assert set(checkpoints.prune(2, 0)) == set()
    assert checkpoints.list()[0].id == ids[0]


def test_pinned_later_it_stays_and_unpinned_it_goes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    ids = [write(checkpoints, n, created=3600.0 * 300_000 + n) for n in range(1, 6)]
    before = checkpoints.manifest(ids[2])
    kept = checkpoints.keep(ids[2], pinned=True, label="mine")
    assert kept == checkpoints.read(ids[2])[0] == before.model_copy(update={"pinned": True, "label": "mine"})
    checkpoints.prune(1, 0)
    assert [manifest.id for manifest in checkpoints.list()] == [ids[0], ids[2], ids[4]]
    assert checkpoints.keep(ids[2], pinned=False).label == "mine", "what is not named stays"
    checkpoints.prune(1, 0)
    assert [manifest.id for manifest in checkpoints.list()] == [ids[0], ids[4]]


def test_a_pin_that_fails_leaves_the_checkpoint_as_it_was(tmp_path: Path) -> None:
    def fault(now: str) -> None:
        raise OSError(28, "no")

    name = write(Checkpoints(tmp_path), 7)
    before = (tmp_path / name / MANIFEST).read_bytes()
    with pytest.raises(StorageFull):
        Checkpoints(tmp_path, fault=fault).keep(name, pinned=True)
    assert (tmp_path / name / MANIFEST).read_bytes() == before
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == [LEARNER, MANIFEST]


def test_the_last_good_one_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    ids = [write(checkpoints, n, created=3600.0 * 300_000) for n in range(1, 7)]
    for bad in ids[2:]:
        (tmp_path / bad / LEARNER).write_bytes(b"bad")
    good = checkpoints.last_good(0)
    assert good is not None
    assert good.id == ids[1]
    checkpoints.prune(2, 0)
    assert {manifest.id for manifest in checkpoints.list()} == {ids[0], ids[1], *ids[-2:]}
    assert checkpoints.last_good(0, but=ids[1]) == checkpoints.manifest(ids[0])
    assert checkpoints.last_good(1) is None


@pytest.mark.parametrize("name", ["nothing", "..", "../x", "", ".part-x", "a/b", "x" * 65])
def test_an_id_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    write(checkpoints, 1)

    def keep(name: str) -> None:
        checkpoints.keep(name, pinned=True)

    for ask in (checkpoints.manifest, checkpoints.path, checkpoints.read, checkpoints.delete, keep):
        with pytest.raises(RequestRefused) as caught:
            ask(name)
        assert caught.value.status == 404
    assert (tmp_path / "x").is_dir()


def test_what_was_gone_back_to_stays(tmp_path: Path) -> None:
    """However many checkpoints come after it, recovery can make the restore again."""
    with life(tmp_path) as bench:
        bench.offer("a", 10)
        bench.learn()
        bench.loop.finish()
        plain = bench.checkpoints.list()[0].id
        bench.offer("a", 10)
        gone_back_to = bench.checkpoint()
        bench.command("restore", checkpoint=gone_back_to)
        for _ in range(6):
            bench.offer("a", 3)
            bench.checkpoint()
        learned = bench.learner.snapshot()
        kept = [manifest.id for manifest in bench.checkpoints.list()]
        assert len(kept) == 5, "the newest three, the hour's first, and that one"
        assert {plain, gone_back_to} < set(kept)
    for manifest in Checkpoints(tmp_path / "checkpoints").list():
        if manifest.timeline == 1:
            (tmp_path / "checkpoints" / manifest.id / LEARNER).write_bytes(b"bad")
    with life(tmp_path) as bench:
        assert same_bits(bench.learner.snapshot(), learned), "from before it, through the restore again"


def test_hours_are_bounded_by_their_number(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for n in range(1, 11):
        write(checkpoints, n, created=3600.0 * (300_000 + n))
    checkpoints.prune(2, 0, hours=4)
    assert [manifest.journal for manifest in checkpoints.list()] == [7, 8, 9, 10]
    checkpoints.prune(2, 0, hours=0, needed=["nothing", checkpoints.list()[0].id])
    assert [manifest.journal for manifest in checkpoints.list()] == [7, 9, 10]


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = tmp_path / write(checkpoints, 1) / MANIFEST
    body = json.loads(path.read_text())
    del body["manifest_sha256"]
    body["format_version"] = 2
    path.write_text(json.dumps(body | {"manifest_sha256": digest_of(body)}))
    (told,) = checkpoints.unreadable()
    assert "has format version 2, this program reads 1" in told
