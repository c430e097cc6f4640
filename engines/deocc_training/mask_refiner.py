"""Training of the mask refiner, on answers that `deocc_training.answers` wrote.

BCE and Dice on the modal mask in the window, and squared error on the IoU that it reaches (Kirillov et al., "Segment
Anything", section 3 and appendix A, with BCE for the focal loss: close up, the two classes are balanced).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from deocc_engines.networks.refiner import MaskRefiner, MaskRefinerConfig
from deocc_training.answers import PARTS
from deocc_training.autoencoder import signed
from deocc_training.loop import Figures, LoopOptions, train
from deocc_training.overlap import dice_loss, hard_iou
from deocc_training.samples import Samples, mirrored, recoloured
from deocc_training.sheets import grid

__all__ = ["MINI", "MaskRefinerRecipe"]

MINI = MaskRefinerConfig()
RGB = (0,)  # first channel of the photo
AGAIN = 0.25  # share of the samples for which it is given its own answer


class MaskRefinerRecipe:
    """Mended answers."""

    def __init__(self, answers: Path, config: MaskRefinerConfig = MINI, device: str = "cpu") -> None:
        self.module = MaskRefiner(config)
        self._samples = Samples(answers, device)
        self._fixed = self._samples[np.arange(min(48, len(self._samples)))]

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        seen = recoloured(mirrored(self._samples.draw(rng, count), rng), rng, RGB)
        again = torch.from_numpy(rng.random((count, 1, 1, 1)) < AGAIN)
        return seen, again.to(seen.device)

    def loss(self, *batch: Tensor) -> tuple[Tensor, Figures]:
        seen, again = batch
        photo, answered, clicks, truth = torch.split(seen, PARTS, dim=1)
        with torch.no_grad():
            own = torch.sigmoid(self.module(answered, signed(photo), clicks)[0].float())
        given = torch.where(again, own, answered)
        logits, verdicts = self.module(given, signed(photo), clicks)
        logits, p = logits.float(), torch.sigmoid(logits.float())
        bce = F.binary_cross_entropy_with_logits(logits, truth)
        dice = dice_loss(p, truth).mean()
        reached = hard_iou(p.detach() > 0.5, truth > 0.5)
        judged = (torch.sigmoid(verdicts[:, 0].float()) - reached).square().mean()
        figures: Figures = {
            "iou": reached.mean(),
            "iou_before": hard_iou(answered > 0.5, truth > 0.5).mean(),
            "judged": judged.detach(),
        }
        return bce + dice + judged, figures

    def sheet(self, module: nn.Module) -> np.ndarray:
        photo, answered, clicks, truth = torch.split(self._fixed, PARTS, dim=1)
        logits, _ = module(answered, signed(photo), clicks)
        clicked = torch.where(clicks.amax(1, keepdim=True) > 0, clicks[:, :1].expand(-1, 3, -1, -1), photo)
        shown = [signed(each) for each in (clicked, answered, torch.sigmoid(logits.float()), truth)]
        return grid([each[i] for i in range(len(photo)) for each in shown], columns=16)


def main(
    answers: Annotated[Path, typer.Option(help="what deocc_training.answers wrote, or is writing")],
    out: Annotated[Path, typer.Option()],
    steps: int = 10000,
    batch: int = 32,
    learning_rate: float = 1e-3,
    threads: int = 2,
    device: str = "cpu",
    minutes: Annotated[float | None, typer.Option(help="end by the clock instead of by steps")] = None,
) -> None:
    """Trains deocc-mini's mask refiner; the same command resumes."""
    recipe = MaskRefinerRecipe(answers, device=device)
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads, device=device, minutes=minutes))


if __name__ == "__main__":
    typer.run(main)
