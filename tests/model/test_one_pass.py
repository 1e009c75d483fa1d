"""The dense step in one pass: what the step by its parts gives, in place, and refusing what that refuses."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model import one_pass_compiled
from model.config import ModelConfig
from model.errors import ModelError
from model.learner import Learner, Outcome, Watched
from model.rfp import Sensitivities
from model.snapshot import Snapshot

WAYS = ("torch", "compiled")
FEATURES = 7
CHOICES: dict[str, dict[str, Any]] = {
    "bounded": {},
    "paper": {"cell": "paper"},
    "one-minus-tanh": {"cell": "paper", "retention": "one-minus-tanh"},
    "sgd": {"learning": {"optimiser": "sgd", "rates": {"gates": 1e-2}}},
    "cut": {"sensitivity_limit": 1.5},
    "input fixed": {"learning": {"rates": {"input": None}}},
    "input alone": {"learning": {"rates": {"gates": None, "retention": None}}},
    "all learned": {"predictor": {"kind": "linear"}, "learning": {"rates": {"embedding": 1e-3}}},
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
"""Relative to the largest number of a tensor; what differs is the order of rounding."""


def config(way: str, **choices: Any) -> ModelConfig:
    learning = {"warmup": 3, "retraction_every": 4, **choices.pop("learning", {})}
    sizes = {"units": 10, "embedding_size": 12, "retina": {"features": FEATURES}}
    return ModelConfig.preset("default", **sizes | choices, gates="dense", dense_step=way, learning=learning)


def features(seed: int = 0) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(FEATURES, generator=random, dtype=torch.float64)


def walk(learner: Learner, steps: int, seed: int = 0, starts: int = 17) -> list[Outcome]:
    z = features(seed)
    return [learner.observe("a", next(z), start=index % starts == 0) for index in range(steps)]


def by_parts(dtype: torch.dtype = torch.float32, **choices: Any) -> Learner:
    """The same learner, step by step as other gates have it."""
    learner = Learner(config("torch", **choices), seed=0, dtype=dtype)
    learner.network.one_pass = None
    return learner


def same(one: Snapshot, other: Snapshot) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("way", WAYS)
def test_it_gives_what_the_step_by_its_parts_gives(way: str, name: str, dtype: torch.dtype) -> None:
    plain = by_parts(dtype, **CHOICES[name])
    passed = Learner(config(way, **CHOICES[name]), seed=0, dtype=dtype)
    assert passed.network.one_pass is not None
    begun = passed.snapshot().tensors
    outcomes = zip(walk(plain, 40), walk(passed, 40), strict=True)
    truth, found = plain.snapshot().tensors, passed.snapshot().tensors
    for key, tensor in truth.items():
        scale = float(tensor.to(torch.float64).abs().max()) or 1.0
        assert float((found[key] - tensor).abs().max()) <= TOLERANCE[dtype] * scale, key
    learned = [name for name in plain.parameters.learned if name in plain.network.propagation.columns]
    assert all(not torch.equal(begun[f"parameters/{name}"], found[f"parameters/{name}"]) for name in learned)
    assert passed.cut_units == plain.cut_units
    assert (plain.cut_units > 0) == (name == "cut")
    for one, other in outcomes:
        assert other.update_norm == pytest.approx(one.update_norm, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_restored_it_goes_on_with_the_same_bits(way: str) -> None:
    learner = Learner(config(way), seed=0)
    walk(learner, 25)
    other = Learner(config(way), seed=1)
    other.load(learner.snapshot())
    for each in (learner, other):
        walk(each, 25, seed=2)
    assert same(learner.snapshot(), other.snapshot())


@pytest.mark.parametrize("units", [10, 200])
@pytest.mark.parametrize("way", WAYS)
def test_begun_anew_before_every_step_it_has_the_same_bits(way: str, units: int) -> None:
    whole, parts = Learner(config(way, units=units), seed=0), Learner(config(way, units=units), seed=0)
    z = features()
    for step in range(30):
        stream, seen = "aab"[step % 3], next(z)
        again = Learner(config(way, units=units), seed=1)
        again.load(parts.snapshot())
        parts = again
        one, other = whole.observe(stream, seen), parts.observe(stream, seen)
        assert one.prediction_error == other.prediction_error
    assert same(whole.snapshot(), parts.snapshot())
    assert whole.own["a"].position == 20


@pytest.mark.parametrize("way", WAYS)
def test_to_be_watched_changes_no_bit_and_shows_the_gradient(way: str) -> None:
    seen: list[Watched] = []
    shown: list[Watched] = []
    watched, alone, plain = Learner(config(way), seed=0), Learner(config(way), seed=0), by_parts()
    watched.watch, plain.watch = seen.append, shown.append
    for learner in (watched, alone, plain):
        walk(learner, 30)
    assert same(watched.snapshot(), alone.snapshot())
    assert seen[-1].gradient is not None
    assert shown[-1].gradient is not None
    for name, part in shown[-1].gradient.items():
        torch.testing.assert_close(seen[-1].gradient[name], part, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cores", [2, 3])
def test_compiled_it_has_the_same_bits_with_any_number_of_cores(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = []
    for some in (1, cores):
        monkeypatch.setattr(one_pass_compiled, "cores", lambda some=some: some)
        walked.append(Learner(config("compiled", units=200), seed=0))
        walk(walked[-1], 12)
    assert same(walked[0].snapshot(), walked[1].snapshot())


@pytest.mark.parametrize("way", WAYS)
def test_it_works_where_the_numbers_lie(way: str) -> None:
    learner = Learner(config(way), seed=0)
    walk(learner, 5)
    flat, values, before = (
        learner.parameters.flat, learner.own["a"].sensitivities.values, learner.parameters.flat.clone()
    )  # fmt: skip
    z = features(1)
    for _ in range(12):
        learner.observe("a", next(z))
        assert learner.own["a"].sensitivities.values is values
    assert learner.parameters.flat is flat
    assert not torch.equal(flat, before)


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_that_is_not_finite_is_refused_before_anything_changes(way: str) -> None:
    learner = Learner(config(way), seed=0)
    walk(learner, 20)
    own = learner.own["a"]
    spoiled = own.sensitivities.values.clone()
    spoiled[0, 0, 0] = math.inf
    learner.own["a"] = replace(own, sensitivities=Sensitivities(spoiled))
    before = learner.parameters.flat.clone()
    outcome = learner.observe("a", torch.full((FEATURES,), 0.5))
    assert (outcome.skipped, outcome.reason) == ("refused", "the gradient is not finite")
    assert torch.equal(learner.parameters.flat, before)
    assert not learner.own["a"].sensitivities.values.any()


@pytest.mark.parametrize("within", [None, 1e30])
@pytest.mark.parametrize("way", WAYS)
def test_a_bound_that_settles_nothing_costs_a_look_and_no_bit(way: str, within: float | None) -> None:
    """1e30 squared is more than float32 holds."""
    sure, unsure = Learner(config(way), seed=0), Learner(config(way), seed=0)
    for learner in (sure, unsure):
        walk(learner, 20)
    own = unsure.own["a"]
    unsure.own["a"] = replace(own, sensitivities=Sensitivities(own.sensitivities.values, within))
    for learner in (sure, unsure):
        assert learner.observe("a", torch.full((FEATURES,), 0.5)).skipped is None
    assert same(sure.snapshot(), unsure.snapshot())


@pytest.mark.parametrize("way", WAYS)
def test_paused_it_carries_credit_on_and_learns_nothing(way: str) -> None:
    plain = by_parts()
    learner = Learner(config(way), seed=0)
    for each in (plain, learner):
        walk(each, 20)
        each.set_learning(False)
        walk(each, 10, seed=1)
    assert float((learner.parameters.flat - plain.parameters.flat).abs().max()) < 1e-5
    truth = plain.own["a"].sensitivities.values
    torch.testing.assert_close(learner.own["a"].sensitivities.values, truth, rtol=1e-3, atol=1e-4)


def test_only_dense_gates_that_learn_at_every_step_pass_so() -> None:
    assert Learner(config("torch"), seed=0).network.one_pass is not None
    for learning in ({"update": "sequence", "sequence_length": 5}, {"losses": 2}, {"credit": "one-step"}):
        assert Learner(config("torch", learning=learning), seed=0).network.one_pass is None
    fixed = {"rates": {"gates": None, "retention": None, "input": None}}
    assert Learner(config("torch", learning=fixed), seed=0).network.one_pass is None
    with pytest.raises(ModelError, match="dense_step 'compiled' is for gates dense, not for two-point"):
        ModelConfig.preset("default", dense_step="compiled")


def test_without_numba_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(one_pass_compiled, "_made", one_pass_compiled._make)  # whatever was compiled before
    with pytest.raises(ModelError, match=r"pip install 'rjepa\[fast\]'"):
        Learner(config("compiled"), seed=0)


def test_the_choice_is_named_only_where_it_was_made() -> None:
    for way in WAYS:
        dumped = config(way).model_dump(mode="json")
        assert ("dense_step" in dumped) == (way == "compiled")
        assert ModelConfig.parse(dumped) == config(way)
    assert "dense_step" not in ModelConfig.preset().model_dump()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_card_it_gives_what_it_gives_on_the_cpu() -> None:
    here, there = Learner(config("torch"), seed=0), Learner(config("torch"), seed=0, device="cuda")
    for learner in (here, there):
        walk(learner, 40)
    torch.testing.assert_close(there.parameters.flat.cpu(), here.parameters.flat, rtol=1e-3, atol=1e-5)
    with pytest.raises(ModelError, match="is for the CPU, not for cuda"):
        Learner(config("compiled"), seed=0, device="cuda")
