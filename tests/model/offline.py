"""Small models and sequences for learning offline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from model.config import ModelConfig
from model.learner import Learner
from model.sequences import FixationSequence, SeenStream, cut
from tests.model.fidelity import gaze, small, stream

LENGTH = 9


def seen(seed: int = 0, fixations: int = 12 * LENGTH, features: int = 5, name: str = "anna") -> SeenStream:
    rng = np.random.default_rng(seed)
    z = stream(rng, fixations, features).astype(np.float32)
    return SeenStream(name, z, [gaze(rng) for _ in range(fixations)], np.zeros(fixations, bool))


def sequences(seed: int = 0, count: int = 12) -> list[FixationSequence]:
    return cut([seen(seed, count * LENGTH)], LENGTH)


def learns(**choices: Any) -> ModelConfig:
    """Small, and all of it learns, fast enough to see."""
    rates = {"gates": 1e-2, "retention": 1e-2, "input": 1e-2, "embedding": 1e-2, "action": 1e-2}
    if choices.get("predictor", {}).get("kind", "linear") != "rls":
        rates["predictor"] = 1e-2
    return small(rates=rates, **choices)


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    return learner.all_weights()
