"""How coarse the default model's features are in bfloat16: docs/performance.md has what it prints."""

from __future__ import annotations

import numpy as np
import pytest

from model.calibration import calibrate
from model.config import ModelConfig
from model.deadleaves import dead_leaves
from model.retina import Retina
from model.weights import parse_weights

pytestmark = pytest.mark.soak


def test_the_default_models_features_in_bfloat16() -> None:
    config, random = ModelConfig.preset("default").retina, parse_weights("random")
    calibration = calibrate(config, random, seed=0)
    patches = dead_leaves(256, seed=77)
    fine = Retina(config, random, calibration, seed=0).features(patches)
    coarse = Retina(config, random, calibration, seed=0, precision="bfloat16").features(patches)
    share = float(np.sqrt(np.mean((coarse - fine) ** 2)) / fine.std())
    together = float(np.corrcoef(coarse.ravel(), fine.ravel())[0, 1])
    print(f"\n{config.features} features of {len(patches)} patches, bfloat16 and float32, random weights:")
    print(f"root mean square of the difference {share:.2f} of the features' deviation, correlation {together:.3f}")
    assert 0.0 < share < 0.3
    assert together > 0.95
