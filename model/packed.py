"""ResNet-50 with its weights packed once: the layout oneDNN wants, and each ReLU and each sum inside its convolution.

torch's own convolution lays the weights out anew at every pass: 94 MB, as long as half a pass of eight patches. Here
that is done when the network is made, for one shape of images. The same kernels sum in the same order whatever the
number of threads; where torch would have chosen oneDNN by itself, the bits are torch's own.

The operations are those torch's compiler puts into the code it writes (``torch.ops.mkldnn``); no compiler is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

OPERATIONS = torch.ops.mkldnn


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is oneDNN for this device, and for these numbers."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or bool(OPERATIONS._is_mkldnn_bf16_supported())


def averaged(activity: Tensor) -> Tensor:
    """(B, channels, height, width) -> (B, channels) float32."""
    return activity.mean(dim=(2, 3), dtype=torch.float32)


class PackedConvolution:
    """One convolution for inputs of one shape. A batch norm must have been folded into it."""

    def __init__(self, conv: nn.Conv2d, shape: Sequence[int], *, relu: bool) -> None:
        """Pack the weights of ``conv`` for inputs of ``shape``, (B, channels, height, width)."""
        self._how: tuple[Any, ...] = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.weight: Tensor = OPERATIONS._reorder_convolution_weight(conv.weight, *self._how, list(shape))
        self._bias = conv.bias
        self._after = "relu" if relu else "none"

    def __call__(self, x: Tensor) -> Tensor:
        """The convolution of ``x``, and the ReLU of that where it has one."""
        result: Tensor = OPERATIONS._convolution_pointwise(
            x, self.weight, self._bias, *self._how, self._after, [], ""
        )  # fmt: skip
        return result

    def onto(self, sum_: Tensor, x: Tensor) -> Tensor:
        """The ReLU of ``sum_`` plus the convolution of ``x``, in the memory of ``sum_``."""
        result: Tensor = OPERATIONS._convolution_pointwise_.binary(
            sum_, x, self.weight, self._bias, *self._how, "add", 1.0, "relu", [], ""
        )  # fmt: skip
        return result


class _Block(NamedTuple):
    """A bottleneck: narrow, look around, widen, and add what came in."""

    narrow: PackedConvolution
    around: PackedConvolution
    widen: PackedConvolution
    project: PackedConvolution | None
    """What came in, in the block's shape; None where it has that shape already."""

    def __call__(self, x: Tensor) -> Tensor:
        came_in = x if self.project is None else self.project(x)
        return self.widen.onto(came_in, self.around(self.narrow(x)))


class PackedNetwork:
    """The pooled activities of a folded, channels-last ResNet-50, for images of one shape."""

    def __init__(self, net: Any, shape: Sequence[int]) -> None:
        """Pack ``net`` for images of ``shape``, (B, 3, height, width); ``net`` is needed no longer."""
        self._pool = net.maxpool
        with torch.inference_mode():
            x = torch.zeros(*shape, dtype=net.conv1.weight.dtype).to(memory_format=torch.channels_last)
            self._stem = PackedConvolution(net.conv1, x.shape, relu=True)
            x = self._pool(self._stem(x))
            self._stages: list[list[_Block]] = []
            for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
                blocks = []
                for bottleneck in stage:
                    block = _packed(bottleneck, x)
                    x = block(x)
                    blocks.append(block)
                self._stages.append(blocks)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Activities of the stem and the four stages, averaged over space: (B, 64), (B, 256), ... (B, 2048)."""
        activity = self._stem(images)
        pooled = [averaged(activity)]
        activity = self._pool(activity)
        for stage in self._stages:
            for block in stage:
                activity = block(activity)
            pooled.append(averaged(activity))
        return pooled

    def weights(self) -> list[Tensor]:
        """Every convolution's weights, as they were before they were packed."""
        convolutions = [self._stem]
        for block in (block for stage in self._stages for block in stage):
            convolutions += [convolution for convolution in block if convolution is not None]
        return [convolution.weight.to_dense() for convolution in convolutions]


def _packed(bottleneck: Any, x: Tensor) -> _Block:
    project = bottleneck.downsample
    narrow = PackedConvolution(bottleneck.conv1, x.shape, relu=True)
    middle = narrow(x)
    around = PackedConvolution(bottleneck.conv2, middle.shape, relu=True)
    return _Block(
        narrow,
        around,
        PackedConvolution(bottleneck.conv3, around(middle).shape, relu=False),
        None if project is None else PackedConvolution(project[0], x.shape, relu=False),
    )
