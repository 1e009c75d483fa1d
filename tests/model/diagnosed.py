"""A small learner with its diagnostics beside it, driven over streams whose answer is known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.learner import Learner, Look

M = 10
"""Features; as many units, twice as many numbers of the embedding."""


class Diagnosed(NamedTuple):
    learner: Learner
    diagnostics: Diagnostics

    def feed(self, z: np.ndarray, stream: str = "a", look: Look | None = None, **marks: bool) -> None:
        self.diagnostics.after(stream, self.learner.observe(stream, z, look, **marks))


def small(**choices: Any) -> ModelConfig:
    return ModelConfig.preset("default", **{"units": M, "embedding_size": 2 * M, "retina": {"features": M}, **choices})


def begun(config: ModelConfig | None = None, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Diagnosed:
    learner = Learner(config or small(), seed=seed, dtype=dtype)
    return Diagnosed(learner, Diagnostics(learner, seed=seed))


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, M))


def turning(n: int, keep: float, seed: int = 0) -> np.ndarray:
    """z' = keep R z + noise: what no dimension knows of itself, and a linear predictor finds."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((M, M)))[0]
    z = rng.standard_normal((n, M))
    for t in range(1, n):
        z[t] = keep * turn @ z[t - 1] + (1 - keep**2) ** 0.5 * z[t]
    return z


def looks(n: int, seed: int = 0) -> list[Look]:
    return [Look((float(x), float(y))) for x, y in np.random.default_rng(seed).random((n, 2))]


def run(z: np.ndarray, config: ModelConfig | None = None, *, gaze: bool = False) -> Diagnosed:
    """Everything in one stream named a."""
    found = begun(config)
    for each, look in zip(z, looks(len(z)) if gaze else [None] * len(z), strict=True):
        found.feed(each, look=look)
    return found
