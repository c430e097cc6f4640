"""Training of the image autoencoder.

Latents are kept few and smooth: a little noise on them while the decoder learns makes nearby latents mean nearby
pictures, which is what a small denoiser can hit.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from deocc_engines.networks.autoencoder import Autoencoder, AutoencoderConfig
from deocc_engines.window import Window
from deocc_training.bank import SceneBank, open_banks
from deocc_training.loop import Figures, LoopOptions, load_ema, train
from deocc_training.sheets import grid
from deocc_training.views import Views, Warp, cut
from deocc_training.windows import local_window

__all__ = ["MINI", "SIZE", "AutoencoderRecipe", "calibrated", "pretrained", "signed", "whole"]

SIZE = 128  # pixels along each side of deocc-mini's window
MINI = AutoencoderConfig(latent_channels=8, channels=(96, 160), layers=1, patch=4, scale=1.0)
LATENT_NOISE = 0.05  # of the latents' standard deviation
SCALE_PENALTY = 1e-3  # keeps latents near unit variance while training
WHITE_WEIGHT = 0.25  # empty background teaches little
EDGE_WEIGHT = 0.5
# Mean colours of 8 x 8 pixels, in squared error: without it L1 spends few latents on shape first and learns hues late.
COARSE_WEIGHT = 2.0
COARSE = 8


def signed(image: Float[Tensor, "b c s s"]) -> Float[Tensor, "b c s s"]:
    """[0, 1] to [−1, 1]."""
    return image * 2 - 1


class AutoencoderRecipe:
    """L1 on pixels and on their differences, squared error on coarse colours."""

    def __init__(
        self, scenes: SceneBank, held_out: SceneBank, config: AutoencoderConfig = MINI, size: int = SIZE
    ) -> None:
        self.module = Autoencoder(config)
        self._scenes, self._size = scenes, size
        cuts = whole(held_out, np.arange(12), size)
        self._fixed = signed(torch.stack([cuts.image, cuts.target], dim=1).flatten(0, 1))

    def loss(self, *batch: Tensor) -> tuple[Tensor, Figures]:
        target, weight = batch
        z = self.module.encode(target)
        noise = LATENT_NOISE * z.detach().std() * torch.randn_like(z)
        decoded = self.module.decode(z + noise).float()
        error = (decoded - target).abs()
        pixel = (weight * error).sum() / weight.sum() / 3
        edge = sum(
            (d * w).sum() / w.sum() / 3
            for d, w in (
                ((decoded.diff(dim=-1) - target.diff(dim=-1)).abs(), weight[..., 1:]),
                ((decoded.diff(dim=-2) - target.diff(dim=-2)).abs(), weight[..., 1:, :]),
            )
        )
        z = z.float()
        penalty = z.mean((0, 2, 3)).square().mean() + z.std((0, 2, 3)).log().square().mean()
        coarse_weight = F.avg_pool2d(weight, COARSE)
        coarse = (F.avg_pool2d(decoded - target, COARSE).square() * coarse_weight).sum() / coarse_weight.sum() / 3
        loss = pixel + EDGE_WEIGHT * edge + COARSE_WEIGHT * coarse + SCALE_PENALTY * penalty
        with torch.no_grad():
            mse = ((decoded - target) / 2).square().mul(weight).sum() / weight.sum() / 3
        return loss, {"pixel": pixel.detach(), "psnr": -10 * torch.log10(mse), "scale": z.detach().std()}

    def sheet(self, module: nn.Module) -> np.ndarray:
        assert isinstance(module, Autoencoder)
        decoded = module.decode(module.encode(self._fixed)).float()
        return grid([self._fixed[i] if k == 0 else decoded[i] for i in range(len(decoded)) for k in (0, 1)], columns=8)

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        """Of every view one of the three pictures that pass through the autoencoder: x, x∘m or the target."""
        picked = self._scenes.draw(rng, count)
        windows = [
            Window.whole(*size, self._size) if rng.random() < 0.5 else local_window(boxes[1], *size, self._size, rng)
            for size, boxes in zip(picked.extents, picked.boxes, strict=True)
        ]
        seen = cut(picked, windows, Warp.draw(rng, count, picked.labels.device))
        which = torch.from_numpy(rng.integers(3, size=count)).to(picked.labels.device).reshape(-1, 1, 1, 1)
        images = torch.where(which == 0, seen.image, torch.where(which == 1, seen.masked(), seen.target))
        object_share = torch.where(which == 0, 1.0, torch.where(which == 1, seen.modal, seen.alpha))
        return signed(images), WHITE_WEIGHT + (1 - WHITE_WEIGHT) * object_share


def whole(scenes: SceneBank, indices: np.ndarray, size: int) -> Views:
    """Whole scenes."""
    picked = scenes.pick(indices)
    return cut(picked, [Window.whole(*extent, size) for extent in picked.extents])


@torch.no_grad()
def calibrated(module: Autoencoder, scenes: SceneBank, count: int = 256) -> AutoencoderConfig:
    """The configuration whose `scale` gives the latents of completed objects and scenes unit variance."""
    latents = []
    for first in range(0, min(count, len(scenes)), 32):
        seen = whole(scenes, np.arange(first, min(first + 32, count, len(scenes))), SIZE)
        latents += [module.encode(signed(image)) for image in (seen.image, seen.masked(), seen.target)]
    std = torch.cat(latents).std().item()
    return replace(module.config, scale=round(module.config.scale / std, 5))


def pretrained(run: Path) -> Autoencoder:
    """The autoencoder of a finished run, its latents scaled to unit variance."""
    module = Autoencoder(replace(MINI, scale=float((run / "scale.txt").read_text())))
    load_ema(run, module)
    return module


def main(
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    steps: int = 6000,
    batch: int = 16,
    learning_rate: float = 4e-4,
    threads: int = 2,
    device: str = "cpu",
    minutes: Annotated[float | None, typer.Option(help="end by the clock instead of by steps")] = None,
    decoder_of: Annotated[
        Path | None,
        typer.Option(help="a finished run: its decoder is trained on, its encoder, and so all latents, stay"),
    ] = None,
) -> None:
    """Trains deocc-mini's autoencoder; the same command resumes."""
    scenes, held_out = open_banks(train_scenes, test_scenes, device)
    recipe = AutoencoderRecipe(scenes, held_out)
    if decoder_of is not None:
        recipe.module.load_state_dict(load_ema(decoder_of, Autoencoder(MINI)).state_dict())
        recipe.module.network.encoder.requires_grad_(False)
        recipe.module.network.quant_conv.requires_grad_(False)
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads, device=device, minutes=minutes))
    scale_file = out / "scale.txt"
    if decoder_of is not None:
        scale_file.write_text((decoder_of / "scale.txt").read_text())
    else:
        module = load_ema(out, Autoencoder(MINI)).to(device)
        assert isinstance(module, Autoencoder)
        scale_file.write_text(str(calibrated(module, scenes).scale))


if __name__ == "__main__":
    typer.run(main)
