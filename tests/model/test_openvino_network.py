from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.backbone import Backbone, usable_engine
from model.deadleaves import dead_leaves
from model.errors import ModelError
from model.openvino_network import TOLERANCE, load_openvino, openvino_version
from model.retina import Retina
from model.weights import load_weights
from tests.helpers import ROOT
from tests.model.retinas import RANDOM, SMALL, SmallRetina

PATCHES = dead_leaves(8, seed=77)
needs_openvino = pytest.mark.skipif(
    openvino_version() is None, reason="openvino is not installed: pip install 'rjepa[openvino]'"
)


def retina(small: SmallRetina) -> Retina:
    return Retina(SMALL, RANDOM, small.calibration, seed=0, engine="openvino")


def compiled(made: Retina) -> Any:
    """What openvino tells of it."""
    return made.backbone.network._request.get_compiled_model()  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def single(small: SmallRetina) -> Retina:
    """With one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    made = retina(small)
    torch.set_num_threads(before)
    return made


@pytest.fixture(scope="module")
def alone(single: Retina) -> np.ndarray:
    """Features of each patch, converted with nothing beside it."""
    return np.concatenate([single.features(patch[None]) for patch in PATCHES])


@needs_openvino
@pytest.mark.parametrize("threads", [1, 2])
def test_a_rows_bits_depend_on_nothing_else_nor_on_threads(
    small: SmallRetina, single: Retina, alone: np.ndarray, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    made = single if threads == 1 else retina(small)
    torch.set_num_threads(before)
    assert 1 <= compiled(made).get_property("INFERENCE_NUM_THREADS") <= threads, "a core's second thread is left alone"
    assert made.backbone.sizes[-1] == 8
    random = np.random.default_rng(0)
    for size in (1, 2, 3, 4, 5, 8, 8, 9, 17):
        order = random.integers(0, 8, size)
        np.testing.assert_array_equal(made.features(PATCHES[order]), alone[order])


@needs_openvino
def test_they_are_the_packed_networks_within_the_tolerance(
    small: SmallRetina, single: Retina, alone: np.ndarray
) -> None:
    seen = small.retina.backbone.pooled(PATCHES)
    assert np.abs(single.backbone.pooled(PATCHES) - seen).max() <= TOLERANCE * np.abs(seen).max()
    z = small.retina.features(PATCHES)
    np.testing.assert_allclose(alone, z, rtol=0.0, atol=1e-3 * np.abs(z).max())


@needs_openvino
def test_it_computes_as_it_was_told_and_tells_of_it(small: SmallRetina, single: Retina) -> None:
    assert compiled(single).get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled(single).get_property("NUM_STREAMS") == 1
    assert not compiled(single).get_property("ENABLE_CPU_PINNING")
    assert not compiled(single).get_property("ENABLE_HYPER_THREADING")
    told = single.describe()
    assert (told["engine"], told["openvino_version"]) == ("openvino", openvino_version())
    assert small.retina.describe()["openvino_version"] is None


@needs_openvino
def test_it_sends_nothing(tmp_path: Path) -> None:
    """By itself openvino makes a folder in the home, and an identifier in it, before it tells Google Analytics."""
    script = """
import sys
from model.openvino_network import load_openvino
load_openvino()
assert "openvino_telemetry" not in sys.modules
print(sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__)
"""
    nowhere = "http://127.0.0.1:9"
    elsewhere = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    elsewhere |= {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "https_proxy": nowhere, "http_proxy": nowhere}
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=elsewhere | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout.strip()) == (0, "openvino.tools.ovc.telemetry_stub"), ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_openvino_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'rjepa\[openvino\]'"):
        load_openvino()
    with pytest.raises(ModelError, match=r"pip install 'rjepa\[openvino\]'"):
        Backbone(load_weights(RANDOM, seed=0), {}, stages="all", batch_shape=8, device="cpu", engine="openvino")
    assert "openvino_telemetry" not in sys.modules


def test_it_is_for_the_cpu() -> None:
    with pytest.raises(ModelError, match="for the CPU, not for cuda: say engine packed"):
        usable_engine("openvino", torch.device("cuda"))


@needs_openvino
def test_bfloat16_is_coarser_or_refused_by_name(small: SmallRetina, alone: np.ndarray) -> None:
    if "BF16" not in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ModelError, match="no bfloat16 on this processor: say precision float32"):
            usable_engine("openvino", torch.device("cpu"), "bfloat16")
        return
    coarse = Retina(SMALL, RANDOM, small.calibration, seed=0, engine="openvino", precision="bfloat16")
    assert compiled(coarse).get_property("INFERENCE_PRECISION_HINT").get_type_name() == "bf16"
    z = coarse.features(PATCHES)
    np.testing.assert_array_equal(coarse.features(PATCHES[:1]), z[:1])
    assert 0.0 < np.sqrt(np.mean((z - alone) ** 2)) <= 0.1 * alone.std()
