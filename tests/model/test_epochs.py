from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from model import snapshot as snapshots
from model.epochs import Epochs, examined
from model.errors import ModelError
from model.sequences import FixationSequence, Parts, split
from model.side_by_side import Gradient, SideBySide
from model.snapshot import Snapshot
from model.worlds import walk
from tests.model.offline import LENGTH, learns, sequences


def epochs(parts: Parts, *, gradient: Gradient = "rfp", kind: str = "rls", size: int = 3, seed: int = 0) -> Epochs:
    made = SideBySide(learns(predictor={"kind": kind}), gradient=gradient, seed=seed)
    return Epochs(made, parts, side_by_side=size, seed=seed)


def finished(run: Epochs, count: int) -> Epochs:
    for _ in run.run(count):
        pass
    return run


def same(one: Snapshot, other: Snapshot) -> bool:
    tensors = set(one.tensors) == set(other.tensors) and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )
    return tensors and json.dumps(one.meta, sort_keys=True) == json.dumps(other.meta, sort_keys=True)


@pytest.mark.parametrize(("gradient", "kind"), [("rfp", "rls"), ("bptt", "mlp")])
def test_taken_up_anywhere_it_ends_with_the_same_bits(gradient: Gradient, kind: str, tmp_path: Any) -> None:
    parts = split(sequences(0, 7), 0.2, seed=0)
    whole = finished(epochs(parts, gradient=gradient, kind=kind), 2)
    for stop in (1, 5, 7, 8):  # in epoch 0; in epoch 1; while it is examined; with its row
        first = epochs(parts, gradient=gradient, kind=kind)
        for number, _ in enumerate(first.run(2), 1):
            if number == stop:
                break
        snapshots.write(first.pack(), tmp_path / "file")
        again = epochs(parts, gradient=gradient, kind=kind)
        again.unpack(snapshots.read(tmp_path / "file"))
        assert again.taken == first.taken
        finished(again, 2)
        assert again.rows == whole.rows
        assert same(again.pack(), whole.pack()), stop
    more = epochs(parts, gradient=gradient, kind=kind)
    more.unpack(finished(epochs(parts, gradient=gradient, kind=kind), 1).pack())
    assert finished(more, 2).rows == whole.rows, "more epochs may be asked for later"


def test_the_held_out_part_changes_no_weight_and_no_statistic() -> None:
    learned, held = split(sequences(), 0.2, seed=0)
    other = [one._replace(z=one.z[::-1] * 3.0) for one in held]
    without, with_held, with_other = (finished(epochs(Parts(learned, part)), 2).pack() for part in ([], held, other))
    for one in (with_held, with_other):
        assert all(torch.equal(tensor, one.tensors[name]) for name, tensor in without.tensors.items())
    rows = [found.meta["epochs"]["rows"][-1] for found in (without, with_held, with_other)]
    assert "held_out_error" not in rows[0]
    assert rows[1]["held_out_error"] != rows[2]["held_out_error"]


def test_nothing_is_learned_in_epoch_0() -> None:
    run = epochs(split(sequences(), 0.2, seed=0))
    before = run.pack()
    zeroth = finished(run, 0).pack()
    for name, tensor in before.tensors.items():
        fixed = name.startswith(("parameters/", "optimiser/", "rls/"))
        assert torch.equal(tensor, zeroth.tensors[name]) or not fixed, name
    assert not torch.equal(before.tensors["statistics/moments/mean"], zeroth.tensors["statistics/moments/mean"])
    assert [row["epoch"] for row in run.rows] == [0]
    assert zeroth.meta["learning"] is True


def planted(steps: int = 12 * 40) -> list[FixationSequence]:
    """A world of four places whose next depends on the last two, in sequences of 12."""
    random = np.random.default_rng(0)
    table = random.standard_normal((4, 1, 5)) + 0.3 * random.standard_normal((4, 3, 5))
    path = walk(2, steps, seed=0, places=4, views=3, sequence_length=12)
    z = table[path.place, path.view].astype(np.float32)
    return [FixationSequence("w", first, z[first : first + 12], [None] * 12) for first in range(0, steps, 12)]


@pytest.mark.parametrize("gradient", ["rfp", "bptt"])
def test_a_planted_world_is_learned_and_the_rows_say_so(gradient: Gradient) -> None:
    run = finished(epochs(split(planted(), 0.3, seed=0), gradient=gradient, size=2), 3)
    first, last = run.rows[0], run.rows[-1]
    assert last["skill_low"] > 0.0 >= first["skill_low"]
    assert last["held_out_error"] < 0.9 * last["best_trivial_error"]
    assert first["held_out_error"] > first["best_trivial_error"]
    assert set(last["trivial"]) == set(first["trivial"])
    assert last["best_trivial_error"] == min(last["trivial"].values())
    assert last["opponent"] in last["trivial"]
    assert 1.0 < last["rank"] <= 7.0
    curve = last["error_by_position"]
    assert len(curve) == 11
    assert last["early"] == pytest.approx(curve[0])
    assert last["late"] == pytest.approx(np.mean(curve[4:]), rel=1e-6)
    assert json.loads(json.dumps(run.rows)) == run.rows


def test_few_predictions_are_told_without_a_skill() -> None:
    run = finished(epochs(split(sequences(0, 3), 0.2, seed=0)), 0)
    assert run.rows[0]["skill"] is None
    assert run.rows[0]["held_out_error"] > 0.0


def test_nothing_predicted_is_told_as_nothing() -> None:
    told = examined([], LENGTH)
    assert told["held_out_error"] is None
    assert told["best_trivial"] is None
    assert told["error_by_position"] == [None] * (LENGTH - 1)


def test_what_was_seen_of_an_epoch_is_told() -> None:
    run = epochs(split(sequences(), 0.2, seed=0), size=4)
    work = [*run.run(1)]
    assert [one.kind for one in work[:6]] == ["group", "group", "group", "examined", "examined", "row"]
    assert [one.sequences for one in work[:6]] == [4, 4, 2, 1, 1, 0]
    assert [one.epoch for one in work] == [0] * 6 + [1] * 6
    assert work[4].error == run.rows[0]["train_error"]


def test_a_snapshot_of_something_else_is_refused() -> None:
    run = epochs(split(sequences(), 0.2, seed=0))
    with pytest.raises(ModelError, match="not of epochs"):
        run.unpack(SideBySide(learns(), gradient="rfp", seed=0).snapshot())
    other = epochs(split(sequences(), 0.2, seed=0), kind="mlp")
    with pytest.raises(ModelError, match="predictor"):
        run.unpack(other.pack())
