from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(small: SmallRetina) -> np.ndarray:
    """Features of each patch, converted with nothing beside it, by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    made = retina(small)
    torch.set_num_threads(before)
    return np.concatenate([made.features(patch[None]) for patch in PATCHES])


@needs_openvino
def test_a_rows_bits_depend_on_nothing_else_nor_on_threads(small: SmallRetina, alone: np.ndarray, threads: int) -> None:
    made = retina(small)
    assert made.backbone.sizes[-1] == 8
    compiled = made.backbone.network._request.get_compiled_model()  # type: ignore[union-attr]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    random = np.random.default_rng(0)
    for size in (1, 2, 3, 4, 5, 8, 8, 9, 17):
        order = random.integers(0, 8, size)
        np.testing.assert_array_equal(made.features(PATCHES[order]), alone[order])


@needs_openvino
def test_they_are_the_packed_networks_within_the_tolerance(small: SmallRetina, alone: np.ndarray) -> None:
    seen = small.retina.backbone.pooled(PATCHES)
    made = retina(small)
    assert np.abs(made.backbone.pooled(PATCHES) - seen).max() <= TOLERANCE * np.abs(seen).max()
    z = small.retina.features(PATCHES)
    np.testing.assert_allclose(alone, z, rtol=0.0, atol=1e-3 * np.abs(z).max())
    told = made.describe()
    assert (told["engine"], told["openvino_version"]) == ("openvino", openvino_version())
    assert small.retina.describe()["openvino_version"] is None


@needs_openvino
def test_it_computes_as_it_was_told(small: SmallRetina) -> None:
    compiled = retina(small).backbone.network._request.get_compiled_model()  # type: ignore[union-attr]
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled.get_property("NUM_STREAMS") == 1
    assert not compiled.get_property("ENABLE_CPU_PINNING")
    assert not compiled.get_property("ENABLE_HYPER_THREADING")


@needs_openvino
def test_nothing_is_sent_and_nothing_kept_in_files(tmp_path: Path) -> None:
    """By itself openvino makes a folder in the home, and an identifier in it, before it tells Google Analytics."""
    script = """
import sys
import numpy as np
from model.backbone import Backbone
from model.weights import load_weights, parse_weights
weights = load_weights(parse_weights("random"), seed=0)
made = Backbone(weights, {}, stages="all", batch_shape=1, device="cpu", engine="openvino")
made.pooled(np.zeros((1, 50, 50, 3), np.uint8))
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
