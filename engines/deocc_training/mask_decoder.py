"""Training of the mask decoder: the latent of an object on white to its mask.

As published: a copy of the image decoder with a new last convolution, BCE + dice on the logits, encoder frozen.
Latents are spoilt a little, as a denoiser's are. Once there is a denoiser, the decoder is trained on with the latents
that it really gives: half certain ones, whose likeliest shape is what a user wants.
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
from deocc_engines.networks.unet import condition_of
from deocc_engines.text import Tokenizer
from deocc_training import unet
from deocc_training.autoencoder import SIZE, images_of, pretrained, to_tensor
from deocc_training.latents import share_in_latents
from deocc_training.loop import LoopOptions, load_ema, train
from deocc_training.scenes import SceneSet
from deocc_training.sheets import grid
from deocc_training.windows import View, global_window, local_window, view, whole_window

__all__ = ["MaskDecoderRecipe"]

LATENT_NOISE = 0.15  # largest standard deviation; latents have unit variance
PREDICTED = 0.75  # share of predicted latents, where there is a denoiser
PREDICTED_STEPS = (1, 2, 4)  # of sampling; one of them a batch


class MaskDecoderRecipe:
    """Masks of complete objects from their latents."""

    def __init__(
        self,
        scenes: SceneSet,
        held_out: SceneSet,
        autoencoder: Autoencoder,
        size: int = SIZE,
        denoiser: Denoiser | None = None,
    ) -> None:
        self._autoencoder, self._scenes, self._size, self._denoiser = autoencoder, scenes, size, denoiser
        self.module = MaskDecoder(autoencoder.config)
        self.module.start_from(autoencoder)
        self._fixed = [view(held_out[i], local_window(held_out[i], size)) for i in range(16)]

    def loss(self, rng: Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        cuts = [self._cut(rng) for _ in range(batch)]
        latent, alpha = self._encoded(cuts)
        latent = latent + LATENT_NOISE * torch.rand(batch, 1, 1, 1) * torch.randn_like(latent)
        if self._denoiser is not None:
            count = round(PREDICTED * batch)
            latent[:count] = self._denoiser(cuts[:count], int(rng.choice(PREDICTED_STEPS)))
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
        choice = rng.random()
        if self._denoiser is not None:
            window = (global_window if choice < 0.5 else local_window)(scene, self._size, rng)
        else:
            window = whole_window(scene, self._size) if choice < 0.4 else local_window(scene, self._size, rng)
        cut = view(scene, window)
        return cut.flipped() if rng.random() < 0.5 else cut


class Denoiser:
    """What a completion's stage would make of a view, without a prompt."""

    def __init__(self, run: Path, words: Path, autoencoder: Autoencoder) -> None:
        self._module, self._autoencoder = unet.finished(run), autoencoder
        tokenizer = Tokenizer.open(words / "tokenizer.json", unet.TEXT.length)
        self._none = torch.from_numpy(tokenizer(""))

    @torch.no_grad()
    def __call__(self, cuts: list[View], steps: int) -> Tensor:
        """[b, c, z, z], denoised from fresh noise."""
        pictures = to_tensor([picture for cut in cuts for picture in images_of(cut)[:2]])
        z = self._autoencoder.encode(pictures).float()
        x, masked = z.reshape(len(cuts), 2, *z.shape[1:]).unbind(1)
        factor = self._autoencoder.config.factor
        modal = np.stack([share_in_latents(cut.modal, factor) for cut in cuts]).astype(np.float32)
        condition = condition_of(torch.from_numpy(modal)[:, None], masked, x)
        text = self._module.text(self._none.expand(len(cuts), -1))
        return unet.sampled(self._module.unet, torch.randn_like(x), condition, text, steps)


def main(
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option()],
    autoencoder: Annotated[Path, typer.Option(help="the run that trained it")],
    out: Annotated[Path, typer.Option()],
    steps: int = 3000,
    batch: int = 16,
    learning_rate: float = 3e-4,
    threads: int = 1,
    start: Annotated[Path | None, typer.Option(help="a finished run of this training, to go on with")] = None,
    denoiser: Annotated[Path | None, typer.Option(help="the denoiser's run: its latents are learnt from")] = None,
    words: Annotated[Path | None, typer.Option(help="the denoiser's words")] = None,
) -> None:
    """Trains deocc-mini's mask decoder; the same command resumes."""
    vae = pretrained(autoencoder)
    source = Denoiser(denoiser, words, vae) if denoiser is not None and words is not None else None
    recipe = MaskDecoderRecipe(SceneSet.open(train_scenes), SceneSet.open(test_scenes), vae, denoiser=source)
    if start is not None:
        recipe.module.load_state_dict(load_ema(start, MaskDecoder(vae.config)).state_dict())
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads))


if __name__ == "__main__":
    typer.run(main)
