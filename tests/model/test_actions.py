"""Where the eye goes, as the predictor and the action head use it: each choice by its name and its inputs alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import place_memory
from model.action import ACTION_SIZE, action, nearness
from model.config import ModelConfig
from model.learner import Learner, Look, Watched
from tests.model import diagnosed, fidelity

Q, M = 7, 5
"""Sizes of :func:`tests.model.fidelity.small`."""
WIDTHS = {"y": Q, "action": ACTION_SIZE, "near": M, "place": M + 1, "one": 1}
OFF = {"action": "none", "near": False, "place_memory": "off", "action_head": False}


def chosen(action: bool, near: bool, memory: str) -> tuple[ModelConfig, list[str]]:
    """A model with these choices, and the parts that it reads, in order."""
    predictor = OFF | {"action": "gaze" if action else "none", "near": near, "place_memory": memory}
    parts = ["y", *["action"] * action, *["near"] * near, *["place"] * (memory != "off"), "one"]
    return fidelity.small(predictor=predictor), parts


def columns() -> dict[str, Tensor]:
    """A predictor's weights for each part, the same whoever reads it."""
    rng = np.random.default_rng(1)
    return {name: torch.from_numpy(rng.standard_normal((Q, width))) for name, width in WIDTHS.items()}


def watched(config: ModelConfig, parts: list[str], looks: list[Look | None]) -> tuple[Learner, list[Watched]]:
    """A learner of weights that all share, over the same features at these places; it does not learn."""
    learner, seen = Learner(config, seed=0, dtype=torch.float64), []
    fidelity.randomise(learner, np.random.default_rng(2), 0.5)
    learner.network.weights["P"].copy_(torch.cat([columns()[part] for part in parts], dim=1))
    learner.set_learning(False)
    learner.watch = seen.append
    for z, look in zip(fidelity.stream(np.random.default_rng(3), len(looks), M), looks, strict=True):
        learner.observe("s", z, look)
    return learner, seen


def predictions(seen: list[Watched]) -> list[Tensor]:
    return [step.made.attempt.predicted.p for step in seen if step.made is not None and step.made.attempt is not None]


def places(n: int, seed: int = 4) -> list[Look | None]:
    """Some of them again and again, so that there is something to remember."""
    rng = np.random.default_rng(seed)
    few = [Look((float(x), float(y))) for x, y in rng.random((4, 2))]
    return [few[int(index)] for index in rng.integers(0, 4, n)]


CHOICES = list(itertools.product([False, True], [False, True], ["off", "still", "moving"]))


@pytest.mark.parametrize(("acts", "near", "memory"), CHOICES)
def test_each_choice_adds_its_own_inputs_and_nothing_else(acts: bool, near: bool, memory: str) -> None:
    """p is that of a predictor that is told nothing, and each part's own columns times its own numbers."""
    looks = places(12)
    _, plain = watched(*chosen(False, False, "off"), looks)
    _, seen = watched(*chosen(acts, near, memory), looks)
    w, kept = columns(), place_memory.empty(M, torch.zeros(1, dtype=torch.float64))
    actions: list[Tensor] = []
    for t, (without, found) in enumerate(zip(predictions(plain), predictions(seen), strict=True), start=1):
        here, there, z = looks[t - 1], looks[t], seen[t - 1].z
        assert here is not None
        assert there is not None
        if memory != "off":
            kept = place_memory.write(kept, here, z, place_memory.DECAYS[memory])
        actions.append(action(here, there))
        wanted = without.clone()
        if acts:
            mean, variance = torch.stack(actions).mean(dim=0), _running_variance(actions)
            wanted += w["action"] @ ((actions[-1] - mean) / (variance + 1e-4).sqrt())
        if near:
            wanted += w["near"] @ (z * nearness(here, there))
        if memory != "off":
            wanted += w["place"] @ place_memory.read(kept, there)
        assert torch.allclose(found, wanted, atol=1e-11, rtol=1e-11), t
        moved = (acts and t > 1, near and nearness(here, there) > 1e-6, memory != "off" and t > 3)
        assert not any(moved) or not torch.allclose(found, without, atol=1e-9), "the part was not read at all"


def _running_variance(values: list[Tensor]) -> Tensor:
    """By deviations from the mean before each."""
    mean, variance = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for count, value in enumerate(values, start=1):
        variance = variance + ((value - mean) ** 2 - variance) / count
        mean = mean + (value - mean) / count
    return variance


@pytest.mark.parametrize(("acts", "near", "memory"), CHOICES)
def test_without_gaze_each_choice_is_silent(acts: bool, near: bool, memory: str) -> None:
    _, plain = watched(*chosen(False, False, "off"), [None] * 8)
    _, seen = watched(*chosen(acts, near, memory), [None] * 8)
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(predictions(plain), predictions(seen), strict=True))


def last_of(acts: bool, near: bool, memory: str, last: Look, looks: list[Look | None]) -> Tensor:
    """The last prediction where the eye goes to ``last``."""
    return predictions(watched(*chosen(acts, near, memory), [*looks, last])[1])[-1]


def test_what_each_choice_can_tell_apart() -> None:
    """Two places as far off (near), never seen (place), and any two at all (action)."""
    looks: list[Look | None] = [Look((0.5, 0.5))] * 6
    left, right = Look((0.45, 0.5)), Look((0.55, 0.5))
    far, farther = Look((0.02, 0.05)), Look((0.98, 0.95))

    def alike(one: Look, other: Look, *choice: Any) -> bool:
        return torch.allclose(last_of(*choice, one, looks), last_of(*choice, other, looks), atol=1e-9)

    assert alike(left, farther, False, False, "off")
    assert not alike(left, right, True, False, "off")
    assert alike(left, right, False, True, "off")
    assert not alike(left, farther, False, True, "off")
    assert alike(far, farther, False, False, "still")
    assert not alike(left, farther, False, False, "still")
    still, moving = (last_of(False, False, name, left, looks) for name in ("still", "moving"))
    assert not torch.allclose(still, moving, atol=1e-9)


def test_the_action_head_leaves_the_prediction_alone() -> None:
    looks = places(10)
    for choice in CHOICES:
        config, parts = chosen(*choice)
        headed = ModelConfig.parse(
            config.model_dump() | {"predictor": config.predictor.model_dump() | {"action_head": True}}
        )
        learner, seen = watched(headed, parts, looks)
        # Weights are drawn in order, A last: all others are the same.
        plain = watched(config, parts, looks)[1]
        assert "A" in learner.network.weights
        assert all(torch.equal(a, b) for a, b in zip(predictions(plain), predictions(seen), strict=True))
        assert all(step.aim is not None for step in seen[1:])
        assert all(step.aim is None or choice[0] for step in plain)


def test_the_action_head_learns_where_the_eye_goes_where_that_can_be_known() -> None:
    """The eye goes round four places, each with its picture; the same places in any order can't be known."""
    few = [Look((0.2, 0.2)), Look((0.8, 0.3)), Look((0.7, 0.8)), Look((0.3, 0.7))]
    rng = np.random.default_rng(6)
    pictures = rng.standard_normal((4, diagnosed.M))

    def errors(order: np.ndarray) -> list[float]:
        config = diagnosed.small(predictor={"action_head": True}, learning={"repeat_threshold": 0.0})
        learner, found = Learner(config, seed=0), []
        for place in order:
            z = pictures[place] + 0.3 * rng.standard_normal(diagnosed.M)
            error = learner.observe("a", z, few[place]).action_error
            if error is not None:
                found.append(error)
        return [float(np.mean(found[first : first + 200])) for first in (10, 1000)]

    early, late = errors(np.arange(1200) % 4)
    assert late < 0.1 * early
    assert late < 0.05, "half a mean square of normalised saccades is 0.5 where nothing is known"
    _, unknown = errors(rng.integers(0, 4, 1200))
    assert unknown > 0.2
