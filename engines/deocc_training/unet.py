"""Training of the denoiser f_θ on cached latents.

v-prediction (Salimans & Ho, "Progressive Distillation", eq. in section 4):
w · ‖v − v_θ(z_t, t, y, 1 − m↓, E(x∘m), E(x))‖². Image condition and caption are dropped at times, so that both guidance
scales have something to stand on. min-SNR weights (Hang et al.) are not used: they fade the noisiest timesteps, and in
deocclusion, where the condition says nearly everything, these decide the shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.random import Generator
from safetensors.torch import load_file
from torch import Tensor, nn

from deocc_engines.networks.text import TextConfig, TextEncoder
from deocc_engines.networks.unet import Unet, UnetConfig, condition_of
from deocc_engines.text import Tokenizer
from deocc_training.autoencoder import pretrained
from deocc_training.latents import LatentSet
from deocc_training.loop import LoopOptions, load_ema, train
from deocc_training.sheets import grid

__all__ = ["MINI", "SCHEDULE", "TEXT", "Conditioned", "UnetRecipe", "finished", "sampled"]

MINI = UnetConfig(
    latent_channels=4,
    latent_size=16,
    channels=(128, 192, 256),
    heads=(4, 6, 8),
    attention=(False, True, True),
    layers=1,
    text_width=256,
)
TEXT = TextConfig()
SCHEDULE = {
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "num_train_timesteps": 1000,
}
HIDDEN_WEIGHT, VISIBLE_WEIGHT = 2.0, 0.5  # of a latent's error; the visible part is pasted over in the end
DROP_IMAGE, DROP_CAPTION = 0.1, 0.5
SHEET_STEPS = 4


class Conditioned(nn.Module):
    """The denoiser and the text encoder that is trained with it."""

    def __init__(self, unet: Unet, text: TextEncoder) -> None:
        super().__init__()
        self.unet, self.text = unet, text


class UnetRecipe:
    """Denoising of completed objects."""

    def __init__(self, latents: LatentSet, held_out: LatentSet, words: Path, decode: nn.Module) -> None:
        text = TextEncoder(TEXT)
        text.table.weight.data.copy_(load_file(words / "table.safetensors")["table"])
        self.module = Conditioned(Unet(MINI), text)
        self._latents, self._held_out, self._decode = latents, held_out, decode
        tokenizer = Tokenizer.open(words / "tokenizer.json", TEXT.length)
        self._ids, self._held_out_ids = (
            torch.from_numpy(np.stack([tokenizer(str(caption)) for caption in these.captions]))
            for these in (latents, held_out)
        )
        self._none = torch.from_numpy(tokenizer(""))
        alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod
        self._sqrt_alpha, self._sqrt_one_minus_alpha = alphas.sqrt(), (1 - alphas).sqrt()

    def loss(self, rng: Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        rows = rng.integers(len(self._latents), size=batch)
        z_0, condition, ids = self._examples(self._latents, self._ids, rows)
        condition[torch.from_numpy(rng.random(batch) < DROP_IMAGE)] = 0.0
        ids[torch.from_numpy(rng.random(batch) < DROP_CAPTION)] = self._none
        t = torch.from_numpy(_timesteps(rng, batch))
        noise = torch.from_numpy(rng.standard_normal(z_0.shape, np.float32))
        a, s = (table[t].reshape(-1, 1, 1, 1) for table in (self._sqrt_alpha, self._sqrt_one_minus_alpha))
        z_t, v = a * z_0 + s * noise, a * noise - s * z_0
        predicted = self.module.unet(z_t, t.float(), condition, self.module.text(ids)).float()
        modal, hidden = (
            torch.from_numpy(share[rows].astype(np.float32))[:, None]
            for share in (self._latents.modal, self._latents.hidden)
        )
        weight = 1 + (HIDDEN_WEIGHT - 1) * hidden + (VISIBLE_WEIGHT - 1) * modal
        error = (predicted - v).square()
        inside = (error * hidden).sum() / hidden.sum().clamp(min=1e-3) / error.shape[1]
        return (weight * error).mean(), {"v": error.mean().item(), "hidden_v": inside.item()}

    def sheet(self, module: nn.Module) -> np.ndarray:
        assert isinstance(module, Conditioned)
        rows = np.arange(24)  # global and local windows in turn
        z_0, condition, ids = self._examples(self._held_out, self._held_out_ids, rows)
        noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(0))
        z = sampled(module.unet, noise, condition, module.text(ids), SHEET_STEPS)
        shown = [self._decode(latent).float() for latent in (condition[:, 5:], condition[:, 1:5], z, z_0)]
        return grid([shown[k][i] for i in range(len(z)) for k in range(4)], columns=12)

    def _examples(self, latents: LatentSet, ids: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """z_0 [b, c, z, z], the condition [b, 1 + 2c, z, z] and token ids [b, n]."""
        x, masked, target = torch.from_numpy(latents.latents[rows].astype(np.float32)).unbind(1)
        modal = torch.from_numpy(latents.modal[rows].astype(np.float32))[:, None]
        return target, condition_of(modal, masked, x), ids[rows].clone()


def sampled(unet: nn.Module, z_t: Tensor, condition: Tensor, text: Tensor, steps: int) -> Tensor:
    """Latents [b, c, z, z] of completed objects from noise, by DDIM without guidance."""
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        v = unet(z_t, t.float().expand(len(z_t)), condition, text).float()
        z_t = scheduler.step(v, t, z_t).prev_sample
    return z_t


def finished(run: Path) -> Conditioned:
    """The denoiser and text encoder of a run."""
    module = Conditioned(Unet(MINI), TextEncoder(TEXT))
    load_ema(run, module)
    return module


def _timesteps(rng: Generator, batch: int) -> np.ndarray:
    """In [0, 1000), denser towards pure noise (p(t) ∝ 1/√(1000 − t)), stratified over the batch, in random order."""
    u = (np.arange(batch) + rng.random(batch)) / batch
    t: np.ndarray = np.ceil(1000 * (1 - u**2)).astype(np.int64) - 1
    return rng.permutation(np.maximum(t, 0))


def main(
    latents: Annotated[Path, typer.Option(help="what deocc_training.latents wrote")],
    autoencoder: Annotated[Path, typer.Option(help="the run that trained it; for the sample sheets")],
    words: Annotated[Path, typer.Option(help="what deocc_training.words wrote")],
    out: Annotated[Path, typer.Option()],
    steps: int = 60000,
    batch: int = 32,
    learning_rate: float = 4e-4,
    threads: int = 2,
) -> None:
    """Trains deocc-mini's denoiser; the same command resumes, with the latents that are there then."""
    recipe = UnetRecipe(
        LatentSet.open(latents / "train"), LatentSet.open(latents / "test"), words, _Decoder(pretrained(autoencoder))
    )
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads))


class _Decoder(nn.Module):
    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        picture: Tensor = self.vae.decode(latent)  # type: ignore[operator]
        return picture


if __name__ == "__main__":
    typer.run(main)
