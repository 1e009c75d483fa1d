"""The backbone's weights: where they come from, said by name, and what they are, as a digest.

Four sources, none of them a default:

- ``simsiam=PATH``: a checkpoint as SimSiam (Chen and He 2020) publishes it: a ``torch.save``d dictionary whose
  ``state_dict`` holds ``module.encoder.*``. The projector (``module.encoder.fc.*``) and the predictor
  (``module.predictor.*``) are ignored.
- ``torchvision=NAME``: a name of ``torchvision.models.ResNet50_Weights``, from torch hub's folder or downloaded
  into it.
- ``file=PATH``: safetensors with torchvision's names of ResNet-50 (``conv1.weight`` ... ``layer4.2.bn3.running_var``),
  float32, without ``fc``.
- ``random``: He's normal initialisation (fan out), from the seed alone. Its batch-norm statistics say nothing until
  they are calibrated (calibration.py).

Nothing here runs code from a file: ``torch.load`` only with ``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, get_args
from urllib.parse import urlparse

import numpy as np
import safetensors.torch
import torch
import torch.hub
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from model.errors import ModelError

Kind = Literal["simsiam", "torchvision", "file", "random"]
CHOICES = "simsiam=PATH | torchvision=NAME | file=PATH | random"

_SIMSIAM_PREFIX = "module.encoder."
_SIMSIAM_IGNORED = ("module.encoder.fc.", "module.predictor.")
_UNREADABLE = (
    *(OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(UnpicklingError, struct.error),
)
"""What ``torch.load`` raises on a file that is damaged or is something else."""


@dataclass(frozen=True)
class WeightsSource:
    """Where the backbone's weights come from; ``value`` is the path or the name, empty for ``random``."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}={self.value}" if self.value else self.kind


@dataclass(frozen=True)
class Weights:
    """The backbone as tensors, and what they are.

    ``tensors``: torchvision's names of ResNet-50 without ``fc`` and ``num_batches_tracked``, float32 on the CPU.
    ``digest``: sha256 over sorted names, dtypes, shapes and bytes. ``trained``: the batch-norm statistics belong to
    the weights; otherwise they are to be calibrated.
    """

    source: WeightsSource
    tensors: Mapping[str, Tensor]
    digest: str
    trained: bool


def parse_weights(text: str) -> WeightsSource:
    """The source named by ``text``; raises :class:`ModelError` with the choices."""
    kind, equals, value = text.strip().partition("=")
    for known in get_args(Kind):
        if kind == known and bool(value) == bool(equals) == (known != "random"):
            return WeightsSource(known, value)
    raise ModelError(f"weights {text!r}: say {CHOICES}")


def load_weights(source: WeightsSource, *, seed: int) -> Weights:
    """The backbone's weights from ``source``; ``seed`` counts for ``random`` alone.

    Raises :class:`ModelError`: the file is missing or unreadable, or is not laid out as the source says (naming the
    first missing and the first unexpected key), or the named weights can't be had here. Never another source instead.
    """
    if source.kind == "random":
        tensors = _random(seed)
    elif source.kind == "simsiam":
        tensors = _simsiam(Path(source.value).expanduser())
    elif source.kind == "torchvision":
        tensors = _torchvision(source.value)
    else:
        tensors = _own_file(Path(source.value).expanduser())
    return Weights(source, tensors, tensors_digest(tensors), trained=source.kind != "random")


def empty_backbone() -> nn.Module:
    """torchvision's ResNet-50 without its last layer and without storage (on the meta device)."""
    with torch.device("meta"):
        net = resnet50(weights=None)
    net.fc = nn.Identity()
    return net  # type: ignore[no-any-return]


def backbone_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the backbone's tensors, in the network's own order."""
    return {name: tuple(tensor.shape) for name, tensor in empty_backbone().state_dict().items() if not _counter(name)}


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Sha256, in hex, over sorted names, dtypes, shapes and bytes (row-major, of tensors on the CPU)."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n".encode())
        digest.update(np.atleast_1d(tensor.numpy()).data)
    return digest.hexdigest()


def _counter(name: str) -> bool:
    """Batches counted while a batch norm was trained: of no use afterwards, and in some files only."""
    return name.endswith(".num_batches_tracked")


def _random(seed: int) -> dict[str, Tensor]:
    """He et al. 2015, normal, fan out; from numpy's generator, whose numbers don't depend on the processor."""
    generator = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in backbone_shapes().items():
        if len(shape) == 4:
            deviation = np.float32((2.0 / (shape[0] * shape[2] * shape[3])) ** 0.5)
            tensors[name] = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32) * deviation)
        else:
            ones = name.endswith((".weight", ".running_var"))
            tensors[name] = torch.ones(shape) if ones else torch.zeros(shape)
    return tensors


def _simsiam(path: Path) -> dict[str, Tensor]:
    state = _read_torch(path)
    if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict):
        found = f"keys {', '.join(map(repr, list(state)[:5]))}" if isinstance(state, dict) else type(state).__name__
        raise ModelError(f"{path}: not a SimSiam checkpoint: no dictionary 'state_dict' in it, but {found}")
    named = {name: value for name, value in state["state_dict"].items() if not name.startswith(_SIMSIAM_IGNORED)}
    return _fit(named, path, "a SimSiam checkpoint", prefix=_SIMSIAM_PREFIX)


def _own_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file of weights")
    try:
        named = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file: {_one_line(error)}") from None
    return _fit(named, path, "a file of ResNet-50's weights without fc")


def _torchvision(name: str) -> dict[str, Tensor]:
    names = [weights.name for weights in ResNet50_Weights]
    if name not in names:
        raise ModelError(f"torchvision has no ResNet-50 weights {name!r}; there are {', '.join(names)}")
    weights = ResNet50_Weights[name]
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)
    if path.is_file():  # torch checks the hash of what it downloads, but not of what it finds
        _check_hash(path)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            named = weights.get_state_dict(
                progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
            )
    except (*_UNREADABLE, http.client.HTTPException) as error:
        raise ModelError(
            f"torchvision={name}: {path} can't be had from {weights.url} ({_one_line(error)}); "
            "put that file there (TORCH_HOME moves the folder) or choose other weights"
        ) from None
    plain = {key: value for key, value in named.items() if not key.startswith("fc.")}
    return _fit(plain, path, f"torchvision's ResNet-50 {name}")


def _check_hash(path: Path) -> None:
    """Hold a file named ``NAME-HASH.pth`` against the beginning of its sha256 that its name tells."""
    expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected and not found.startswith(expected.group(1)):
        raise ModelError(
            f"{path}: its sha256 begins {found[: len(expected.group(1))]}, not as its name says: "
            "a damaged or another file; remove it, or use it by simsiam= or file="
        )


def _read_torch(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path}: no such file of weights")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ModelError(f"{path}: not a checkpoint that torch reads as weights alone: {_one_line(error)}") from None


def _fit(named: Mapping[str, Any], path: os.PathLike[str], what: str, *, prefix: str = "") -> dict[str, Tensor]:
    """The backbone's tensors out of ``named``, whose keys are the backbone's behind ``prefix``, and no others."""
    shapes = backbone_shapes()
    missing = next((prefix + name for name in shapes if prefix + name not in named), None)
    expected = {prefix + name for name in shapes}
    unexpected = next((name for name in named if name not in expected and not _counter(name)), None)
    if missing or unexpected:
        said = [f"first {kind} key {key!r}" for kind, key in (("missing", missing), ("unexpected", unexpected)) if key]
        raise ModelError(f"{path}: not {what}: {', '.join(said)}; the choices are {CHOICES}")
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        value = named[prefix + name]
        if not isinstance(value, Tensor) or value.dtype != torch.float32 or tuple(value.shape) != shape:
            found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"{path}: not {what}: {prefix + name} is {found}, should be torch.float32 {shape}")
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{path}: {prefix + name} holds a value that is not finite")
        tensors[name] = value.detach().contiguous()
    return tensors


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
