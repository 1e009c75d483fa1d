"""Several sequences in one update: forward propagation beside back-propagation through time, and against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model import reference
from model.config import ModelConfig
from model.learner import Learner, Watched
from model.parameters import GROUPS
from model.side_by_side import Examiner, Gradient, SideBySide
from tests.model.fidelity import TOLERANCE, randomise, wrong
from tests.model.offline import LENGTH, learns, sequences

EXACT: dict[str, dict[str, Any]] = {
    "default": {"predictor": {"kind": "rls"}},
    "linear": {},
    "modular": {"gates": "modular", "block": 2},
    "paper cell, mlp": {
        "cell": "paper",
        "predictor": {"kind": "mlp", "hidden": 4, "activation": "tanh", "carry": False, "residual": True},
    },
    "head, cosine": {"distance": "cosine", "predictor": {"action_head": True}},
    "every third loss": {"learning": {"losses": 3}},
    "the last loss": {"learning": {"losses": "sequence"}},
    "time decay": {"cell": "time-decay", "embedding_size": 6},
}


def learning(config: ModelConfig, gradient: Gradient, *, seed: int = 3) -> SideBySide:
    """Random weights, none at its start, and statistics that have seen something."""
    made = SideBySide(config, gradient=gradient, seed=seed, dtype=torch.float64)
    randomise(made.learner, np.random.default_rng(seed), 0.5)
    made.take(sequences(9, 3), learning=False)
    return made


def state_of(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in learner.snapshot().tensors.items() if name != "generator"}


@pytest.mark.parametrize("choices", EXACT.values(), ids=EXACT)
def test_forward_propagation_changes_what_bptt_changes(choices: dict[str, Any]) -> None:
    config = learns(**choices)
    both = {gradient: learning(config, gradient) for gradient in ("rfp", "bptt")}
    before = state_of(both["rfp"].learner)
    for made in both.values():
        for first in (0, 4, 8):
            made.take(sequences()[first : first + 4], learning=True)
    found, truth = (state_of(made.learner) for made in both.values())
    for name in found:
        distance = float((found[name] - truth[name]).norm())
        assert distance <= TOLERANCE * (1.0 + float(truth[name].norm())), name
    for name in both["rfp"].learner.parameters.learned:
        moved = found[f"parameters/{name}"] - before[f"parameters/{name}"]
        assert float(moved.norm()) > 1e-4, f"{name} did not move: nothing was tested"


@pytest.mark.parametrize("gradient", ["rfp", "bptt"])
@pytest.mark.parametrize("choices", EXACT.values(), ids=EXACT)
def test_the_change_is_the_mean_of_the_oracles_gradients(
    choices: dict[str, Any], gradient: Gradient, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = learns(**{**choices, "predictor": {**choices.get("predictor", {}), "kind": "linear"}})
    if choices.get("predictor", {}).get("kind") == "mlp":
        config = learns(**choices)
    made = learning(config, gradient)
    learner, watched = made.learner, {f"row-{number}": [] for number in range(3)}
    inner = learner.watch

    def watch(seen: Watched) -> None:
        watched[seen.stream].append(seen)
        if inner is not None:
            inner(seen)

    learner.watch = watch
    weights = learner.all_weights()
    changes: list[Tensor] = []
    monkeypatch.setattr(type(learner), "change", lambda self, gradient: changes.append(gradient))
    made.take(sequences()[:3], learning=True)
    blank = learner.blank().state
    truth: dict[str, Tensor] = {}
    for window in watched.values():
        counts = _counted(config, len(window))
        found = reference.bptt(learner.config, weights, blank, window, counts)
        truth = {name: truth.get(name, 0.0) + part / 3 for name, part in found.items()}
    (change,) = changes
    assert wrong(learner.parameters.split(change), truth) == []


def _counted(config: ModelConfig, steps: int) -> list[bool]:
    losses = config.learning.losses
    if losses == "sequence":
        return [t + 1 == steps for t in range(steps)]
    return [losses == "step" or t % int(losses) == 0 for t in range(steps)]


def test_dense_gates_forward_are_an_approximation_and_bptt_is_not() -> None:
    config = learns(gates="dense")
    found, truth = (learning(config, gradient) for gradient in ("rfp", "bptt"))
    vectors = []
    for made in (found, truth):
        made.learner.change = vectors.append  # type: ignore[method-assign, assignment]
        made.take(sequences()[:2], learning=True)
    distance = float((vectors[0] - vectors[1]).norm() / vectors[1].norm())
    assert distance > 1e-3


def test_a_group_of_one_is_the_learner_updated_at_a_sequences_end() -> None:
    config = learns(predictor={"kind": "rls"}, learning={"update": "sequence", "sequence_length": LENGTH})
    made = SideBySide(config, gradient="rfp", seed=0, dtype=torch.float64)
    alone = Learner(config, seed=0, dtype=torch.float64)
    for sequence in sequences():
        made.take([sequence], learning=True)
        for t, z in enumerate(sequence.z):
            alone.observe("one", z, sequence.looks[t], start=t == 0, marked=True)
        alone.forget("one")
    found, truth = state_of(made.learner), state_of(alone)
    assert all(torch.equal(found[name], truth[name]) for name in truth)


def test_a_group_is_its_sequences_one_after_the_other_but_for_the_shared_statistics() -> None:
    """With nothing that a sequence leaves for the next, the mean over four alone is the group's."""
    choices = {"predictor": {"normalise": False, "carry": False, "action": "none", "near": False}}
    config = learns(**choices)
    group = sequences()[:4]
    together: list[Tensor] = []
    made = learning(config, "rfp")
    made.learner.change = together.append  # type: ignore[method-assign, assignment]
    made.take(group, learning=True)
    alone: list[Tensor] = []
    other = learning(config, "rfp")
    other.learner.change = alone.append  # type: ignore[method-assign, assignment]
    for sequence in group:
        other.take([sequence], learning=True)
    torch.testing.assert_close(together[0], torch.stack(alone).mean(dim=0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gradient", ["rfp", "bptt"])
def test_a_step_that_is_not_finite_loses_its_sequence_so_far_and_no_more(gradient: Gradient) -> None:
    made = learning(learns(), gradient)
    group = sequences()[:3]
    broken = group[1].z.copy()
    broken[4] = np.nan
    group[1] = group[1]._replace(z=broken)
    outcomes = made.take(group, learning=True)
    assert [one.skipped for one in outcomes].count("refused") == 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in made.learner.all_weights().values())
    other = learning(learns(), "bptt" if gradient == "rfp" else "rfp")
    other.take(group, learning=True)
    for name, weight in made.learner.all_weights().items():
        torch.testing.assert_close(weight, other.learner.all_weights()[name], rtol=1e-9, atol=1e-12)


def test_a_mean_that_is_not_finite_changes_nothing_and_is_counted() -> None:
    made = learning(learns(), "bptt")
    before = made.learner.all_weights()
    made.mean_gradient = lambda names: torch.full_like(made.learner.parameters.flat, torch.nan)  # type: ignore[method-assign]
    made.take(sequences()[:2], learning=True)
    assert made.refused_updates == 1
    assert all(torch.equal(weight, before[name]) for name, weight in made.learner.all_weights().items())


def test_what_is_learned_is_loaded_by_the_learner_it_is_for() -> None:
    config = ModelConfig.preset("default", units=6, embedding_size=12, retina={"features": 5})
    made = SideBySide(config, gradient="bptt", seed=1)
    made.take(sequences()[:4], learning=False)
    made.take(sequences()[:4], learning=True)
    live = Learner(config, seed=0)
    live.load(made.snapshot())
    assert live.learning
    assert live.streams() == []
    assert all(torch.equal(live.all_weights()[name], w) for name, w in made.learner.all_weights().items())
    assert live.observe("live", np.ones(5), start=True).position == 0


@pytest.mark.parametrize("kind", ["rls", "mlp"])
def test_examining_changes_nothing_and_depends_on_no_order(kind: str) -> None:
    config = learns(predictor={"kind": kind})
    made = learning(config, "rfp")
    made.take(sequences()[:4], learning=True)
    snapshot, before = made.snapshot(), state_of(made.learner)
    examiner = Examiner(config, dtype=torch.float64)
    held = sequences(5, 4)
    once = list(examiner.examine(snapshot, held))
    left = {name: tensor for name, tensor in state_of(examiner).items() if "/rank/" not in name}
    assert all(torch.equal(tensor, snapshot.tensors[name]) for name, tensor in left.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(made.learner).items())
    told = examiner.snapshot().meta
    moved = {key for key, value in told.items() if value != snapshot.meta[key]}
    assert moved <= {"config", "learning", "rank_count"}
    again = list(examiner.examine(snapshot, held[::-1]))[::-1]
    for one, other in zip(once, again, strict=True):
        assert [found.prediction_error for found in one] == [found.prediction_error for found in other]
        assert [found.trivial for found in one] == [found.trivial for found in other]
    predicted = [found for found in once[0] if found.prediction_error is not None]
    assert len(predicted) == LENGTH - 1
    assert all(value is not None for found in predicted for value in found.trivial.values())


def test_bptt_carries_nothing_forward() -> None:
    made = learning(learns(), "bptt")
    seen: list[Watched] = []
    inner = made.learner.watch
    made.learner.watch = lambda step: (seen.append(step), inner(step))  # type: ignore[misc, func-returns-value]
    made.take(sequences()[:1], learning=True)
    assert all(not bool(step.made.own.sensitivities.values.any()) for step in seen if step.made is not None)
    credited = [n for n in made.learner.parameters.learned if GROUPS[n] in ("gates", "retention", "input")]
    last = seen[-1].gradient
    assert last is not None
    assert all(not bool(last[name].any()) for name in credited)
