"""Training of the mask decoder: the latent of an object on white to its mask.

As published: a copy of the image decoder with a new last convolution, BCE + dice on the logits, encoder frozen.
Latents are spoilt a little, as a denoiser's are.
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

from deocc_engines.networks.autoencoder import Autoencoder, MaskDecoder
from deocc_training.autoencoder import SIZE, pretrained, to_tensor
from deocc_training.loop import LoopOptions, train
from deocc_training.scenes import SceneSet
from deocc_training.sheets import grid
from deocc_training.windows import View, local_window, view, whole_window

__all__ = ["MaskDecoderRecipe"]

LATENT_NOISE = 0.15  # largest standard deviation; latents have unit variance


class MaskDecoderRecipe:
    """Masks of complete objects from their latents."""

    def __init__(self, scenes: SceneSet, held_out: SceneSet, autoencoder: Autoencoder, size: int = SIZE) -> None:
        self._autoencoder, self._scenes, self._size = autoencoder, scenes, size
        self.module = MaskDecoder(autoencoder.config)
        self.module.start_from(autoencoder)
        self._fixed = [view(held_out[i], local_window(held_out[i], size)) for i in range(16)]

    def loss(self, rng: Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        cuts = [self._cut(rng) for _ in range(batch)]
        latent, alpha = self._encoded(cuts)
        latent = latent + LATENT_NOISE * torch.rand(batch, 1, 1, 1) * torch.randn_like(latent)
        logits = self.module(latent).float()
        p = torch.sigmoid(logits)
        dice = 1 - (2 * (p * alpha).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + alpha.sum((1, 2, 3)) + 1)
        loss = F.binary_cross_entropy_with_logits(logits, alpha) + dice.mean()
        inside, truth = logits > 0, alpha > 0.5
        iou = (inside & truth).sum((1, 2, 3)) / (inside | truth).sum((1, 2, 3)).clamp(min=1)
        return loss, {"iou": iou.mean().item()}

    def sheet(self, module: nn.Module) -> np.ndarray:
        latent, alpha = self._encoded(self._fixed)
        p = torch.sigmoid(module(latent).float())
        targets = to_tensor([cut.target for cut in self._fixed])
        rows = [(targets[i], alpha[i] * 2 - 1, p[i] * 2 - 1) for i in range(len(p))]
        return grid([picture for row in rows for picture in row], columns=12)

    def _encoded(self, cuts: list[View]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            latent = self._autoencoder.encode(to_tensor([cut.target for cut in cuts])).float()
        return latent, torch.from_numpy(np.stack([cut.alpha for cut in cuts]))[:, None]

    def _cut(self, rng: Generator) -> View:
        scene = self._scenes[int(rng.integers(len(self._scenes)))]
        whole = rng.random() < 0.4
        cut = view(scene, whole_window(scene, self._size) if whole else local_window(scene, self._size, rng))
        return cut.flipped() if rng.random() < 0.5 else cut


def main(
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option()],
    autoencoder: Annotated[Path, typer.Option(help="the run that trained it")],
    out: Annotated[Path, typer.Option()],
    steps: int = 3000,
    batch: int = 16,
    learning_rate: float = 3e-4,
    threads: int = 1,
) -> None:
    """Trains deocc-mini's mask decoder; the same command resumes."""
    recipe = MaskDecoderRecipe(SceneSet.open(train_scenes), SceneSet.open(test_scenes), pretrained(autoencoder))
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads))


if __name__ == "__main__":
    typer.run(main)
