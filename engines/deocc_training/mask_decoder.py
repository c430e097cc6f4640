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
from deocc_engines.text import Tokenizer
from deocc_engines.window import Window
from deocc_training import unet
from deocc_training.autoencoder import SIZE, pretrained, signed
from deocc_training.bank import Picked, SceneBank, open_banks
from deocc_training.loop import Figures, LoopOptions, load_ema, train
from deocc_training.overlap import dice_loss, hard_iou
from deocc_training.sheets import grid
from deocc_training.views import Warp, cut
from deocc_training.windows import local_window

__all__ = ["MaskDecoderRecipe"]

LATENT_NOISE = 0.15  # largest standard deviation; latents have unit variance
PREDICTED = 0.75  # share of predicted latents, where there is a denoiser
PREDICTED_STEPS = (1, 2, 4)  # of sampling; one of them a batch


class MaskDecoderRecipe:
    """Masks of complete objects from their latents."""

    def __init__(
        self,
        scenes: SceneBank,
        held_out: SceneBank,
        autoencoder: Autoencoder,
        size: int = SIZE,
        denoiser: Denoiser | None = None,
    ) -> None:
        self._autoencoder, self._scenes, self._size = autoencoder.to(scenes.device), scenes, size
        self._denoiser = denoiser
        self.module = MaskDecoder(autoencoder.config)
        self.module.start_from(autoencoder)
        picked = held_out.pick(np.arange(min(16, len(held_out))))
        places = zip(picked.boxes, picked.extents, strict=True)
        self._fixed = cut(picked, [local_window(boxes[1], *extent, size) for boxes, extent in places])

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        """Latents, some of them predicted, and the masks."""
        picked = self._scenes.draw(rng, count)
        device = picked.labels.device
        windows = self._whole_or_local(picked, rng) if self._denoiser is None else unet.stage_windows(picked, rng)
        seen = cut(picked, windows, Warp.draw(rng, count, device))
        latent, condition = unet.encoded(self._autoencoder, seen)
        latent = latent + LATENT_NOISE * torch.rand(count, 1, 1, 1, device=device) * torch.randn_like(latent)
        if self._denoiser is not None:
            predicted = round(PREDICTED * count)
            latent[:predicted] = self._denoiser(condition[:predicted], int(rng.choice(PREDICTED_STEPS)))
        return latent, seen.alpha

    def loss(self, *batch: Tensor) -> tuple[Tensor, Figures]:
        latent, alpha = batch
        logits = self.module(latent).float()
        p = torch.sigmoid(logits)
        loss = F.binary_cross_entropy_with_logits(logits, alpha) + dice_loss(p, alpha).mean()
        return loss, {"iou": hard_iou(logits.detach() > 0, alpha > 0.5).mean()}

    def sheet(self, module: nn.Module) -> np.ndarray:
        latent, _ = unet.encoded(self._autoencoder, self._fixed)
        p = torch.sigmoid(module(latent).float())
        rows = zip(signed(self._fixed.target), signed(self._fixed.alpha), signed(p), strict=True)
        return grid([picture for row in rows for picture in row], columns=12)

    def _whole_or_local(self, picked: Picked, rng: Generator) -> list[Window]:
        return [
            Window.whole(*extent, self._size)
            if rng.random() < 0.4
            else local_window(boxes[1], *extent, self._size, rng)
            for boxes, extent in zip(picked.boxes, picked.extents, strict=True)
        ]


class Denoiser:
    """What a completion's stage would make of a view, without a prompt."""

    def __init__(self, run: Path, words: Path, device: str) -> None:
        self._module = unet.finished(run).to(device)
        tokenizer = Tokenizer.open(words / "tokenizer.json", unet.TEXT.length)
        self._none = torch.from_numpy(tokenizer(""))[None].to(device)

    @torch.no_grad()
    def __call__(self, condition: Tensor, steps: int) -> Tensor:
        """[b, c, z, z], denoised from fresh noise."""
        text = self._module.text(self._none).expand(len(condition), -1, -1)
        channels = (condition.shape[1] - 1) // 2
        return unet.sampled(self._module.unet, torch.randn_like(condition[:, :channels]), condition, text, steps)


def main(
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option()],
    autoencoder: Annotated[Path, typer.Option(help="the run that trained it")],
    out: Annotated[Path, typer.Option()],
    steps: int = 3000,
    batch: int = 16,
    learning_rate: float = 3e-4,
    threads: int = 1,
    device: str = "cpu",
    minutes: Annotated[float | None, typer.Option(help="end by the clock instead of by steps")] = None,
    start: Annotated[Path | None, typer.Option(help="a finished run of this training, to go on with")] = None,
    denoiser: Annotated[Path | None, typer.Option(help="the denoiser's run: its latents are learnt from")] = None,
    words: Annotated[Path | None, typer.Option(help="the denoiser's words")] = None,
) -> None:
    """Trains deocc-mini's mask decoder; the same command resumes."""
    if (denoiser is None) != (words is None):
        raise typer.BadParameter("--denoiser and --words go together")
    vae = pretrained(autoencoder)
    source = Denoiser(denoiser, words, device) if denoiser is not None and words is not None else None
    recipe = MaskDecoderRecipe(*open_banks(train_scenes, test_scenes, device), vae, denoiser=source)
    if start is not None:
        recipe.module.load_state_dict(load_ema(start, MaskDecoder(vae.config)).state_dict())
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads, device=device, minutes=minutes))


if __name__ == "__main__":
    typer.run(main)
