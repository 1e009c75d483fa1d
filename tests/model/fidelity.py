"""Holds the learner as it ships against the reference algorithms, and names the term that is wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model import reference
from model.config import ModelConfig
from model.learner import Learner, Look, Watched
from model.snapshot import Snapshot

TOLERANCE = 1e-10
"""Relative to the norm of the gradient it is held against; float64."""

LEARN_ALL = {"gates": 0.0, "retention": 0.0, "input": 0.0, "embedding": 0.0, "action": 0.0}


class Window(NamedTuple):
    learner: Learner
    start: Tensor
    """The state before the window."""
    weights: dict[str, Tensor]
    watched: list[Watched]
    gradient: dict[str, Tensor]
    """What the learner's steps used, summed by name."""


def small(**choices: Any) -> ModelConfig:
    """A small model that learns everything there is to learn; ``choices`` as of the preset ``default``."""
    predictor = {"kind": "linear", **choices.pop("predictor", {})}
    rates = {**LEARN_ALL, **choices.pop("rates", {})}
    if predictor["kind"] != "rls":
        rates.setdefault("predictor", 0.0)
    learning = {"warmup": 0, "repeat_threshold": 0.0, "rates": rates, **choices.pop("learning", {})}
    sizes = {"units": 6, "embedding_size": 7, "retina": {"features": 5}}
    return ModelConfig.preset("default", **{**sizes, "predictor": predictor, "learning": learning, **choices})


def randomise(learner: Learner, rng: np.random.Generator, gate_scale: float) -> None:
    """No weight at its start, so that no term of a gradient is zero by accident."""
    units = learner.config.units
    for name, weight in learner.network.weights.items():
        scale = gate_scale / (units**0.5 if learner.config.gates == "dense" else 1.0) if name.startswith("W_") else 0.6
        weight.copy_(torch.from_numpy(scale * rng.standard_normal(weight.shape)))
    if learner.network.rls is not None:
        learner.network.rls.weights.copy_(
            torch.from_numpy(0.3 * rng.standard_normal(learner.network.rls.weights.shape))
        )


def gaze(rng: np.random.Generator) -> Look | None:
    """A look somewhere; now and then none, or one in degrees."""
    kind = rng.random()
    place = (float(rng.random()), float(rng.random()))
    if kind < 0.1:
        return None
    return (
        Look(place, gaze_deg=(28.0 * place[0], 15.0 * place[1])) if kind < 0.3 else Look(place, frame_deg=(32.0, 25.0))
    )


def stream(rng: np.random.Generator, steps: int, features: int) -> np.ndarray[Any, Any]:
    """Autocorrelated features, steps x features."""
    z = rng.standard_normal((steps, features))
    for step in range(1, steps):
        z[step] = 0.7 * z[step - 1] + 0.7 * z[step]
    return z


def without_credit(snapshot: Snapshot) -> Snapshot:
    """The same, as if no weight had ever had an effect on a state: S = 0."""
    tensors = {k: torch.zeros_like(t) if k.endswith("/sensitivities") else t for k, t in snapshot.tensors.items()}
    return Snapshot(tensors, snapshot.meta)


def prepared(config: ModelConfig, seed: int, gate_scale: float, before: int = 4) -> tuple[Learner, np.random.Generator]:
    """A learner with random weights, a state and statistics from ``before`` fixations, and S = 0."""
    rng = np.random.default_rng(seed)
    learner = Learner(config, seed=seed, dtype=torch.float64)
    randomise(learner, rng, gate_scale)
    learner.set_learning(False)
    for z in stream(rng, before, config.features):
        learner.observe("s", z, gaze(rng))
    learner.load(without_credit(learner.snapshot()))
    return learner, rng


def observed(
    config: ModelConfig, *, seed: int, steps: int, gate_scale: float = 0.5, restart: int | None = None
) -> Window:
    """A window of the learner's own steps with all weights held; it starts anew at ``restart``."""
    learner, rng = prepared(config, seed, gate_scale)
    start, weights = learner.own["s"].state, learner.all_weights()
    watched: list[Watched] = []
    learner.watch = watched.append
    for index, z in enumerate(stream(rng, steps, config.features)):
        learner.observe("s", z, gaze(rng), start=index == restart)
    learner.watch = None
    return Window(learner, start, weights, watched, summed(watched))


def summed(watched: list[Watched]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for step in watched:
        for name, part in (step.gradient or {}).items():
            total[name] = total[name] + part if name in total else part.clone()
    return total


def relative_errors(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """By name, relative to the norm of the truth; a truth of zero is an error of the test."""
    errors = {}
    for name, part in found.items():
        norm = float(truth[name].norm())
        assert norm > 0.0, f"the gradient of {name} is zero: nothing was tested"
        errors[name] = float((part - truth[name]).norm()) / norm
    return errors


def wrong(found: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float = TOLERANCE) -> list[str]:
    """Names of the parameters whose gradient is off."""
    return [name for name, error in relative_errors(found, truth).items() if not error < tolerance]


class _Recorded:
    """A propagation as the learner calls it, with what went in and came out."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            given = tuple(_kept(each) for each in arguments)
            result = found(*arguments)
            self.calls[name] = (given, _kept(result))
            return result

        return call


def _kept(each: Any) -> Any:
    """A tensor as it is now: drives become the next sensitivities where they lie."""
    return each.clone() if isinstance(each, Tensor) else each


def audit(config: ModelConfig, *, seed: int, steps: int = 5) -> tuple[set[str], list[str]]:
    """(the terms of one step that are wrong, by name; the parameters whose summed gradient is).

    The terms are held one by one against automatic differentiation of the reference's step and loss, with
    the rest as the learner has it: so an error shows where it is made and nowhere else.
    """
    window = observed(config, seed=seed, steps=steps)
    truth = reference.bptt(config, window.weights, window.start, window.watched)
    learner, terms = window.learner, set()
    recorded = _Recorded(learner.network.propagation)
    learner.network.propagation = recorded
    watched: list[Watched] = []
    learner.watch = watched.append
    rng = np.random.default_rng(seed + 1)
    state = learner.own["s"].state
    learner.observe("s", rng.standard_normal(config.features), Look((0.3, 0.6)))
    after, seen = learner.own["s"].state, watched[-1]
    terms |= _wrong_step(config, window.weights, state, seen, after)
    terms |= _wrong_jacobian(config, window.weights, state, seen, recorded)
    terms |= _wrong_drives(config, window.weights, state, seen, recorded)
    terms |= _wrong_recurrence(config, recorded)
    terms |= _wrong_backward(config, window.weights, state, seen, recorded)
    return terms, wrong(window.gradient, truth)


def _off(found: Tensor, truth: Tensor) -> bool:
    return bool((found - truth).norm() > TOLERANCE * (1e-3 + truth.norm()))


def _components(config: ModelConfig) -> str:
    return "hc"[: config.components]


def _wrong_step(
    config: ModelConfig, weights: dict[str, Tensor], state: Tensor, seen: Watched, after: Tensor
) -> set[str]:
    truth = reference.step(config, weights, state, seen.z)
    return {f"{name}'" for k, name in enumerate(_components(config)) if _off(after[k], truth[k])}


def _by_block(config: ModelConfig, per_unit: Tensor) -> Tensor:
    """K x n -> n/b x Kb, as sensitivities have it."""
    return per_unit.view(config.components, -1, _block(config)).permute(1, 0, 2).flatten(1)


def _block(config: ModelConfig) -> int:
    return config.block if config.gates == "modular" else 1


def _wrong_jacobian(
    config: ModelConfig, weights: dict[str, Tensor], state: Tensor, seen: Watched, calls: Any
) -> set[str]:
    """Of the whole K x n x K x n, the entries within a unit or block."""
    whole = torch.func.jacrev(lambda s: reference.step(config, weights, s, seen.z))(state)
    n, b, components = config.units, _block(config), config.components
    blocks = whole.view(components, n // b, b, components, n // b, b)
    truth = torch.diagonal(blocks, dim1=1, dim2=4).permute(4, 0, 1, 2, 3)  # blocks x K x b x K x b
    found = calls.calls["jacobian"][1].view_as(truth)
    names = _components(config)
    pairs = [(k, j) for k in range(len(names)) for j in range(len(names))]
    return {f"A[{names[k]},{names[j]}]" for k, j in pairs if _off(found[:, k, :, j], truth[:, k, :, j])}


def _wrong_drives(
    config: ModelConfig, weights: dict[str, Tensor], state: Tensor, seen: Watched, calls: Any
) -> set[str]:
    """Contracted with a random vector over the state: sum_k r_k drive_k must be d (r . s') / d w, s held."""
    generator = torch.Generator().manual_seed(5)
    off, drives = set(), calls.calls["drives"][1]
    for k, component in enumerate(_components(config)):
        r = torch.zeros_like(state)
        r[k] = torch.randn(config.units, generator=generator, dtype=torch.float64)
        leaves = {name: weights[name].clone().requires_grad_() for name in calls.columns}
        total = (reference.step(config, {**weights, **leaves}, state, seen.z) * r).sum()
        truth = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        contracted = torch.einsum("bk,bkf->bf", _by_block(config, r), drives)
        for (name, place), part in zip(calls.columns.items(), truth, strict=True):
            wanted = torch.zeros_like(leaves[name]) if part is None else part
            if _off(contracted[:, place].reshape(wanted.shape), wanted):
                off.add(f"drive {name} on {component}")
    return off


def _wrong_recurrence(config: ModelConfig, calls: Any) -> set[str]:
    """S' = A S + drives, and Eq. 4, from the pieces as the learner had them."""
    off = set()
    (before, a, drives), after = calls.calls["advance"]
    if _off(after.values, torch.einsum("bkl,blf->bkf", a, before.values) + drives):
        off.add("advance")
    (advanced, _, _), (kept, _) = calls.calls["cut"]
    if _off(kept.values, advanced.values):
        off.add("cut")
    (sensitivities, back, _), found = calls.calls["gradient"]
    truth = torch.einsum("bk,bkf->bf", _by_block(config, back), sensitivities.values)
    named = {name: (found[name].reshape(len(truth), -1), truth[:, place]) for name, place in calls.columns.items()}
    return off | {f"Eq. 4 {name}" for name, (part, wanted) in named.items() if _off(part, wanted)}


def _wrong_backward(
    config: ModelConfig, weights: dict[str, Tensor], state: Tensor, seen: Watched, calls: Any
) -> set[str]:
    """dE/ds, dE/dU and dE/dP of this one loss."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    here = state.clone().requires_grad_()
    total = sum(reference.loss(config, leaves, here, seen))
    names = [name for name in ("U", "P", "P_in", "P_out", "A") if name in (seen.gradient or {})]
    asked = [here, *(leaves[name] for name in names)]
    found = torch.autograd.grad(total, asked, allow_unused=True)
    truth = [torch.zeros_like(leaf) if part is None else part for leaf, part in zip(asked, found, strict=True)]
    back = calls.calls["gradient"][0][1]
    off = {f"dE/d{name}" for k, name in enumerate(_components(config)) if _off(back[k], truth[0][k])}
    assert seen.gradient is not None
    return off | {f"d{name}" for name, part in zip(names, truth[1:], strict=True) if _off(seen.gradient[name], part)}
