"""ResNet-50 for openvino, an extra: ``pip install 'rjepa[openvino]'``. It is chosen by name, never by itself.

openvino gets the operations one by one, as packed.py has them, so that it need not read torch's own; it packs the
weights and joins the operations itself. One network takes passes of any size: one for each size would keep the weights
once more each, and twice over. Unlike torch's, its threads divide a pass among themselves as they come, and none
looks for work longer than a millisecond or so after it.

It computes in the numbers it is told, which must be told: by itself it takes bfloat16 where the processor has it, and
asked for bfloat16 where it has not, float32. It keeps nothing in files, and sends nobody anything
(:func:`load_openvino`).
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.errors import ModelError

TOLERANCE = 1e-5
"""Its pooled activities are those of the packed network within this share of the largest."""

_TELEMETRY = "openvino_telemetry"
_SPELLED = {"float32": "f32", "bfloat16": "bf16"}
_AS_TOLD: dict[str, Any] = {
    "EXECUTION_MODE_HINT": "ACCURACY",
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "ENABLE_HYPER_THREADING": False,
    "CACHE_DIR": "",
}


def load_openvino() -> Any:
    """openvino, which sends nothing: what it would tell Google Analytics of, when it is imported, is kept from it.

    Raises :class:`ModelError` where it is not installed.
    """
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # as if not installed: openvino has a mute one for that
    try:
        import openvino
    except ModuleNotFoundError:
        raise ModelError("the retina's engine 'openvino' is not installed: pip install 'rjepa[openvino]'") from None
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before
    return openvino


def openvino_version() -> str | None:
    """Its release, for other releases may have other bits; None where it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return None


def check_openvino(device: torch.device, precision: str) -> None:
    """Raise :class:`ModelError` where openvino is not installed, or can't compute so."""
    if device.type != "cpu":
        raise ModelError(f"the retina's engine 'openvino' is for the CPU, not for {device.type}: say engine packed")
    core = load_openvino().Core()
    if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError("openvino has no bfloat16 on this processor: say precision float32")


class OpenvinoNetwork:
    """The pooled activities of a folded ResNet-50, for any number of images.

    With as many threads as torch has now, or one for each core where that is fewer.
    """

    def __init__(self, net: Any, precision: str) -> None:
        """Compile ``net``, float32, which is needed no longer, for what :func:`check_openvino` has let through."""
        openvino = load_openvino()
        self._core = openvino.Core()
        how = {"INFERENCE_PRECISION_HINT": _SPELLED[precision], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        how |= _AS_TOLD
        self._request = self._core.compile_model(_Graph(openvino).model(net), "CPU", how).create_infer_request()

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Activities of the stem and the four stages, averaged over space: (B, 64), (B, 256), ... (B, 2048)."""
        areas = self._request.infer([images.contiguous().numpy()])
        return [torch.from_numpy(areas[place]) for place in range(len(areas))]


class _Graph:
    """The network in openvino's operations."""

    def __init__(self, openvino: Any) -> None:
        self._openvino = openvino
        self._operations = openvino.opset1

    def model(self, net: Any) -> Any:
        """The folded network: images in, the areas' pooled activities out."""
        of, openvino = self._operations, self._openvino
        images = of.parameter(openvino.PartialShape([-1, 3, -1, -1]), openvino.Type.f32)
        x = of.relu(self._convolution(net.conv1, images))
        pooled = [self._mean(x)]
        window = net.maxpool
        around = [window.padding] * 2
        x = of.max_pool(x, [window.stride] * 2, around, around, [window.kernel_size] * 2)
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for bottleneck in stage:
                x = self._block(bottleneck, x)
            pooled.append(self._mean(x))
        return openvino.Model(pooled, [images])

    def _block(self, bottleneck: Any, x: Any) -> Any:
        of = self._operations
        came_in = x if bottleneck.downsample is None else self._convolution(bottleneck.downsample[0], x)
        for conv in (bottleneck.conv1, bottleneck.conv2):
            x = of.relu(self._convolution(conv, x))
        return of.relu(of.add(self._convolution(bottleneck.conv3, x), came_in))

    def _convolution(self, conv: nn.Conv2d, x: Any) -> Any:
        of = self._operations
        weight, around = of.constant(conv.weight.contiguous().numpy()), list(conv.padding)
        convolved = of.convolution(x, weight, list(conv.stride), around, around, list(conv.dilation))
        assert conv.bias is not None  # its batch norm's
        return of.add(convolved, of.constant(conv.bias.reshape(1, -1, 1, 1).numpy()))

    def _mean(self, x: Any) -> Any:
        return self._operations.reduce_mean(x, self._operations.constant(np.array([2, 3])), keep_dims=False)
