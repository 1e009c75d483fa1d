"""ResNet-50 up to its pooled activities: frozen, and a patch's bits are the same in every company.

Letters: B the batch shape, d the pooled activities (stem 64, stages 256, 512, 1024, 2048: 3904 in all).

In torch's own convolution a row's bits differ between batch shapes and between thread counts, because the convolutions
are cut up differently. At one shape and one thread count they depend neither on what else is in the batch nor on the
row's place in it. So every pass has the same shape: missing rows are zeros, and are thrown away.

The batch norms are folded into their convolutions and the images lie channels last. On a CPU the weights are packed
(packed.py): half the time, and bits that no longer depend on the thread count where all of it is packed. There smaller
passes may have the same bits too, and a patch that comes alone need not wait as long as B of them. Whether they
have, on this processor, is found out when the network is made; a size that has not is not used. The same holds for
openvino, an extra (openvino_network.py).

All of them compute in float32, or by choice in bfloat16: weights and activities in half the room, with 8 significant
bits. What is averaged over space is told as float32 either way.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.errors import ModelError
from model.host import upload
from model.openvino_network import OpenvinoNetwork, check_openvino
from model.packed import PackedNetwork, averaged, can_pack
from model.weights import Weights, empty_backbone

PATCH_PX = 50
WIDTHS: dict[str, tuple[int, ...]] = {"all": (64, 256, 512, 1024, 2048), "last": (2048,)}
"""Pooled activities by area, by the name of the choice of stages."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
STATISTICS_CHUNK = 125
"""Patches of one pass that measures batch-norm statistics: at least so many share one estimate, and no more
activities than theirs are held."""

_PROBED = 2
"""Rows of each smaller pass that must have the full pass's bits, at least."""

Progress = Callable[[int, int], None]
Engine = Literal["packed", "plain", "openvino"]
"""Who convolves: oneDNN with weights packed once, torch's own convolution, or openvino."""
ENGINE: Engine = "packed"
"""Of what is new."""
Precision = Literal["float32", "bfloat16"]
"""The numbers it computes with."""
PRECISION: Precision = "float32"
"""Of what is new."""
_NUMBERS: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Backbone:
    """Patches to pooled activities, without gradient; at most as many at once as the batch shape it was made with."""

    def __init__(
        self,
        weights: Weights,
        statistics: Mapping[str, Tensor],
        *,
        stages: str,
        batch_shape: int,
        device: str,
        engine: Engine = ENGINE,
        precision: Precision = PRECISION,
    ) -> None:
        """Take ``weights``; ``statistics`` replace the batch norms' (by name), and are empty for trained weights.

        ``engine`` and ``precision``: see :func:`usable_engine`. Raises :class:`ModelError`: the device or the engine
        is not there.
        """
        self.device = usable_device(device)
        self.engine = usable_engine(engine, self.device, precision)
        self.precision: Precision = precision
        self._dtype = torch.float32 if self.engine == "openvino" else _NUMBERS[precision]
        self.batch_shape = batch_shape
        self.widths = WIDTHS[stages]
        net = _network({**weights.tensors, **statistics})
        net.eval().requires_grad_(False)
        _fold(net)
        net.to(device=self.device, dtype=self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = self._made(net)
        self.sizes = self._sizes()
        """Rows of a pass that give the same bits, in rising order; the last is the batch shape."""

    def _made(self, net: nn.Module) -> PackedNetwork | PlainNetwork | OpenvinoNetwork:
        if self.engine == "packed":
            return PackedNetwork(net, (self.batch_shape, 3, PATCH_PX, PATCH_PX))
        return OpenvinoNetwork(net, self.precision) if self.engine == "openvino" else PlainNetwork(net)

    @property
    def pooled_size(self) -> int:
        """d."""
        return sum(self.widths)

    def batches(self, patches: np.ndarray) -> Iterator[tuple[Tensor, int]]:
        """Pooled activities, (B, d) float32 on the device, and how many of their rows are ``patches``, in order.

        ``patches``: (N, 50, 50, 3) uint8 RGB; raises :class:`ModelError` for anything else.
        """
        check_patches(patches)
        for first in range(0, len(patches), self.batch_shape):
            chunk = patches[first : first + self.batch_shape]
            size = next(size for size in self.sizes if size >= len(chunk))
            padded = np.zeros((size, PATCH_PX, PATCH_PX, 3), np.uint8)
            padded[: len(chunk)] = chunk
            with torch.inference_mode(), same_bits():
                areas = self.run(images_of(padded, self.device))
                pooled = torch.cat(areas[-len(self.widths) :], dim=1)
                pooled = nn.functional.pad(pooled, (0, 0, 0, self.batch_shape - size))
            yield pooled, len(chunk)

    def run(self, images: Tensor) -> list[Tensor]:
        """One pass: the network's activities of (b, 3, 50, 50), b at most B; b = 1 < B, if packed, on one thread.

        One patch has so little to share that after a rest two threads of torch's lose more at each of 53 convolutions;
        openvino's lose nothing then, and gain otherwise.
        """
        images = images.to(self._dtype)
        if self.engine != "packed" or not len(images) == 1 < self.batch_shape:
            return self.network(images)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.network(images)
        finally:
            torch.set_num_threads(threads)

    def _sizes(self) -> tuple[int, ...]:
        """The batch shape, and before it each smaller power of two whose passes have the full pass's bits."""
        if self.engine == "plain":
            return (self.batch_shape,)
        noise = np.random.default_rng(0).integers(0, 256, (self.batch_shape, PATCH_PX, PATCH_PX, 3), np.uint8)
        images = images_of(noise, self.device)
        powers = itertools.takewhile(lambda size: size < self.batch_shape, (1 << power for power in itertools.count()))
        with torch.inference_mode():
            full = torch.cat(self.run(images), dim=1)
            return (*(size for size in powers if self._has_bits_of(full, size, images)), self.batch_shape)

    def _has_bits_of(self, full: Tensor, size: int, images: Tensor) -> bool:
        rows = max(size, _PROBED)
        passes = [torch.cat(self.run(images[at : at + size]), dim=1) for at in range(0, rows, size)]
        return torch.equal(torch.cat(passes), full[:rows])

    def pooled(self, patches: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Pooled activities, (N, d) float32, of ``patches``, (N, 50, 50, 3) uint8 RGB."""
        result = np.empty((len(patches), self.pooled_size), np.float32)
        done = 0
        for rows, count in self.batches(patches):
            result[done : done + count] = rows[:count].cpu().numpy()
            done += count
            if progress is not None:
                progress(done, len(patches))
        return result


class PlainNetwork:
    """The pooled activities by torch's own layers."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Activities of the stem and the four stages, averaged over space: (B, 64), (B, 256), ... (B, 2048)."""
        return _pooled_areas(self.net, images)

    def weights(self) -> list[Tensor]:
        """Every convolution's weights."""
        return [module.weight for module in self.net.modules() if isinstance(module, nn.Conv2d)]


def measure_statistics(
    weights: Weights, patches: np.ndarray, *, device: str, progress: Progress | None = None
) -> dict[str, Tensor]:
    """Means and variances of every batch norm's input, float32 on the CPU by name, over ``patches``.

    Every chunk of patches is normalised by its own statistics, and these are averaged over the chunks.
    ``patches``: (N, 50, 50, 3) uint8 RGB, N at least 2.
    """
    check_patches(patches)
    where = usable_device(device)
    net = _network(weights.tensors)
    norms = {name: module for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms.values():
        norm.momentum = None  # the plain average over chunks
    net.train().requires_grad_(False)
    net.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    done = 0
    with torch.inference_mode(), same_bits():
        for chunk in np.array_split(patches, max(1, len(patches) // STATISTICS_CHUNK)):
            _pooled_areas(net, images_of(chunk, where))
            done += len(chunk)
            if progress is not None:
                progress(done, len(patches))
    kinds = ("running_mean", "running_var")
    return {f"{name}.{kind}": getattr(norm, kind).cpu().clone() for name, norm in norms.items() for kind in kinds}


def check_patches(patches: np.ndarray) -> None:
    """Raise :class:`ModelError` unless ``patches`` is (N, 50, 50, 3) uint8."""
    if not isinstance(patches, np.ndarray):
        raise ModelError(f"patches are a {type(patches).__name__}: give a numpy array, N x 50 x 50 x 3 uint8 RGB")
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[1:] != (PATCH_PX, PATCH_PX, 3):
        raise ModelError(f"patches are {patches.dtype} {patches.shape}: give uint8 (N, {PATCH_PX}, {PATCH_PX}, 3) RGB")


def usable_device(name: str) -> torch.device:
    """The device ``name``; raises :class:`ModelError` if there is none here."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"device {name!r} can't be used here ({reason}): say cpu, or cuda where there is one"
        ) from None
    return device


def usable_engine(engine: Engine, device: torch.device, precision: Precision = PRECISION) -> Engine:
    """``engine`` here: ``packed`` counts where oneDNN has ``precision`` on this device, and is ``plain`` elsewhere.

    Raises :class:`ModelError`: openvino is not installed, or can't do so here.
    """
    if engine == "openvino":
        check_openvino(device, precision)
        return engine
    return "packed" if engine == "packed" and can_pack(device, _NUMBERS[precision]) else "plain"


@contextlib.contextmanager
def same_bits() -> Iterator[None]:
    """On CUDA: full float32, and only algorithms that give the same bits again. On the CPU they all do."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _network(tensors: Mapping[str, Tensor]) -> nn.Module:
    net = empty_backbone()
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    counters = [name for name in net.state_dict() if name.endswith(".num_batches_tracked")]
    copies.update({name: torch.zeros((), dtype=torch.int64) for name in counters})
    net.load_state_dict(copies, strict=True, assign=True)
    return net


def _fold(module: nn.Module) -> None:
    """Put each batch norm into the convolution that it follows, everywhere below ``module`` (in eval mode)."""
    for (name, conv), (norm_name, norm) in itertools.pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())
    for child in module.children():
        _fold(child)


def images_of(patches: np.ndarray, device: torch.device) -> Tensor:
    """(N, 50, 50, 3) uint8 -> (N, 3, 50, 50) float32, channels last, as ImageNet's networks take it."""
    mean, deviation = _usual(device)
    pixels = upload(torch.from_numpy(np.ascontiguousarray(patches)), torch.empty(0, dtype=torch.uint8, device=device))
    return ((pixels.float() / 255.0 - mean) / deviation).permute(0, 3, 1, 2)


@cache
def _usual(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of ImageNet's pixels, 3 each; they go to a device once. Not to be changed."""
    return torch.tensor(IMAGENET_MEAN, device=device), torch.tensor(IMAGENET_DEVIATION, device=device)


def _pooled_areas(net: nn.Module, images: Tensor) -> list[Tensor]:
    """Activities of the stem and the four stages, averaged over space: (N, 64), (N, 256), ... (N, 2048)."""
    activity = net.relu(net.bn1(net.conv1(images)))  # type: ignore[operator]
    pooled = [averaged(activity)]
    activity = net.maxpool(activity)  # type: ignore[operator]
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        activity = stage(activity)  # type: ignore[operator]
        pooled.append(averaged(activity))
    return pooled
