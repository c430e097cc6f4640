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
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from deocc_engines.networks.autoencoder import Autoencoder, AutoencoderConfig
from deocc_training.loop import LoopOptions, load_ema, train
from deocc_training.scenes import SceneSet
from deocc_training.sheets import grid
from deocc_training.windows import View, local_window, view, whole_window

__all__ = ["MINI", "SIZE", "AutoencoderRecipe", "calibrated", "images_of", "pretrained", "to_tensor"]

SIZE = 128  # pixels along each side of deocc-mini's window
MINI = AutoencoderConfig(latent_channels=4, channels=(128, 192), layers=1, patch=4, scale=1.0)
LATENT_NOISE = 0.1  # of the latents' standard deviation
SCALE_PENALTY = 1e-3  # keeps latents near unit variance while training
WHITE_WEIGHT = 0.25  # empty background teaches little
EDGE_WEIGHT = 0.5
# Mean colours of 8 x 8 pixels, in squared error: without it L1 spends few latents on shape first and learns hues late.
COARSE_WEIGHT = 2.0
COARSE = 8


def images_of(cut: View) -> list[np.ndarray]:
    """The three pictures that pass through the autoencoder: x, x∘m and the target, [s, s, 3] in [0, 1]."""
    return [cut.image, cut.masked_image(), cut.target]


def to_tensor(images: list[np.ndarray]) -> Tensor:
    """[s, s, 3] in [0, 1] to a batch [b, 3, s, s] in [−1, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() * 2 - 1


class AutoencoderRecipe:
    """L1 on pixels and on their differences, squared error on coarse colours."""

    def __init__(
        self, scenes: SceneSet, held_out: SceneSet, config: AutoencoderConfig = MINI, size: int = SIZE
    ) -> None:
        self.module = Autoencoder(config)
        self._scenes, self._size = scenes, size
        cuts = [view(held_out[i], whole_window(held_out[i], size)) for i in range(12)]
        self._fixed = to_tensor([picture for cut in cuts for picture in images_of(cut)[::2]])

    def loss(self, rng: Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        target, weight = self._batch(rng, batch)
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
        return loss, {"pixel": pixel.item(), "psnr": float(-10 * torch.log10(mse)), "scale": z.std().item()}

    def sheet(self, module: nn.Module) -> np.ndarray:
        assert isinstance(module, Autoencoder)
        decoded = module.decode(module.encode(self._fixed)).float()
        return grid([self._fixed[i] if k == 0 else decoded[i] for i in range(len(decoded)) for k in (0, 1)], columns=8)

    def _batch(self, rng: Generator, batch: int) -> tuple[Tensor, Tensor]:
        images, weights = [], []
        for index in rng.integers(len(self._scenes), size=batch):
            scene = self._scenes[int(index)]
            whole = rng.random() < 0.5
            window = whole_window(scene, self._size) if whole else local_window(scene, self._size, rng)
            cut = view(scene, window)
            if rng.random() < 0.5:
                cut = cut.flipped()
            which = int(rng.integers(3))
            images.append(images_of(cut)[which])
            object_share = (np.ones_like(cut.alpha), cut.modal, cut.alpha)[which]
            weights.append(WHITE_WEIGHT + (1 - WHITE_WEIGHT) * np.maximum(object_share, 0))
        return to_tensor(images), torch.from_numpy(np.stack(weights))[:, None]


def calibrated(module: Autoencoder, scenes: SceneSet, count: int = 256) -> AutoencoderConfig:
    """The configuration whose `scale` gives the latents of completed objects and scenes unit variance."""
    cuts = [view(scenes[i], whole_window(scenes[i], SIZE)) for i in range(min(count, len(scenes)))]
    with torch.no_grad():
        latents = [module.encode(to_tensor(images_of(cut))) for cut in cuts]
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
    decoder_of: Annotated[
        Path | None,
        typer.Option(help="a finished run: its decoder is trained on, its encoder, and so all latents, stay"),
    ] = None,
) -> None:
    """Trains deocc-mini's autoencoder; the same command resumes."""
    recipe = AutoencoderRecipe(SceneSet.open(train_scenes), SceneSet.open(test_scenes))
    if decoder_of is not None:
        recipe.module.load_state_dict(load_ema(decoder_of, Autoencoder(MINI)).state_dict())
        recipe.module.network.encoder.requires_grad_(False)
        recipe.module.network.quant_conv.requires_grad_(False)
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads))
    scale_file = out / "scale.txt"
    if decoder_of is not None:
        scale_file.write_text((decoder_of / "scale.txt").read_text())
    else:
        module = load_ema(out, Autoencoder(MINI))
        assert isinstance(module, Autoencoder)
        scale_file.write_text(str(calibrated(module, SceneSet.open(train_scenes)).scale))


if __name__ == "__main__":
    typer.run(main)
