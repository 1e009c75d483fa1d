"""Save, restore, go on: the same bits as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import snapshot
from model.errors import ModelError
from model.learner import Learner
from model.snapshot import Snapshot, read, write
from tests.model.test_learner import ALL, medium, same, walk


@pytest.mark.parametrize(("preset", "choices"), ALL, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_restored_it_goes_on_with_the_same_bits(tmp_path: Path, preset: str, choices: dict[str, Any]) -> None:
    choices = {**choices, "predictor": {**choices.get("predictor", {}), "action_head": True}}
    through = Learner(medium(preset, **choices), seed=1)
    walk(through, 130, names=("a", "b"))
    through.set_rates({"gates": 2e-4} if "gates" in through.rates else {})
    through.observe("c", np.zeros(12))
    through.reset("b")
    write(through.snapshot(), tmp_path / "here.safetensors")
    restored = Learner(medium(preset, **choices), seed=99)
    restored.load(read(tmp_path / "here.safetensors"))
    assert same(through.snapshot(), restored.snapshot())
    one, other = (walk(learner, 90, seed=3, names=("b", "a", "c")) for learner in (through, restored))
    assert [(o.prediction_error, o.trivial, o.update_norm, o.effective_rank) for o in one] == [
        (o.prediction_error, o.trivial, o.update_norm, o.effective_rank) for o in other
    ]
    assert same(through.snapshot(), restored.snapshot())


def test_a_snapshot_is_a_copy() -> None:
    learner = Learner(medium(), seed=1)
    walk(learner, 150)
    taken = learner.snapshot()
    kept = {name: tensor.clone() for name, tensor in taken.tensors.items()}
    told = json.dumps(taken.meta)
    walk(learner, 150, seed=1)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in taken.tensors.items())
    assert json.dumps(taken.meta) == told
    learner.load(taken)
    walk(learner, 10, seed=2)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in taken.tensors.items())


def test_what_does_not_fit_is_named_and_changes_nothing() -> None:
    learner = Learner(medium(), seed=1)
    walk(learner, 120)
    before = learner.snapshot()
    with pytest.raises(ModelError, match="the snapshot's model has gates 'dense', this one 'two-point'"):
        learner.load(Learner(medium(gates="dense"), seed=1).snapshot())
    with pytest.raises(ModelError, match=r"of torch\.float64, this model of torch\.float32"):
        learner.load(Learner(medium(), seed=1, dtype=torch.float64).snapshot())
    for gone in ("parameters/V", "rls/inverse", "streams/a/state", "statistics/action/mean", "generator"):
        tensors = {name: tensor for name, tensor in before.tensors.items() if name != gone}
        with pytest.raises(ModelError, match=f"no '{gone}'"):
            learner.load(Snapshot(tensors, before.meta))
    cut = {**before.tensors, "parameters/V": before.tensors["parameters/V"][:3]}
    with pytest.raises(ModelError, match="parameters/V is"):
        learner.load(Snapshot(cut, before.meta))
    other = {**before.tensors, "streams/a/state": torch.zeros(2, 3)}
    with pytest.raises(ModelError, match="stream 'a'"):
        learner.load(Snapshot(other, before.meta))
    meta = {name: value for name, value in before.meta.items() if name != "steps"}
    with pytest.raises(ModelError, match="no 'steps'"):
        learner.load(Snapshot(before.tensors, meta))
    assert same(before, learner.snapshot())


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.safetensors: no snapshot"):
        read(tmp_path / "gone.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x40\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(ModelError, match=r"torn\.safetensors: no snapshot"):
        read(tmp_path / "torn.safetensors")
    import safetensors.torch

    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"rjepa-snapshot-1'; its metadata has \['format'\]"):
        read(tmp_path / "other.safetensors")


def test_the_file_is_the_one_the_library_writes(tmp_path: Path) -> None:
    import safetensors.torch

    tensors = {str(dtype): torch.arange(7).to(dtype) for dtype in snapshot._DTYPES}
    tensors |= {
        "turned": torch.randn(4, 6).t(), "empty": torch.zeros(0, 4), "one": torch.tensor(2.0),
        "a/\u00e9\"": torch.ones(3), "large": torch.randn(3, snapshot.PIECE_BYTES // 8),
        "taught": torch.randn(3, requires_grad=True),
    }  # fmt: skip
    found = Snapshot(tensors, {"steps": 1, "\u00e9": 'a"b\n', "rates": [1.5, None]})
    write(found, tmp_path / "here")
    told = {snapshot.FORMAT: json.dumps(found.meta, sort_keys=True)}
    safetensors.torch.save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "there", told)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
    pieces = [bytes(piece) for piece in snapshot.pieces(found)]
    assert b"".join(pieces) == (tmp_path / "here").read_bytes()
    assert max(map(len, pieces)) == snapshot.PIECE_BYTES
    assert same(read(tmp_path / "here"), found)


def test_a_file_that_can_not_grow_to_its_end_is_told(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits are of Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    found = Snapshot({"a": torch.zeros(40_000)}, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write(found, tmp_path / "cut")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_same_learner_gives_the_same_file(tmp_path: Path) -> None:
    """Digests of checkpoints can be compared; several metadata keys would come in no settled order."""
    found = Snapshot({"a": torch.zeros(2), "b": torch.ones(1)}, {"x": 1, "steps": 2})
    for copy in range(20):
        write(found, tmp_path / str(copy))
    assert len({(tmp_path / str(copy)).read_bytes() for copy in range(20)}) == 1
