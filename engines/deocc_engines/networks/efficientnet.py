"""EfficientNet-Lite, features only: the convolutional networks that a small SAM starts from, trained on ImageNet.

EfficientNet (Tan & Le, 2019) without squeeze-and-excitation and with ReLU6 (tensorflow/tpu, "EfficientNet-lite").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EfficientNetLite", "pyramid_of"]

STAGES = ((1, 3), (2, 3), (2, 5), (2, 3), (1, 5), (2, 5), (1, 3))  # stride and kernel
STEM = 32  # channels
EXPANSION = 6  # but in the first stage
PYRAMID = (1, 2, 4, 6)  # stages after which a resolution ends: a quarter, an eighth, a sixteenth, a 32nd


def pyramid_of(channels: Sequence[int]) -> list[int]:
    """Channels of what a network with such stages gives."""
    return [channels[stage] for stage in PYRAMID]


class EfficientNetLite(nn.Module):
    """Normalised images [b, 3, s, s] to features at a quarter, an eighth, a sixteenth and a 32nd of their size.

    Args:
        channels: of the stages.
        blocks: in each stage.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem = _Layer(3, STEM, 3, 2)
        stages, given = list[nn.Module](), STEM
        for (stride, kernel), wanted, count in zip(STAGES, channels, blocks, strict=True):
            stage = list[nn.Module]()
            for place in range(count):
                expansion = EXPANSION if stages else 1
                stage.append(_Block(given, wanted, kernel, 1 if place else stride, expansion))
                given = wanted
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Float[Tensor, "b 3 s s"]) -> list[Tensor]:
        """Finest first."""
        x, found = self.stem(image), list[Tensor]()
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in PYRAMID:
                found.append(x)
        return found


class _Layer(nn.Module):
    """Convolution and a normalisation with the statistics of ImageNet, which is a scale and a shift; then ReLU6 if
    wanted."""

    def __init__(
        self, given: int, wanted: int, kernel: int, stride: int = 1, groups: int = 1, *, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, wanted, kernel, stride, groups=groups)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(wanted, 1, 1, 1))
        self.active = active
        before = (kernel - stride) // 2  # as TensorFlow pads "same": what is odd comes after
        after = kernel - stride - before
        self._padding = before if before == after else 0
        self._uneven = (before, after, before, after) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        if self._uneven:
            x = F.pad(x, self._uneven)
        conv = self.conv
        x = F.conv2d(x, conv.weight * self.scale, conv.bias, conv.stride, self._padding, 1, conv.groups)
        return F.relu6(x) if self.active else x


class _Block(nn.Module):
    """An inverted residual (Sandler et al., "MobileNetV2", 2018)."""

    def __init__(self, given: int, wanted: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * given
        self.layers = nn.Sequential(
            *([_Layer(given, wide, 1)] if expansion > 1 else []),
            _Layer(wide, wide, kernel, stride, groups=wide),
            _Layer(wide, wanted, 1, active=False),
        )
        self._residual = stride == 1 and given == wanted

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self._residual else y
