"""Recurrent forward propagation is back-propagation through time, wherever it says so; through the learner itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import reference
from model.config import ModelConfig
from model.rfp import is_exact
from tests.model.fidelity import TOLERANCE, observed, prepared, relative_errors, small, stream, wrong

EASY = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)

PREDICTORS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["linear", "mlp", "rls"]),
        "hidden": st.integers(3, 6),
        "activation": st.sampled_from(["tanh", "relu"]),
        "carry": st.booleans(),
        "residual": st.booleans(),
        "normalise": st.booleans(),
        "action": st.sampled_from(["gaze", "none"]),
        "near": st.booleans(),
        "place_memory": st.sampled_from(["off", "still", "moving"]),
        "action_head": st.booleans(),
    }
)


@st.composite
def exact_configs(draw: st.DrawFn) -> ModelConfig:
    """Any choice of everything that claims to be exact."""
    cell = draw(st.sampled_from(["paper", "bounded", "time-decay"]))
    gates = draw(st.sampled_from(["two-point", "modular"])) if cell != "time-decay" else "two-point"
    block = draw(st.integers(1, 4))
    # Not fewer than four: a lone unit may be saturated, and 1 - tanh^2 then has few digits left in any algorithm.
    units = block * draw(st.integers(-(-4 // block), 8 // block + 1)) if gates == "modular" else draw(st.integers(4, 9))
    components = 1 if cell == "time-decay" else 2
    return small(
        cell=cell,
        gates=gates,
        block=block,
        units=units,
        retention=draw(st.sampled_from(["tanh", "one-minus-tanh"])) if cell == "paper" else "tanh",
        embedding_size=draw(st.integers(2, units * components)),
        retina={"features": draw(st.integers(1, 8))},
        distance=draw(st.sampled_from(["half_mse", "cosine"])),
        predictor=draw(PREDICTORS),
    )


@EASY
@given(exact_configs(), st.integers(0, 10_000), st.integers(3, 10), st.sampled_from([None, None, 2]))
def test_rfp_is_bptt(config: ModelConfig, seed: int, steps: int, restart: int | None) -> None:
    assert is_exact(config)
    window = observed(config, seed=seed, steps=steps, restart=restart)
    truth = reference.bptt(config, window.weights, window.start, window.watched)
    learned = {name for name in window.weights if name != "P" or config.predictor.kind != "rls"}
    dead = {name for name in learned if not truth[name].norm() > 1e-12}
    assert set(window.gradient) == learned
    assert dead <= {"P_in", "A"}, "only dead hidden units or a missing gaze may leave a gradient at zero"
    assert wrong({name: window.gradient[name] for name in learned - dead}, truth) == []
    for name in dead:
        assert not window.gradient[name].norm() > 1e-12


CELLS: list[dict[str, Any]] = [
    {"cell": "paper"},
    {"cell": "paper", "retention": "one-minus-tanh"},
    {"cell": "paper", "gates": "modular", "block": 3},
    {"cell": "paper", "gates": "modular", "block": 2, "retention": "one-minus-tanh"},
    {"cell": "bounded"},
    {"cell": "bounded", "gates": "modular", "block": 3},
    {"cell": "time-decay", "embedding_size": 5},
]


@pytest.mark.parametrize("distance", ["half_mse", "cosine"])
@pytest.mark.parametrize("choices", CELLS, ids=lambda c: "-".join(map(str, c.values())))
def test_bptt_and_full_rtrl_agree_with_it(choices: dict[str, Any], distance: str) -> None:
    config = small(**choices, distance=distance)
    window = observed(config, seed=3, steps=8)
    backward = reference.bptt(config, window.weights, window.start, window.watched)
    forward = reference.rtrl(config, window.weights, window.start, window.watched)
    assert wrong(window.gradient, backward) == []
    assert wrong(window.gradient, forward) == []
    wanted = {"V", "U", "P"} | ({"decay"} if config.cell == "time-decay" else {"W_hh", "W_ch", "W_hc", "W_cc"})
    assert wanted <= set(window.gradient)


def test_truncated_bptt_reaches_as_far_as_it_is_told() -> None:
    config = small()
    window = observed(config, seed=4, steps=7)
    whole = reference.bptt(config, window.weights, window.start, window.watched)
    full = reference.truncated_bptt(config, window.weights, window.start, window.watched, 100)
    short = reference.truncated_bptt(config, window.weights, window.start, window.watched, 1)
    assert wrong(full, whole) == []
    assert relative_errors(short, whole)["V"] > 1e-3


def test_one_step_credit_is_truncation_to_one_step() -> None:
    config = small(learning={"credit": "one-step"})
    assert not is_exact(config)
    window = observed(config, seed=5, steps=6)
    short = reference.truncated_bptt(config, window.weights, window.start, window.watched, 1)
    assert wrong(window.gradient, short) == []


@pytest.mark.parametrize("retention", ["tanh", "one-minus-tanh"])
@pytest.mark.parametrize("distance", ["half_mse", "cosine"])
def test_dense_gates_are_exact_at_zero_weights_alone(retention: str, distance: str) -> None:
    config = small(cell="paper", gates="dense", retention=retention, distance=distance)
    assert not is_exact(config)
    at_zero = observed(config, seed=6, steps=8, gate_scale=0.0)
    truth = reference.bptt(config, at_zero.weights, at_zero.start, at_zero.watched)
    assert wrong(at_zero.gradient, truth) == []
    away = observed(config, seed=6, steps=8, gate_scale=0.5)
    truth = reference.bptt(config, away.weights, away.start, away.watched)
    errors = relative_errors(away.gradient, truth)
    assert all(errors[name] > 1e-3 for name in ("W_hh", "W_ch", "W_hc", "W_cc", "V"))
    assert errors["U"] < TOLERANCE
    assert errors["P"] < TOLERANCE


SCHEDULES: list[dict[str, Any]] = [
    {"update": "step", "warmup": 4 + 5},  # the first loss that counts is the fifth: those before had no gradient
    {"update": 3},
    {"update": "sequence"},
    {"update": 4, "losses": 2},
    {"update": "sequence", "losses": 3},
    {"update": "sequence", "losses": "sequence"},
]


@pytest.mark.parametrize("ended_by", ["length", "mark"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: "-".join(map(str, s.values())))
def test_an_update_is_one_step_down_bptts_gradient(schedule: dict[str, Any], ended_by: str) -> None:
    """From a sequence's start to its first update: weights move by -rate times the gradient, and not before."""
    rate, length = 0.05, 8
    rates = dict.fromkeys(("gates", "retention", "input", "embedding", "predictor", "action"), rate)
    learning = {"optimiser": "sgd", "retraction": 0.0, "sequence_length": length if ended_by == "length" else None}
    config = small(rates=rates, learning={**learning, **schedule}, predictor={"action_head": True})
    learner, rng = prepared(config, seed=7, gate_scale=0.5)
    learner.set_learning(True)
    before = learner.all_weights()
    watched: list[Any] = []
    learner.watch = watched.append
    kept = {"step": 6, "sequence": length}.get(schedule["update"]) or schedule["update"] + 1
    zs = stream(rng, length + 1, config.features)
    for index in range(kept):
        assert all(torch.equal(before[n], w) for n, w in learner.network.weights.items())
        outcome = learner.observe("s", zs[index], start=index == 0)
    if schedule["update"] == "sequence" and ended_by == "mark":
        assert outcome.update_norm == 0.0
        outcome = learner.observe("s", zs[length], start=True)
        watched.pop()
    losses = schedule.get("losses", "step")
    counts = [
        losses == "step" or (step.position == length - 1 if losses == "sequence" else step.position % losses == 0)
        for step in watched
    ]
    if schedule["update"] == "step":
        counts = [step.position == 5 for step in watched]
    start = torch.zeros_like(learner.own["s"].state)
    truth = reference.bptt(config, before, start, watched, counts)
    moved = {name: (before[name] - weight) / rate for name, weight in learner.network.weights.items() if name != "A"}
    assert wrong(moved, truth, 1e-9) == []
    assert outcome.update_norm == pytest.approx(rate * sum(float(g.norm()) ** 2 for g in truth.values()) ** 0.5)
