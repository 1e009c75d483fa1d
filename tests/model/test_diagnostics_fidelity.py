"""The gradient against back-propagation through time, as it is told while a learner learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from model import fidelity
from model.fidelity import BLOCK, STEPS, FidelityWindow, compare
from model.learner import Learner
from model.rfp import Propagation
from tests.model.adversarial import ordinary
from tests.model.diagnosed import Diagnosed, M, begun, looks, noise, small, turning

STILL = {"gates": 0.0, "retention": 0.0, "input": 0.0}
"""Rates of weights that are credited and never move."""


def shaken(found: Diagnosed, scale: float) -> Diagnosed:
    """No gate at its start of zero."""
    rng = np.random.default_rng(8)
    for name, weight in found.learner.network.weights.items():
        if name.startswith("W_"):
            spread = scale / (M**0.5 if found.learner.config.gates == "dense" else 1.0)
            weight.copy_(torch.from_numpy(spread * rng.standard_normal(weight.shape)))
    return found


def driven(found: Diagnosed, n: int, *, restart: int | None = None) -> dict[str, Any]:
    for t, (z, look) in enumerate(zip(turning(n, 0.6), looks(n), strict=True)):
        found.feed(z, look=look, start=t == restart)
    return found.diagnostics.gradient("a")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gates", ["two-point", "modular"])
def test_what_claims_to_be_exact_is(gates: str, dtype: torch.dtype) -> None:
    found = shaken(begun(small(gates=gates, block=2), dtype=dtype), 0.5)
    told = driven(found, 270)
    assert told["rfp_exact"]
    assert told["exactness"]["relative_error"] < 1e-10
    assert told["exactness"]["cosine"] == pytest.approx(1.0, abs=1e-12)
    assert 2 * BLOCK <= told["window"] <= 3 * BLOCK


@pytest.mark.parametrize("choices", [{"gates": "dense"}, {"learning": {"credit": "one-step"}}], ids=str)
def test_what_is_an_approximation_is_seen_to_be_one(choices: dict[str, Any]) -> None:
    told = driven(shaken(begun(small(**choices)), 0.9), 330)
    assert not told["rfp_exact"]
    assert told["exactness"]["cosine"] < 0.99
    assert told["exactness"]["relative_error"] > 0.1


def test_dense_gates_of_zero_are_exact() -> None:
    found = begun(small(gates="dense", learning={"rates": STILL}), dtype=torch.float64)
    assert driven(found, 200)["exactness"]["relative_error"] < 1e-10


@pytest.mark.parametrize("restart", [None, 205])
def test_live_is_exact_where_no_weight_moves(restart: int | None) -> None:
    """Then what is left of the past before the ring is all that differs; nothing where a sequence began in it."""
    found = shaken(begun(small(learning={"rates": STILL}), dtype=torch.float64), 0.5)
    for z, look in zip(turning(130, 0.6, seed=4), looks(130, seed=4), strict=True):  # P is learned
        found.feed(z, look=look)
    found.learner.set_learning(False)
    told = driven(found, 350, restart=restart)
    assert told["live"]["relative_error"] < (1e-12 if restart else 1e-2)
    assert told["credit"]["relative_error"] == pytest.approx(told["live"]["relative_error"], abs=1e-10)
    assert told["exactness"]["relative_error"] < 1e-10


def test_credit_is_free_of_what_the_predictor_learned_since() -> None:
    """More inputs than fixations: fitted to every one of them, it has no errors left where it had some."""
    found = begun()
    for z, look in zip(noise(140), looks(140), strict=True):
        found.feed(z, look=look)
    told = found.diagnostics.gradient("a")
    assert told["live"]["cosine"] < 0.9
    assert told["credit"]["cosine"] > 0.99
    assert not found.diagnostics.warnings("a")


def test_live_shows_weights_that_ran() -> None:
    calm = driven(begun(), 350)
    wild = begun(small(learning={"rates": {"gates": 0.1, "retention": 0.3}}))
    assert calm["live"]["cosine"] > 0.9
    assert calm["credit"]["cosine"] > 0.99
    assert driven(wild, 350)["live"]["cosine"] < 0.5
    assert "gradient_lost" in [each.kind for each in wild.diagnostics.warnings("a")]


def test_an_error_in_the_credit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Propagation.advance

    def wrong(self: Propagation, sensitivities: Any, jacobian: Any, drives: Any) -> Any:
        return right(self, sensitivities, None if jacobian is None else jacobian * 1.01, drives)

    monkeypatch.setattr(Propagation, "advance", wrong)
    assert driven(begun(), 250)["exactness"]["relative_error"] > 1e-3


@pytest.mark.parametrize("gates", ["two-point", "modular", "dense"])
def test_the_way_back_holds_each_weight_once_however_long(gates: str) -> None:
    found = begun(small(gates=gates, block=2))
    driven(found, 120)
    learner = found.learner
    kept = found.diagnostics.moment("a")._gradients["a"].kept("a")
    assert kept is not None
    for algorithm in (fidelity.backward, fidelity.backward_of_errors):
        held = held_whole(algorithm, learner, kept)
        assert 4 <= held <= 4 + len(learner.network.weights), algorithm


def held_whole(algorithm: Callable[[Learner, fidelity.Kept], Any], learner: Learner, kept: fidelity.Kept) -> int:
    """How many tensors of n x n numbers or more its graph holds."""
    held: set[int] = set()

    def hold(saved: torch.Tensor) -> torch.Tensor:
        if saved.numel() >= learner.config.units**2:
            held.add(saved.untyped_storage().data_ptr())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda saved: saved):
        algorithm(learner, kept)
    return len(held)


def test_nothing_is_told_before_there_is_a_gradient() -> None:
    found = begun()
    nothing = {"cosine": None, "relative_error": None}
    for stream in (None, "a", "unknown"):
        told = found.diagnostics.gradient(stream)
        assert told["window"] == 0
        assert told["exactness"] == told["live"] == told["credit"] == nothing
    assert driven(found, 90)["window"] == 0
    frozen = begun(small(learning={"rates": dict.fromkeys(STILL)}))
    assert driven(frozen, 150)["live"] == nothing


def test_streams_are_summed() -> None:
    found = begun()
    for z in noise(220):
        found.feed(z, "a")
        found.feed(-z, "b")
    both = found.diagnostics.gradient()
    assert both["streams"] == ["a", "b"]
    assert both["window"] == sum(found.diagnostics.gradient(name)["window"] for name in "ab")
    assert both["exactness"]["relative_error"] < 1e-6


def test_the_window_holds_the_last_blocks() -> None:
    found = begun(small(learning={"warmup": 0}))
    windows = {}
    for t, z in enumerate(noise(STEPS + 2 * BLOCK)):
        found.feed(z)
        if t + 1 in (2, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 1, STEPS + BLOCK):
            windows[t + 1] = sum(sum(kept.counts) for kept in found.diagnostics.moment("a")._kept()[1])
    assert windows == {
        2: 1,
        BLOCK: BLOCK - 1,
        BLOCK + 1: BLOCK,
        3 * BLOCK: 3 * BLOCK - 1,
        3 * BLOCK + 1: 2 * BLOCK + 1,
        STEPS + BLOCK: 3 * BLOCK,
    }


def test_a_window_goes_on_with_the_same_bits() -> None:
    found = begun()
    for z in noise(300):
        found.feed(z)
    window = found.diagnostics._streams["a"].gradient
    copy = FidelityWindow(found.learner)
    copy.unpack(*window.pack())
    one, other = window.kept("a"), copy.kept("a")
    assert one is not None
    assert other is not None
    assert torch.equal(one.live, other.live)
    assert one.counts == other.counts
    assert all(
        torch.equal(a.told, b.told) and a.position == b.position for a, b in zip(one.window, other.window, strict=True)
    )


def test_compare() -> None:
    assert compare(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) == pytest.approx((0.5**0.5, 0.5**0.5))
    assert compare(torch.ones(2), torch.zeros(2)) == (None, None)
    assert compare(torch.zeros(2), torch.ones(2)) == (0.0, 1.0)
    assert compare(torch.ones(2), torch.tensor([float("nan"), 1.0])) == (0.0, None)
    assert compare(torch.ones(2), torch.full((2,), 1e300, dtype=torch.float64)) == pytest.approx((1.0, 1.0))


def dense(rate: float | None) -> Diagnosed:
    rates = {} if rate is None else {"learning": {"rates": {"gates": rate}}}
    return begun(small(gates="dense", units=32, embedding_size=64, **rates))


def test_dense_gates_that_learn_too_fast_are_warned_of_and_at_their_own_rate_are_not() -> None:
    """1e-3 is too fast for them within 2,000 fixations; 3e-5, which they have unless another is given, is not."""
    usual, warned = ordinary(2000, M), 0
    fast, slow = dense(1e-3), dense(None)
    assert slow.learner.rates["gates"] == 3e-5
    for t, (z, look) in enumerate(usual, start=1):
        fast.feed(z, look=look)
        if t % 250 == 0 and [w.kind for w in fast.diagnostics.warnings("a") if w.kind.startswith("gradient_")]:
            warned = t
            break
    assert 0 < warned <= 2000
    for z, look in usual[: max(warned, 700)]:
        slow.feed(z, look=look)
    assert not [w for w in slow.diagnostics.warnings("a") if w.kind.startswith("gradient_")]
    told = slow.diagnostics.gradient("a")
    assert told["live"]["cosine"] > 0.95
    assert not told["rfp_exact"]
