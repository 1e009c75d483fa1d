from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

import model.backbone
from model.backbone import Backbone, Engine, images_of, usable_device
from model.calibration import calibrate
from model.config import ModelConfig, RetinaConfig
from model.deadleaves import dead_leaves
from model.errors import ModelError
from model.packed import PackedNetwork
from model.retina import Retina
from model.weights import load_weights
from tests.model.retinas import RANDOM, SMALL, SmallRetina, TrainedFiles

PATCHES = dead_leaves(8, seed=77)
ENGINES: tuple[Engine, Engine] = ("plain", "packed")


@pytest.fixture(scope="module")
def alone(small: SmallRetina) -> np.ndarray:
    """Features of each patch, converted with nothing beside it."""
    return np.concatenate([small.retina.features(patch[None]) for patch in PATCHES])


def test_features_have_the_promised_shape(small: SmallRetina, alone: np.ndarray) -> None:
    assert alone.shape == (8, 16)
    assert alone.dtype == np.float32
    assert np.isfinite(alone).all()
    assert len(np.unique(alone, axis=0)) == 8
    assert small.retina.features(PATCHES[:0]).shape == (0, 16)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_a_rows_bits_depend_on_nothing_else_in_the_batch(small: SmallRetina, threads: int) -> None:
    assert torch.get_num_threads() == threads
    alone = np.concatenate([small.retina.features(patch[None]) for patch in PATCHES[:8]])
    for place in range(8):  # every patch at every place of the batch, beside the seven others
        order = np.roll(np.arange(8), place)
        np.testing.assert_array_equal(small.retina.features(PATCHES[order]), alone[order])
    random = np.random.default_rng(0)
    for size in (3, 9, 17):  # bursts as they come, the same patch twice among them
        order = random.integers(0, 8, size)
        np.testing.assert_array_equal(small.retina.features(PATCHES[order]), alone[order])
    extremes = np.zeros((8, 50, 50, 3), np.uint8)
    extremes[::2] = 255
    extremes[5] = PATCHES[5]
    np.testing.assert_array_equal(small.retina.features(extremes)[5], alone[5])


class Uneven(PackedNetwork):
    """One whose passes of three or fewer differ from larger ones in the last bits."""

    def __call__(self, images: Tensor) -> list[Tensor]:
        areas = super().__call__(images)
        return areas if len(images) > 3 else [activity * (1.0 + 2.0**-22) for activity in areas]


def test_smaller_passes_are_used_where_they_have_the_same_bits(
    small: SmallRetina, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = small.retina.backbone
    full = backbone.pooled(PATCHES)
    assert backbone.sizes[-1] == 8
    for size in backbone.sizes:
        with torch.inference_mode():
            areas = backbone.run(images_of(PATCHES[:size], backbone.device))
        np.testing.assert_array_equal(torch.cat(areas, dim=1).numpy(), full[:size])
    monkeypatch.setattr(model.backbone, "PackedNetwork", Uneven)
    uneven = Retina(SMALL, RANDOM, small.calibration, seed=0)
    assert set(uneven.backbone.sizes) == set(backbone.sizes) - {1, 2}
    np.testing.assert_array_equal(uneven.backbone.pooled(PATCHES[:1]), full[:1])
    assert Retina(SMALL, RANDOM, small.calibration, seed=0, engine="plain").backbone.sizes == (8,)


def test_the_layout_in_memory_does_not_matter(small: SmallRetina, alone: np.ndarray) -> None:
    mirrored = np.ascontiguousarray(PATCHES[:3, :, ::-1])[:, :, ::-1]
    np.testing.assert_array_equal(small.retina.features(mirrored), alone[:3])
    shifted = np.zeros(3 * 7500 + 1, np.uint8)[1:].reshape(3, 50, 50, 3)
    shifted[:] = PATCHES[:3]
    np.testing.assert_array_equal(small.retina.features(shifted), alone[:3])


def test_two_builds_from_one_seed_give_the_same_bits(small: SmallRetina, alone: np.ndarray) -> None:
    again = Retina(SMALL, RANDOM, small.calibration, seed=0)
    assert again.weights_digest == small.retina.weights_digest
    np.testing.assert_array_equal(again.features(PATCHES), alone)


def test_nothing_in_it_learns(small: SmallRetina) -> None:
    for engine in ENGINES:
        network = Retina(SMALL, RANDOM, small.calibration, seed=0, engine=engine).backbone.network
        before = [weight.clone() for weight in network.weights()]
        assert len(before) == 53
        assert not [weight for weight in network.weights() if weight.requires_grad]
        network(images_of(PATCHES, torch.device("cpu")))
        assert all(torch.equal(one, other) for one, other in zip(before, network.weights(), strict=True))


def test_packed_weights_are_the_same_network(small: SmallRetina, alone: np.ndarray) -> None:
    plain, packed = (Retina(SMALL, RANDOM, small.calibration, seed=0, engine=engine) for engine in ENGINES)
    for one, other in zip(plain.backbone.network.weights(), packed.backbone.network.weights(), strict=True):
        assert torch.equal(one, other)
    assert (plain.describe()["engine"], packed.describe()["engine"]) == ENGINES
    seen = plain.backbone.pooled(PATCHES)
    np.testing.assert_allclose(packed.backbone.pooled(PATCHES), seen, rtol=0.0, atol=5e-5 * np.abs(seen).max())
    np.testing.assert_allclose(alone, plain.features(PATCHES), rtol=0.0, atol=1e-3 * np.abs(alone).max())


def test_packed_features_have_the_same_bits_on_any_number_of_threads(small: SmallRetina, alone: np.ndarray) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            np.testing.assert_array_equal(small.retina.features(PATCHES), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
            ],
        ),
    ],
)
def test_bfloat16_is_coarser_and_keeps_the_rule_of_bits(
    small: SmallRetina, alone: np.ndarray, engine: Engine, device: str
) -> None:
    coarse = Retina(SMALL, RANDOM, small.calibration, seed=0, device=device, engine=engine, precision="bfloat16")
    z = coarse.features(PATCHES)
    for size in (1, 3, 8):
        np.testing.assert_array_equal(coarse.features(PATCHES[:size]), z[:size])
    assert coarse.backbone.pooled(PATCHES[:1]).dtype == np.float32
    assert 0.0 < np.sqrt(np.mean((z - alone) ** 2)) <= 0.1 * alone.std()
    assert (coarse.describe()["precision"], small.retina.describe()["precision"]) == ("bfloat16", "float32")


def pooled_by_torchvision(tensors: dict[str, Tensor], patches: np.ndarray) -> np.ndarray:
    """torchvision's own network, in float64, watched from outside: (N, 3904)."""
    net = resnet50(weights=None)
    net.load_state_dict(dict(tensors), strict=False)
    net.double().eval()
    seen: list[Tensor] = []

    def watch(_module: object, _inputs: object, output: Tensor) -> None:
        seen.append(output)

    net.maxpool.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        stage.register_forward_hook(watch)
    mean = np.array([0.485, 0.456, 0.406])
    deviation = np.array([0.229, 0.224, 0.225])
    images = ((patches / 255.0 - mean) / deviation).transpose(0, 3, 1, 2)
    with torch.no_grad():
        net(torch.from_numpy(images))
    return torch.cat([activity.flatten(2).mean(dim=2) for activity in seen], dim=1).numpy()


def test_simsiam_file_and_plain_backbone_give_the_same_activities(trained: TrainedFiles) -> None:
    expected = pooled_by_torchvision(dict(trained.weights.tensors), PATCHES[:3])
    seen = []
    for source in (trained.simsiam, trained.file):
        backbone = Backbone(load_weights(source, seed=0), {}, stages="all", batch_shape=8, device="cpu")
        seen.append(backbone.pooled(PATCHES[:3]))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert expected.shape == (3, 3904)
    np.testing.assert_allclose(seen[0], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_the_papers_retina_is_the_last_stage_scaled(trained: TrainedFiles) -> None:
    config = ModelConfig.preset("paper").retina
    patches = dead_leaves(20, seed=5)
    calibration = calibrate(config, trained.file, seed=0, patches=patches)
    z = Retina(config, trained.file, calibration, seed=0).features(patches)
    assert z.shape == (20, 2048)
    assert z.astype(np.float64).var(axis=0).sum() == pytest.approx(1.0, rel=1e-4)
    pooled = Backbone(trained.weights, {}, stages="last", batch_shape=8, device="cpu").pooled(patches)
    ratio = z.astype(np.float64).sum() / pooled.astype(np.float64).sum()
    np.testing.assert_allclose(z, pooled * ratio, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: np.zeros((2, 50, 50, 3), np.float32), r"float32 \(2, 50, 50, 3\)"),
        (lambda: np.zeros((50, 50, 3), np.uint8), r"uint8 \(50, 50, 3\)"),
        (lambda: np.zeros((1, 3, 50, 50), np.uint8), r"uint8 \(1, 3, 50, 50\)"),
        (lambda: np.zeros((1, 64, 64, 3), np.uint8), r"uint8 \(1, 64, 64, 3\)"),
        (lambda: [[0]], "a list"),
    ],
)
def test_other_patches_are_named(small: SmallRetina, make: Callable[[], np.ndarray], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        small.retina.features(make())


def test_a_calibration_of_something_else_is_refused(small: SmallRetina, trained: TrainedFiles) -> None:
    with pytest.raises(ModelError, match="other weights"):
        Retina(SMALL, RANDOM, small.calibration, seed=1)
    with pytest.raises(ModelError, match="other weights"):
        Retina(SMALL, trained.file, small.calibration, seed=0)
    with pytest.raises(ModelError, match="features 16, not 17"):
        Retina(RetinaConfig(features=17), RANDOM, small.calibration, seed=0)
    with pytest.raises(ModelError, match="stages all, not last"):
        Retina(RetinaConfig(features=16, stages="last"), RANDOM, small.calibration, seed=0)


def test_a_device_that_is_not_there_is_named() -> None:
    for name in ("abacus", "cuda:99"):
        with pytest.raises(ModelError, match=name):
            usable_device(name)


def test_it_describes_itself(small: SmallRetina) -> None:
    told = json.loads(json.dumps(small.retina.describe()))
    assert told["weights"] == "random"
    assert told["weights_digest"] == small.retina.weights_digest
    assert told["calibration"] == small.calibration.digest
    assert (told["pooled"], told["features"], told["batch_shape"], told["device"]) == (3904, 16, 8, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_the_same_rule_of_bits_and_nearly_the_same_features(small: SmallRetina, alone: np.ndarray) -> None:
    cuda = Retina(SMALL, RANDOM, small.calibration, seed=0, device="cuda")
    lone = np.concatenate([cuda.features(patch[None]) for patch in PATCHES])
    for place in range(8):
        order = np.roll(np.arange(8), place)
        np.testing.assert_array_equal(cuda.features(PATCHES[order]), lone[order])
    np.testing.assert_allclose(lone, alone, atol=1e-2 * np.abs(alone).max())
