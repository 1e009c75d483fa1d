"""How far forward propagation is from back-propagation through time, as the gates' weights grow.

float64, weights held fixed over a window of autocorrelated features, a random linear predictor; gradients of all gates
and of V, summed over the window, as cosine and relative error against :func:`model.reference.bptt`. Gates are drawn
normal, of standard deviation ``scale`` / sqrt(b), b the units a gate reads (1, 4 or n). Sensitivities have no limit
here: where the circuit is chaotic both gradients are huge, and forward propagation still is exact.

Two-point and modular gates are exact at any scale. Dense gates with one pair's sensitivities are exact at zero only.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from model import reference
from model.config import ModelConfig
from model.learner import Learner, Watched

UNITS, FEATURES, STEPS = 64, 96, 100
SCALES = (0.0, 0.1, 0.3, 0.6, 1.0)
CIRCUITS: dict[str, dict[str, Any]] = {
    "two-point": {"gates": "two-point"},
    "modular 4": {"gates": "modular", "block": 4},
    "dense": {"gates": "dense"},
    "dense, g = 1 - tanh": {"gates": "dense", "retention": "one-minus-tanh"},
    "bounded, two-point": {"cell": "bounded", "gates": "two-point"},
    "bounded, dense": {"cell": "bounded", "gates": "dense"},
}
"""The paper's circuit where nothing else is said."""
_PERSISTENCE = 0.8
_NO_LIMIT = 1e200


def config_of(circuit: str) -> ModelConfig:
    """A small model of ``circuit`` that learns nothing by itself but has every gradient."""
    return ModelConfig.preset(
        "default",
        **{"cell": "paper", **CIRCUITS[circuit]},
        units=UNITS,
        sensitivity_limit=_NO_LIMIT,
        embedding_size=UNITS,
        retina={"features": FEATURES},
        predictor={"kind": "linear", "action": "none", "near": False, "place_memory": "off"},
        learning={"warmup": 0, "repeat_threshold": 0.0, "rates": {"predictor": 1e-4}},
    )


def measure(circuit: str, scale: float, *, seed: int) -> dict[str, float | None]:
    """``cosine`` and ``relative_error`` of the summed gradient of gates and V; None where there is none."""
    learner = Learner(config_of(circuit), seed=seed, dtype=torch.float64)
    learner.set_learning(False)
    random = torch.Generator().manual_seed(seed)
    weights = learner.network.weights
    names = [name for name in weights if name.startswith("W_")]
    config = learner.config
    reads = {"two-point": 1, "modular": config.block, "dense": config.units}[config.gates]
    spread = scale / math.sqrt(reads)
    for name in names:
        weights[name].copy_(torch.randn(weights[name].shape, generator=random, dtype=torch.float64) * spread)
    weights["P"].copy_(torch.randn(weights["P"].shape, generator=random, dtype=torch.float64) / math.sqrt(UNITS))
    window: list[Watched] = []
    learner.watch = window.append
    z = torch.zeros(FEATURES, dtype=torch.float64)
    for _ in range(STEPS):
        fresh = torch.randn(FEATURES, generator=random, dtype=torch.float64)
        z = _PERSISTENCE * z + math.sqrt(1.0 - _PERSISTENCE**2) * fresh
        learner.observe("window", z)
    truth = reference.bptt(config, learner.all_weights(), learner.blank().state, window)
    names.append("V")
    found = torch.zeros(sum(weights[name].numel() for name in names), dtype=torch.float64)
    for seen in window:
        if seen.gradient is not None:
            found += torch.cat([seen.gradient[name].flatten() for name in names])
    true = torch.cat([truth[name].flatten() for name in names])
    norm, other = float(true.norm()), float(found.norm())
    if not norm > 0.0 or not other > 0.0:
        return {"cosine": None, "relative_error": None}
    return {"cosine": float(found @ true) / (norm * other), "relative_error": float((found - true).norm()) / norm}
