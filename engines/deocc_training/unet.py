"""Training of the denoiser f_θ on cached latents.

v-prediction (Salimans & Ho, "Progressive Distillation", eq. in section 4) with min-SNR weights (Hang et al., γ = 5):
‖v − v_θ(z_t, t, y, 1 − m↓, E(x∘m), E(x))‖² · min(SNR, γ) / (SNR + 1). Image condition and caption are dropped at
times, so that both guidance scales have something to stand on.
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
from deocc_engines.networks.unet import Unet, UnetConfig
from deocc_engines.text import Tokenizer
from deocc_training.autoencoder import pretrained
from deocc_training.latents import LatentSet, build
from deocc_training.loop import LoopOptions, train
from deocc_training.scenes import SceneSet
from deocc_training.sheets import grid

__all__ = ["MINI", "SCHEDULE", "TEXT", "Conditioned", "UnetRecipe"]

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
GAMMA = 5.0
DROP_IMAGE, DROP_CAPTION = 0.1, 0.5
SHEET_STEPS = 20


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
        self._ids = torch.from_numpy(np.stack([tokenizer(caption) for caption in latents.captions]))
        self._held_out_ids = torch.from_numpy(np.stack([tokenizer(caption) for caption in held_out.captions]))
        self._none = torch.from_numpy(tokenizer(""))
        alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod
        self._sqrt_alpha, self._sqrt_one_minus_alpha = alphas.sqrt(), (1 - alphas).sqrt()

    def loss(self, rng: Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        rows = np.sort(rng.integers(len(self._latents), size=batch))
        z_0, condition, ids = self._examples(self._latents, self._ids, rows)
        condition[torch.from_numpy(rng.random(batch) < DROP_IMAGE)] = 0.0
        ids[torch.from_numpy(rng.random(batch) < DROP_CAPTION)] = self._none
        # Stratified over the batch: less noise in the loss than independent draws.
        t = torch.from_numpy(((np.arange(batch) + rng.random(batch)) / batch * 1000).astype(np.int64))
        t = t[torch.from_numpy(rng.permutation(batch))]
        noise = torch.from_numpy(rng.standard_normal(z_0.shape, np.float32))
        a, s = (table[t].reshape(-1, 1, 1, 1) for table in (self._sqrt_alpha, self._sqrt_one_minus_alpha))
        z_t, v = a * z_0 + s * noise, a * noise - s * z_0
        predicted = self.module.unet(z_t, t.float(), condition, self.module.text(ids)).float()
        snr = (a / s.clamp(min=1e-4)).square()
        weight = snr.clamp(max=GAMMA) / (snr + 1)
        # At zero SNR the weight would vanish, and with it the first step of sampling.
        weight = weight.clamp(min=0.1)
        error = (predicted - v).square()
        return (weight * error).mean(), {"v": error.mean().item()}

    def sheet(self, module: nn.Module) -> np.ndarray:
        assert isinstance(module, Conditioned)
        rows = np.arange(24)  # global and local windows in turn
        z_0, condition, ids = self._examples(self._held_out, self._held_out_ids, rows)
        scheduler = DDIMScheduler(**SCHEDULE)
        scheduler.set_timesteps(SHEET_STEPS)
        z = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(0))
        text = module.text(ids)
        for t in scheduler.timesteps:
            v = module.unet(z, t.float().expand(len(z)), condition, text).float()
            z = scheduler.step(v, t, z).prev_sample
        shown = [self._decode(latent).float() for latent in (condition[:, 5:], condition[:, 1:5], z, z_0)]
        return grid([shown[k][i] for i in range(len(z)) for k in range(4)], columns=12)

    def _examples(self, latents: LatentSet, ids: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """z_0 [b, c, z, z], the condition [b, 1 + 2c, z, z] and token ids [b, n]."""
        x, masked, target = torch.from_numpy(latents.latents[rows].astype(np.float32)).unbind(1)
        modal = torch.from_numpy(latents.modal[rows].astype(np.float32))[:, None]
        return target, torch.cat([1 - modal, masked, x], dim=1), ids[latents.scene[rows]].clone()


def main(
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option()],
    autoencoder: Annotated[Path, typer.Option(help="the run that trained it")],
    words: Annotated[Path, typer.Option(help="what deocc_training.words wrote")],
    out: Annotated[Path, typer.Option()],
    steps: int = 6000,
    batch: int = 32,
    learning_rate: float = 3e-4,
    threads: int = 2,
    scenes: int = 24000,
) -> None:
    """Encodes the scenes, then trains deocc-mini's denoiser; the same command resumes."""
    torch.set_num_threads(threads)
    vae = pretrained(autoencoder)
    for name, path in (("train", train_scenes), ("test", test_scenes)):
        build(SceneSet.open(path), vae, out / "latents" / name, limit=scenes)
    recipe = UnetRecipe(
        LatentSet.open(out / "latents" / "train"), LatentSet.open(out / "latents" / "test"), words, _Decoder(vae)
    )
    train(recipe, LoopOptions(out, steps, batch, learning_rate, ema=0.9995, threads=threads))


class _Decoder(nn.Module):
    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        picture: Tensor = self.vae.decode(latent)  # type: ignore[operator]
        return picture


if __name__ == "__main__":
    typer.run(main)
