"""Theorem 1 while it happens: P^T P, U U^T and the covariance of y over training, on a planted world.

The Time Decay Unit with a linear predictor, nothing carried and nothing normalised, under plain gradient descent at
rate r with decoupled weight decay eta on P and U. With e = P y_t - y_{t+1} the gradients of one fixation are e y_t^T
for P and P^T e s_t^T for U, so that P^T dP = dU U^T, and to first order in r

    P^T P - U U^T  shrinks as  exp(-2 r eta t)                                              (1)

whatever is seen, and whatever V and the decays learn meanwhile by forward propagation (after Tian et al. 2021 and Liu
et al. 2022). The covariance of y is U S U^T, S that of s: where the states are white, (1) aligns P^T P with it, which
is what the theorem says and ``balance`` measures; where they are not, only as far as they are.

Controls: without weight decay (1) says that nothing shrinks; with U fixed it does not hold; the default preset has
neither of its premises.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.balance import balance, linear_map
from model.config import ModelConfig
from model.learner import Learner
from model.learners import config_of
from model.worlds import PlantedWorld

RATE, DECAY, CIRCUIT_RATE = 3e-3, 0.05, 1e-4
WINDOW = 1000
"""Embeddings whose covariance is taken."""
LOOKS = 30
"""Times it is looked at, evenly spread, and once near the start."""
_FIRST = 100
_STREAM = "alignment"


class Setting(NamedTuple):
    """A way to learn, and what (1) says of it."""

    config: ModelConfig
    weight_decay: float
    text: str
    law: bool
    """Whether (1) holds."""


def settings() -> dict[str, Setting]:
    """Every setting by name."""
    both, alone = _linear(learn_u=True), _linear(learn_u=False)
    return {
        "decay": Setting(both, DECAY, "P and U learn, both decay", True),
        "no decay": Setting(both, 0.0, "P and U learn, nothing decays", True),
        "P alone": Setting(alone, DECAY, "P learns and decays, U is fixed", False),
        "default": Setting(config_of("default", gaze=False), 0.0, "the preset default: carry, least squares", False),
    }


def _linear(*, learn_u: bool) -> ModelConfig:
    """The Time Decay Unit under plain gradient descent, its predictor linear in y alone."""
    nothing = {"action": "none", "near": False, "place_memory": "off", "carry": False, "normalise": False}
    rates = {
        "gates": None, "retention": CIRCUIT_RATE, "input": CIRCUIT_RATE, "embedding": RATE if learn_u else None,
        "predictor": RATE,
    }  # fmt: skip
    return ModelConfig.preset(
        "default",
        cell="time-decay",
        embedding_size=120,
        predictor={"kind": "linear", **nothing},
        learning={"optimiser": "sgd", "warmup": 0, "rates": rates},
    )


def run(
    setting: Setting, world: PlantedWorld, *, seed: int, progress: Callable[[int], object] | None = None
) -> dict[str, Any]:
    """A row: lists over training (``at``, in fixations), one value for each look.

    ``balance``: cosine of P^T P with the covariance of the last 1,000 y; ``balance_u``: with U U^T; ``apart``:
    |P^T P - U U^T| over its value at the start (Frobenius), ``law``: what (1) says of it; ``rank``: of the covariance;
    ``error`` and ``running_mean``: mean errors of the learner and of the running mean of y since the last look.
    """
    learner = Learner(setting.config, seed=seed)
    kept = _decays(learner, setting)
    z, count = torch.from_numpy(world.features), len(world)
    looks = {min(_FIRST, count), *(round(count * (part + 1) / LOOKS) for part in range(LOOKS))}
    start = _apart(learner)
    embeddings: deque[Tensor] = deque(maxlen=WINDOW)
    errors: list[tuple[float, float]] = []
    found: dict[str, list[float | None]] = {name: [] for name in _TOLD}
    for at in range(count):
        outcome = learner.observe(_STREAM, z[at], start=bool(world.walk.start[at]))
        if setting.weight_decay:
            learner.parameters.flat.mul_(kept)
        embeddings.append(torch.from_numpy(outcome.embedding))
        mean = outcome.trivial["running_mean"]
        if outcome.prediction_error is not None and mean is not None:
            errors.append((outcome.prediction_error, mean))
        if at + 1 in looks:
            told = _look(learner, setting, torch.stack(tuple(embeddings)), start, at + 1) | _means(errors)
            for name, value in told.items():
                found[name].append(value)
            errors = []
        if progress is not None and at % 100 == 99:
            progress(100)
    return {**found, "last_balance": found["balance"][-1], "last_balance_u": found["balance_u"][-1],
            "last_apart": found["apart"][-1], "last_law": found["law"][-1], "last_rank": found["rank"][-1]}  # fmt: skip


_TOLD = ("at", "balance", "balance_u", "apart", "law", "rank", "error", "running_mean")


def _decays(learner: Learner, setting: Setting) -> Tensor:
    """What is left of each weight after one step's decay: P and U alone decay."""
    kept = torch.ones_like(learner.parameters.flat)
    for name, part in learner.parameters.split(kept).items():
        if name in ("P", "U"):
            part.fill_(1.0 - RATE * setting.weight_decay)
    return kept


def _look(learner: Learner, setting: Setting, rows: Tensor, start: float, at: int) -> dict[str, float | None]:
    p = linear_map(learner)
    assert p is not None, "every setting has a linear predictor"
    rows = rows.to(torch.float64)
    covariance = torch.cov(rows.T) if len(rows) > 1 else p.new_zeros(p.shape)
    trace, squared = float(covariance.trace()), float(covariance.square().sum())
    premises = learner.config.predictor.kind == "linear"
    return {
        "at": at,
        "balance": balance(p, covariance),
        "balance_u": balance(p, _outer_u(learner)),
        "apart": _apart(learner) / start if premises else None,
        "law": math.exp(-2.0 * RATE * setting.weight_decay * at) if setting.law else None,
        "rank": trace * trace / squared if squared > 0.0 else None,
    }


def _outer_u(learner: Learner) -> Tensor:
    """U U^T, q x q float64."""
    u = learner.network.weights["U"].to("cpu", torch.float64)
    return u @ u.T


def _apart(learner: Learner) -> float:
    p = linear_map(learner)
    assert p is not None
    return float((p.T @ p - _outer_u(learner)).norm())


def _means(errors: list[tuple[float, float]]) -> dict[str, float | None]:
    if not errors:
        return {"error": None, "running_mean": None}
    own, mean = torch.tensor(errors, dtype=torch.float64).mean(dim=0).tolist()
    return {"error": own, "running_mean": mean}
