"""How a bundle keeps weights: in half precision, large matrices of some networks in eight bits and a scale a row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["SCALE", "eight_bit", "half", "widened"]

SCALE = ".scale"  # of a tensor of int8: float32, one for each row
LARGE = 4096  # elements from which on a matrix is worth it


def half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point numbers in float16."""
    return {
        name: value.to(torch.float16).contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in weights.items()
    }


def eight_bit(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `half`, with large matrices and kernels in int8; a row's largest number becomes 127."""
    kept = half(weights)
    for name, value in weights.items():
        if value.is_floating_point() and value.ndim > 1 and value.numel() >= LARGE:
            rows = value.float().flatten(1)
            scale = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
            kept[name] = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8).reshape(value.shape)
            kept[name + SCALE] = scale
    return kept


def widened(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was stored: tensors of int8 as float32, the others as they are."""
    weights = dict(stored)
    for name, value in stored.items():
        scale = stored.get(name + SCALE)
        if value.dtype == torch.int8 and scale is not None and scale.shape == value.shape[:1]:
            weights[name] = (value.flatten(1) * scale[:, None]).reshape(value.shape)
            del weights[name + SCALE]
    return weights
