"""Training of the refiner, on drafts that `deocc_training.drafts` wrote.

BCE and Dice on the whole shape and Dice on its hidden part; of the colours PSNR over the hidden part and the root mean
square error over all of the object; BCE on the verdict that nothing is hidden, and squared error on the IoU of the
hidden part that it reaches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from deocc_engines.networks.refiner import Refiner, RefinerConfig
from deocc_training.autoencoder import signed
from deocc_training.drafts import PARTS, FreshDrafts
from deocc_training.loop import Figures, LoopOptions, train
from deocc_training.overlap import dice_loss, hard_iou
from deocc_training.samples import Samples, mirrored, recoloured
from deocc_training.sheets import grid

__all__ = ["MINI", "RefinerRecipe"]

MINI = RefinerConfig()
NOTHING = 0.01  # a smaller hidden share counts as nothing
MUCH = 0.1  # a larger one must not be called whole; between nothing and this, the label falls evenly
VISIBLE_WEIGHT = 0.25  # of a pixel's mask: what is visible is taken from the modal mask in the end
RGB = (0, 4, 8)  # first channels of the photo, the target, the draft
HIDDEN_COLOUR, COLOUR, VERDICT = 0.6, 1.0, 0.2  # weights
EXACT = 1e-4  # a mean square error of colours (of 1) that is good enough


class RefinerRecipe:
    """Mended drafts."""

    def __init__(self, drafts: Samples | FreshDrafts, config: RefinerConfig = MINI) -> None:
        self.module = Refiner(config)
        self._drafts = drafts
        self._fixed = drafts.draw(np.random.default_rng(7), 24)

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        return (recoloured(mirrored(self._drafts.draw(rng, count), rng), rng, RGB),)

    def loss(self, *batch: Tensor) -> tuple[Tensor, Figures]:
        photo, modal, target, alpha, rgb, drafted = torch.split(batch[0], PARTS, dim=1)
        mended, verdicts = self.module(torch.cat([signed(rgb), drafted], dim=1), signed(photo), modal)
        colours, logits, verdicts = mended[:, :3].float(), mended[:, 3:].float(), verdicts.float()
        p, hidden = torch.sigmoid(logits), (alpha - modal).clamp(min=0)
        share = hidden.sum((1, 2, 3)) / alpha.sum((1, 2, 3)).clamp(min=1)
        occluded = (share > NOTHING).float()
        weight = 1 + (VISIBLE_WEIGHT - 1) * modal
        bce = (weight * F.binary_cross_entropy_with_logits(logits, alpha, reduction="none")).mean()
        behind = p * (1 - modal)
        dice, hidden_dice = dice_loss(torch.maximum(p, modal), alpha), dice_loss(behind, hidden)
        # Its own colour is wanted at its edge, too, where the target shows some of the white around it.
        on_white = torch.lerp(torch.ones_like(colours), colours, alpha)
        squares = (on_white - signed(target)).square().mean(1, keepdim=True) / 4
        rms, rms_all = _root_mean(squares, hidden), _root_mean(squares, alpha)
        reached = hard_iou(behind.detach() > 0.5, hidden > 0.5)
        whole = F.binary_cross_entropy_with_logits(verdicts[:, 0], (1 - share / MUCH).clamp(min=0))
        judged = (occluded * (torch.sigmoid(verdicts[:, 1]) - reached).square()).mean()
        loss = bce + dice.mean() + _mean(hidden_dice, occluded)
        # The logarithm, as of PSNR: a plain surface is to be met better than a busy one.
        loss = loss + HIDDEN_COLOUR * _mean(torch.log(rms), occluded) + COLOUR * rms_all.mean()
        figures: Figures = {
            "iou": _mean(hard_iou(torch.maximum(p.detach(), modal) > 0.5, alpha > 0.5), occluded),
            "hidden_iou": _mean(reached, occluded),
            "hidden_iou_before": _mean(hard_iou(drafted * (1 - modal) > 0.5, hidden > 0.5), occluded),
            "rms": _mean(rms.detach(), occluded),
            "rms_all": rms_all.detach().mean(),
            "whole": whole.detach(),
            "judged": judged.detach(),
        }
        return loss + VERDICT * whole + judged, figures

    def sheet(self, module: nn.Module) -> np.ndarray:
        photo, modal, target, alpha, rgb, p = torch.split(self._fixed, PARTS, dim=1)
        mended, _ = module(torch.cat([signed(rgb), p], dim=1), signed(photo), modal)
        alphas = [signed(a.float()) for a in (p, torch.sigmoid(mended[:, 3:].float()), alpha)]
        shown = [signed(photo), signed(rgb), mended[:, :3].float(), signed(target), *alphas]
        return grid([each[i] for i in range(len(photo)) for each in shown], columns=14)


def _root_mean(squares: Tensor, weight: Tensor) -> Float[Tensor, " b"]:
    return ((weight * squares).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1) + EXACT).sqrt()


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)


def main(
    out: Annotated[Path, typer.Option()],
    drafts: Annotated[Path | None, typer.Option(help="what deocc_training.drafts wrote, or is writing")] = None,
    bundle: Annotated[str | None, typer.Option(help="instead, on a GPU: whose drafts to learn from")] = None,
    train_scenes: Annotated[Path | None, typer.Option(help="what they are drafts of")] = None,
    steps: int = 10000,
    batch: int = 32,
    learning_rate: float = 1e-3,
    threads: int = 2,
    device: str = "cpu",
    minutes: Annotated[float | None, typer.Option(help="end by the clock instead of by steps")] = None,
) -> None:
    """Trains deocc-mini's refiner; the same command resumes."""
    source: Samples | FreshDrafts
    if drafts is not None:
        source = Samples(drafts, device)
    elif bundle is not None and train_scenes is not None:
        source = FreshDrafts(bundle, train_scenes, device)
    else:
        raise typer.BadParameter("give --drafts, or --bundle and --train-scenes")
    recipe = RefinerRecipe(source)
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads, device=device, minutes=minutes))


if __name__ == "__main__":
    typer.run(main)
