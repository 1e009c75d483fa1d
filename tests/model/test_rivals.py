"""What forward propagation is timed against gives the right gradient too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from model import reference, truncated
from model.config import ModelConfig
from model.learner import Learner, Watched
from model.rivals import Credit, FullRtrl, Rival
from model.step_cost import floor_bytes, state_bytes, touched
from model.truncated import Truncated

STEPS, REACH, FEATURES = 11, 5, 6
CIRCUITS: dict[str, dict[str, Any]] = {
    "two-point": {},
    "modular": {"gates": "modular", "block": 4},
    "modular-2": {"gates": "modular", "block": 2, "cell": "paper", "retention": "one-minus-tanh"},
    "dense": {"gates": "dense"},
    "paper": {"gates": "dense", "cell": "paper"},
}
RIVALS: dict[str, tuple[Callable[[Learner], Credit], int, list[int]]] = {
    "stored": (partial(Truncated, reach=REACH), STEPS - 1 - REACH, [STEPS - 1]),
    "anew": (partial(Truncated, reach=REACH, anew=True), STEPS - 1 - REACH, [STEPS - 1]),
    "every": (partial(Truncated, reach=REACH, every=REACH), STEPS - 1 - REACH, list(range(STEPS - REACH, STEPS))),
    "rtrl": (FullRtrl, 0, [STEPS - 1]),
}
"""How it is made, the step its past begins with, and the losses of its last gradient."""


def config(rate: float = 0.0, **choices: Any) -> ModelConfig:
    """Every weight held, without a rate: the gradient is there and nothing moves."""
    rates = dict.fromkeys(("gates", "retention", "input", "predictor"), rate)
    return ModelConfig.preset(
        "default",
        units=8,
        embedding_size=12,
        retina={"features": FEATURES},
        predictor={"kind": "linear", "action": "none", "near": False, "place_memory": "off"},
        learning={"warmup": 0, "repeat_threshold": 0.0, "retraction": 0.0, "rates": rates},
        **choices,
    )


def walked(learner: Learner, paused: int = 0) -> list[torch.Tensor]:
    """The state before each of the steps, in the first of which nothing is learned."""
    random = torch.Generator().manual_seed(0)
    for weight in learner.network.weights.values():
        weight.copy_(torch.randn(weight.shape, generator=random, dtype=torch.float64) * 0.4)
    states = [learner.blank().state]
    for step in range(STEPS):
        learner.set_learning(step >= paused)
        learner.observe("a", torch.randn(FEATURES, generator=random, dtype=torch.float64))
        states.append(learner.own["a"].state.clone())
    return states


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_a_rival_s_gradient_is_the_reference_s(circuit: str, name: str) -> None:
    make, first, losses = RIVALS[name]
    rival = Rival(config(**CIRCUITS[circuit]), make, seed=0, dtype=torch.float64)
    walked(rival)
    learner = Learner(config(**CIRCUITS[circuit]), seed=0, dtype=torch.float64)
    window: list[Watched] = []
    learner.watch = window.append
    states = walked(learner)
    counts = [index in losses for index in range(first, STEPS)]
    with torch.enable_grad():
        truth = reference.bptt(learner.config, learner.all_weights(), states[first], window[first:], counts)
    assert set(rival.credit.gradient) == set(learner.network.propagation.columns)
    for weight, part in rival.credit.gradient.items():
        assert float((part - truth[weight]).norm()) < 1e-12 * float(truth[weight].norm()), weight


@pytest.mark.parametrize("circuit", ["two-point", "modular", "modular-2"])
def test_through_all_steps_as_they_were_made_it_learns_what_forward_propagation_does(circuit: str) -> None:
    chosen = config(rate=0.01, **CIRCUITS[circuit])
    rival = Rival(chosen, partial(Truncated, reach=STEPS), seed=0, dtype=torch.float64)
    learner = Learner(chosen, seed=0, dtype=torch.float64)
    held = Learner(config(**CIRCUITS[circuit]), seed=0, dtype=torch.float64)
    for each in (rival, learner, held):
        walked(each)
    for name, weight in learner.network.weights.items():
        torch.testing.assert_close(rival.network.weights[name], weight, rtol=0.0, atol=1e-10)
        assert name == "U" or float((weight - held.network.weights[name]).abs().max()) > 0.01


@pytest.mark.parametrize("units", [8, 16])
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_some_steps_at_once_are_derived_as_all_are(circuit: str, units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for at_once in (truncated.AT_ONCE, units):
        monkeypatch.setattr(truncated, "AT_ONCE", at_once)
        rival = Rival(config(**CIRCUITS[circuit]), RIVALS["anew"][0], seed=0, dtype=torch.float64)
        walked(rival)
        found.append(rival.credit.gradient)
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("paused", [4, 5, 8, STEPS - 1])
@pytest.mark.parametrize("name", ["stored", "anew"])
def test_a_pause_changes_nothing_of_the_way_back(name: str, paused: int) -> None:
    rivals = [Rival(config(), RIVALS[name][0], seed=0, dtype=torch.float64) for _ in range(2)]
    walked(rivals[0])
    walked(rivals[1], paused)
    torch.testing.assert_close(rivals[1].credit.gradient, rivals[0].credit.gradient, rtol=1e-12, atol=0.0)


def test_what_is_kept_grows_with_reach_for_one_and_not_for_the_other() -> None:
    chosen = config(**CIRCUITS["dense"])
    short, long = (Rival(chosen, partial(Truncated, reach=reach), seed=0) for reach in (10, 40))
    assert long.credit.state_bytes() == 4 * short.credit.state_bytes()
    learner = Learner(chosen, seed=0)
    before = state_bytes(learner)
    walked(learner)
    assert learner.own["a"].sensitivities.values.numel() * 4 == before == state_bytes(learner)


def test_the_floor_counts_every_matrix_of_a_step() -> None:
    learner = Learner(config(**CIRCUITS["dense"]), seed=0)
    n, m, q, reads = 8, FEATURES, 12, 13
    credited, predictor = 4 * n * n + 3 * n + n * m, q * reads
    numbers = 2 * 2 * credited  # S, read and written
    numbers += 3 * (credited + predictor) + 2 * q * 2 * n  # weights; U is fixed
    numbers += 2 * 2 * (credited + predictor)  # moments
    assert floor_bytes(learner) == 4 * numbers
    assert {part.name for part in touched(Learner(ModelConfig.preset(), seed=0))} >= {"S", "V", "U", "P", "R"}
