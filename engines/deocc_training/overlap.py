"""How far shapes overlap, as tensors: what several trainings lose by or log."""

from __future__ import annotations

from torch import Tensor

__all__ = ["dice_loss", "hard_iou"]

Dims = int | tuple[int, ...]


def dice_loss(p: Tensor, truth: Tensor, dims: Dims = (1, 2, 3)) -> Tensor:
    """1 − Dice of probabilities and a truth in [0, 1], summed over `dims`; smoothed by one pixel."""
    return 1 - (2 * (p * truth).sum(dims) + 1) / (p.sum(dims) + truth.sum(dims) + 1)


def hard_iou(a: Tensor, b: Tensor, dims: Dims = (1, 2, 3)) -> Tensor:
    """Intersection over union of booleans over `dims`; 0 where both are empty."""
    return (a & b).sum(dims) / (a | b).sum(dims).clamp(min=1)
