"""A small retina and files of weights, made once a session for the tests of model/."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from model.backbone import measure_statistics
from model.calibration import Calibration, calibrate
from model.config import RetinaConfig
from model.deadleaves import dead_leaves
from model.retina import Retina
from model.weights import Weights, WeightsSource, load_weights, parse_weights

SMALL = RetinaConfig(features=16)
RANDOM = parse_weights("random")
FITTED_ON = 320


class SmallRetina(NamedTuple):
    retina: Retina
    calibration: Calibration


class TrainedFiles(NamedTuple):
    """One trained-looking backbone, in the two layouts that are read from a file."""

    weights: Weights
    simsiam: WeightsSource
    file: WeightsSource


def small_retina() -> SmallRetina:
    calibration = calibrate(SMALL, RANDOM, seed=0, synthetic=FITTED_ON)
    return SmallRetina(Retina(SMALL, RANDOM, calibration, seed=0), calibration)


def simsiam_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As SimSiam publishes it: encoder with its projector in fc, and a predictor beside it."""
    state = {f"module.encoder.{name}": tensor for name, tensor in tensors.items()}
    state["module.encoder.bn1.num_batches_tracked"] = torch.tensor(500_500)
    for index in (0, 3, 6):
        state[f"module.encoder.fc.{index}.weight"] = torch.randn(8, 8)
    state["module.encoder.fc.6.bias"] = torch.randn(8)
    state["module.predictor.0.weight"] = torch.randn(4, 8)
    state["module.predictor.1.num_batches_tracked"] = torch.tensor(500_500)
    return state


def trained_files(folder: Path) -> TrainedFiles:
    random = load_weights(RANDOM, seed=1)
    tensors = {**random.tensors, **measure_statistics(random, dead_leaves(24, seed=1), device="cpu")}
    safetensors.torch.save_file(tensors, folder / "backbone.safetensors")
    checkpoint = {
        "epoch": 100,
        "arch": "resnet50",
        "state_dict": simsiam_state(tensors),
        "optimizer": {"state": {0: {"momentum_buffer": torch.randn(3)}}, "param_groups": [{"lr": 0.1}]},
    }
    torch.save(checkpoint, folder / "checkpoint_0099.pth.tar")
    file = parse_weights(f"file={folder / 'backbone.safetensors'}")
    return TrainedFiles(
        load_weights(file, seed=0), parse_weights(f"simsiam={folder / 'checkpoint_0099.pth.tar'}"), file
    )
