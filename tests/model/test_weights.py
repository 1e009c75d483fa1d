from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torchvision.models import ResNet50_Weights

from model.errors import ModelError
from model.weights import CHOICES, Weights, WeightsSource, backbone_shapes, load_weights, parse_weights, tensors_digest
from tests.model.retinas import TrainedFiles, simsiam_state

IMAGENET = parse_weights("torchvision=IMAGENET1K_V2")


@pytest.fixture(scope="module")
def random_weights() -> Weights:
    return load_weights(parse_weights("random"), seed=0)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("random", "random", ""),
        ("simsiam=/a/b=c.pth.tar", "simsiam", "/a/b=c.pth.tar"),
        ("torchvision=IMAGENET1K_V1", "torchvision", "IMAGENET1K_V1"),
        (" file=x.safetensors ", "file", "x.safetensors"),
    ],
)
def test_sources_are_named(text: str, kind: str, value: str) -> None:
    source = parse_weights(text)
    assert (source.kind, source.value) == (kind, value)
    assert str(source) == text.strip()


@pytest.mark.parametrize("text", ["", "random=", "random=3", "simsiam", "file=", "resnet50", "SimSiam=x", "=x"])
def test_anything_else_is_told_the_choices(text: str) -> None:
    with pytest.raises(ModelError) as refused:
        parse_weights(text)
    assert CHOICES in str(refused.value)
    assert refused.value.exit_code == 2


def test_random_weights_follow_from_the_seed_alone(random_weights: Weights) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = load_weights(parse_weights("random"), seed=0)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was touched"
    assert again.digest == random_weights.digest
    assert load_weights(parse_weights("random"), seed=1).digest != random_weights.digest
    assert not again.trained
    assert {name: tuple(tensor.shape) for name, tensor in again.tensors.items()} == backbone_shapes()
    kernel = again.tensors["layer3.0.conv2.weight"]
    assert float(kernel.std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_digest_sees_names_shapes_dtypes_and_bytes_but_not_the_order() -> None:
    one, two = torch.arange(6.0), torch.ones(2, 2)
    digest = tensors_digest({"a": one, "b": two})
    assert digest == tensors_digest({"b": two, "a": one})
    assert digest == tensors_digest({"a": torch.arange(12.0)[:6], "b": two.T})
    others = [
        {"a": one, "c": two},
        {"a": one.view(2, 3), "b": two},
        {"a": one.int(), "b": two},
        {"a": one + 1, "b": two},
    ]
    assert digest not in {tensors_digest(other) for other in others}


def test_simsiam_and_our_file_give_the_same_backbone(trained: TrainedFiles) -> None:
    simsiam = load_weights(trained.simsiam, seed=7)
    assert simsiam.digest == trained.weights.digest
    assert simsiam.trained
    assert not [name for name in simsiam.tensors if "fc" in name or "predictor" in name or "tracked" in name]


def test_wrong_layouts_name_the_first_missing_and_unexpected_key(trained: TrainedFiles, tmp_path: Path) -> None:
    moco = {f"module.encoder_q.{name}": tensor for name, tensor in list(trained.weights.tensors.items())[:3]}
    torch.save({"state_dict": moco}, tmp_path / "moco.pth")
    with pytest.raises(ModelError) as refused:
        load_weights(parse_weights(f"simsiam={tmp_path / 'moco.pth'}"), seed=0)
    for words in ("moco.pth", "'module.encoder.conv1.weight'", "'module.encoder_q.conv1.weight'", "missing", CHOICES):
        assert words in str(refused.value)

    lacking = dict(simsiam_state(dict(trained.weights.tensors)))
    del lacking["module.encoder.layer2.1.bn2.running_var"]
    torch.save({"state_dict": lacking}, tmp_path / "lacking.pth")
    with pytest.raises(
        ModelError, match=r"first missing key 'module\.encoder\.layer2\.1\.bn2\.running_var'"
    ) as refused:
        load_weights(parse_weights(f"simsiam={tmp_path / 'lacking.pth'}"), seed=0)
    assert "unexpected" not in str(refused.value)

    safetensors.torch.save_file(
        {**trained.weights.tensors, "fc.weight": torch.zeros(2, 2)}, tmp_path / "with-fc.safetensors"
    )
    with pytest.raises(ModelError, match=r"with-fc\.safetensors: not .*: first unexpected key 'fc\.weight'"):
        load_weights(parse_weights(f"file={tmp_path / 'with-fc.safetensors'}"), seed=0)


def test_wrong_tensors_are_named(trained: TrainedFiles, tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    source = parse_weights(f"file={path}")
    wrong = {
        r"layer1\.0\.bn1\.bias is torch\.float32 \(32,\), should be torch\.float32 \(64,\)": torch.zeros(32),
        r"layer1\.0\.bn1\.bias is torch\.float16 \(64,\)": torch.zeros(64).half(),
        r"layer1\.0\.bn1\.bias holds a value that is not finite": torch.full((64,), torch.nan),
    }
    for message, tensor in wrong.items():
        safetensors.torch.save_file({**trained.weights.tensors, "layer1.0.bn1.bias": tensor}, path)
        with pytest.raises(ModelError, match=message):
            load_weights(source, seed=0)


class _Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_files_that_are_no_weights_are_refused(trained: TrainedFiles, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("garbage", "torn", "code", "list", "other")}
    files["garbage"].write_bytes(b"no weights at all" * 100)
    whole = Path(trained.simsiam.value).read_bytes()
    files["torn"].write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {"x": _Shell(tmp_path / "ran")}}, files["code"])
    torch.save([torch.zeros(1)], files["list"])
    torch.save({"model": {}}, files["other"])
    for path in (*files.values(), tmp_path / "absent", tmp_path):
        with pytest.raises(ModelError) as refused:
            load_weights(WeightsSource("simsiam", str(path)), seed=0)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()
    assert "'model'" in str(refused_by("simsiam", files["other"]))
    for path in (files["garbage"], tmp_path / "absent"):
        assert str(path) in str(refused_by("file", path))


def refused_by(kind: str, path: Path) -> ModelError:
    with pytest.raises(ModelError) as refused:
        load_weights(parse_weights(f"{kind}={path}"), seed=0)
    return refused.value


def test_an_unknown_torchvision_name_is_told_the_names() -> None:
    for name in ("IMAGENET1K_V9", "DEFAULT", "imagenet1k_v2"):
        with pytest.raises(ModelError, match="IMAGENET1K_V1, IMAGENET1K_V2"):
            load_weights(parse_weights(f"torchvision={name}"), seed=0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Torch hub's folder of checkpoints, empty and the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def published(trained: TrainedFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file laid out and named as torchvision publishes its own: the name tells the beginning of its sha256."""
    folder = tmp_path_factory.mktemp("published")
    torch.save({**trained.weights.tensors, "fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, folder / "new")
    digest = hashlib.sha256((folder / "new").read_bytes()).hexdigest()
    return (folder / "new").rename(folder / f"resnet50-{digest[:8]}.pth")


def test_torchvision_weights_come_from_the_hub_folder(
    trained: TrainedFiles, published: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResNet50_Weights.IMAGENET1K_V2.value, "url", f"http://127.0.0.1:9/{published.name}")
    hub.mkdir(parents=True)
    shutil.copy(published, hub / published.name)
    weights = load_weights(IMAGENET, seed=0)
    assert weights.digest == trained.weights.digest
    assert weights.trained


def test_torchvision_weights_are_downloaded_into_the_hub_folder(
    trained: TrainedFiles,
    published: Path,
    hub: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ResNet50_Weights.IMAGENET1K_V2.value, "url", published.as_uri())
    assert load_weights(IMAGENET, seed=0).digest == trained.weights.digest
    assert (hub / published.name).is_file()
    assert capfd.readouterr().out == "", "standard output belongs to the command"


def test_torchvision_weights_out_of_reach_say_where_they_are_looked_for(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResNet50_Weights.IMAGENET1K_V2.value, "url", "http://127.0.0.1:9/resnet50-11ad3fa6.pth")
    with pytest.raises(ModelError) as refused:
        load_weights(IMAGENET, seed=0)
    for words in (str(hub / "resnet50-11ad3fa6.pth"), "put that file there", "TORCH_HOME", "other weights"):
        assert words in str(refused.value)


def test_a_hub_file_that_is_not_what_its_name_says_is_refused(
    published: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.mkdir(parents=True)
    lying = hub / "resnet50-11ad3fa6.pth"
    shutil.copy(published, lying)
    with pytest.raises(ModelError, match="sha256") as refused:
        load_weights(IMAGENET, seed=0)
    assert str(lying) in str(refused.value)

    lying.rename(tmp_path / lying.name)  # the same file as a download
    monkeypatch.setattr(ResNet50_Weights.IMAGENET1K_V2.value, "url", (tmp_path / lying.name).as_uri())
    with pytest.raises(ModelError, match="hash"):
        load_weights(IMAGENET, seed=0)
    assert not lying.exists()
