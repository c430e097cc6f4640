"""Training of the denoiser f_θ.

v-prediction (Salimans & Ho, "Progressive Distillation", eq. in section 4):
w · ‖v − v_θ(z_t, t, y, 1 − m↓, E(x∘m), E(x))‖². Image condition and caption are dropped at times, so that both guidance
scales have something to stand on. min-SNR weights (Hang et al.) are not used: they fade the noisiest timesteps, and in
deocclusion, where the condition says nearly everything, these decide the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers.models.resnet import ResnetBlock2D
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.random import Generator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from deocc_engines.guidance import Denoiser
from deocc_engines.networks.autoencoder import Autoencoder
from deocc_engines.networks.text import TextConfig, TextEncoder
from deocc_engines.networks.unet import Unet, UnetConfig, condition_of
from deocc_engines.text import Tokenizer
from deocc_engines.window import Window
from deocc_training.autoencoder import SIZE, pretrained, signed
from deocc_training.bank import Picked, SceneBank, open_banks
from deocc_training.loop import Figures, LoopOptions, load_ema, train
from deocc_training.sheets import grid
from deocc_training.views import Views, Warp, cut
from deocc_training.windows import global_window, local_window

__all__ = [
    "MINI",
    "SCHEDULE",
    "TEXT",
    "Conditioned",
    "UnetRecipe",
    "condition_of_views",
    "encoded",
    "finished",
    "sampled",
    "stage_windows",
]

MINI = UnetConfig(
    latent_channels=8,
    latent_size=16,
    channels=(128, 192, 224),
    heads=(4, 6, 7),
    attention=(True, True, True),
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
DROP_IMAGE, DROP_CAPTION = 0.15, 0.3
MUCH_HIDDEN = 0.5  # share of the views that are the more hidden one of two: there it matters what is guessed
DROPOUT = 0.1  # in residual blocks: there are far fewer objects than views of them
SHEET_STEPS = 4


class Conditioned(nn.Module):
    """The denoiser and the text encoder that is trained with it."""

    def __init__(self, unet: Unet, text: TextEncoder) -> None:
        super().__init__()
        self.unet, self.text = unet, text


class UnetRecipe:
    """Denoising of completed objects, in global and local windows."""

    def __init__(self, scenes: SceneBank, held_out: SceneBank, words: Path, autoencoder: Autoencoder) -> None:
        text = TextEncoder(TEXT)
        text.table.weight.data.copy_(load_file(words / "table.safetensors")["table"])
        self.module = Conditioned(Unet(MINI), text)
        for block in self.module.unet.modules():
            if isinstance(block, ResnetBlock2D):
                block.dropout.p = DROPOUT
        device = scenes.device
        self._scenes, self._autoencoder = scenes, autoencoder.to(device)
        self._words = cache(Tokenizer.open(words / "tokenizer.json", TEXT.length))
        alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
        self._sqrt_alpha, self._sqrt_one_minus_alpha = alphas.sqrt(), (1 - alphas).sqrt()
        picked = held_out.pick(np.arange(min(24, len(held_out))))
        windows = [
            global_window(boxes[0], *size, SIZE) if row % 2 else local_window(boxes[1], *size, SIZE)
            for row, (size, boxes) in enumerate(zip(picked.extents, picked.boxes, strict=True))
        ]
        self._fixed, self._fixed_captions = cut(picked, windows), picked.captions

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        """Views, layer by layer; whether a view is shown to the denoiser; captions; timesteps."""
        picked = self._scenes.draw(rng, count, MUCH_HIDDEN)
        device = picked.labels.device
        seen = cut(picked, stage_windows(picked, rng), Warp.draw(rng, count, device))
        shown = torch.from_numpy(rng.random((count, 1, 1, 1)) >= DROP_IMAGE)
        dropped = rng.random(count) < DROP_CAPTION
        ids = self._ids(["" if drop else caption for drop, caption in zip(dropped, picked.captions, strict=True)])
        t = torch.from_numpy(_timesteps(rng, count))
        return seen.image, seen.modal, seen.target, seen.alpha, shown.to(device), ids, t.to(device)

    def loss(self, *batch: Tensor) -> tuple[Tensor, Figures]:
        *layers, shown, ids, t = batch
        seen = Views(*layers)
        z_0, condition = encoded(self._autoencoder, seen)
        condition = condition * shown
        noise = torch.randn_like(z_0)
        a, s = (table[t].reshape(-1, 1, 1, 1) for table in (self._sqrt_alpha, self._sqrt_one_minus_alpha))
        z_t, v = a * z_0 + s * noise, a * noise - s * z_0
        predicted = self.module.unet(z_t, t.float(), condition, self.module.text(ids)).float()
        modal, hidden = (F.avg_pool2d(part, self._autoencoder.config.factor) for part in (seen.modal, seen.hidden()))
        weight = 1 + (HIDDEN_WEIGHT - 1) * hidden + (VISIBLE_WEIGHT - 1) * modal
        error = (predicted - v).square()
        inside = (error.detach() * hidden).sum() / hidden.sum().clamp(min=1e-3) / error.shape[1]
        return (weight * error).mean(), {"v": error.detach().mean(), "hidden_v": inside}

    def sheet(self, module: nn.Module) -> np.ndarray:
        assert isinstance(module, Conditioned)
        z_0, condition = encoded(self._autoencoder, self._fixed)
        noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(0)).to(z_0.device)
        z = sampled(module.unet, noise, condition, module.text(self._ids(self._fixed_captions)), SHEET_STEPS)
        shown = [signed(self._fixed.image), signed(self._fixed.masked()), self._autoencoder.decode(z).float()]
        shown.append(signed(self._fixed.target))
        return grid([shown[k][i] for i in range(len(z)) for k in range(4)], columns=12)

    def _ids(self, captions: Sequence[str]) -> Tensor:
        """[b, n]"""
        return torch.from_numpy(np.stack([self._words(caption) for caption in captions])).to(self._scenes.device)


def stage_windows(picked: Picked, rng: Generator) -> list[Window]:
    """As the two stages of a completion place them, one or the other."""
    return [
        global_window(modal, *size, SIZE, rng) if rng.random() < 0.5 else local_window(amodal, *size, SIZE, rng)
        for size, (modal, amodal) in zip(picked.extents, picked.boxes, strict=True)
    ]


@torch.no_grad()
def encoded(autoencoder: Autoencoder, seen: Views) -> tuple[Tensor, Tensor]:
    """z_0 = E(x_g) [b, c, z, z] and the condition [b, 1 + 2c, z, z] of views."""
    return autoencoder.encode(signed(seen.target)).float(), condition_of_views(autoencoder.encode, seen)


def condition_of_views(encode: Callable[[Tensor], Tensor], seen: Views) -> Tensor:
    """What a completion shows the denoiser of them: [b, 1 + 2c, z, z]."""
    masked, image = encode(signed(torch.cat([seen.masked(), seen.image]))).float().chunk(2)
    return condition_of(F.interpolate(seen.modal, masked.shape[-2:], mode="area"), masked, image)


def sampled(denoise: Denoiser, z_t: Tensor, condition: Tensor, text: Tensor, steps: int) -> Tensor:
    """Latents [b, c, z, z] of completed objects from noise, by DDIM without guidance."""
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        v = denoise(z_t, t.float().to(z_t.device).expand(len(z_t)), condition, text).float()
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
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option(help="for the sample sheets")],
    autoencoder: Annotated[Path, typer.Option(help="the run that trained it")],
    words: Annotated[Path, typer.Option(help="what deocc_training.words wrote")],
    out: Annotated[Path, typer.Option()],
    steps: int = 60000,
    batch: int = 32,
    learning_rate: float = 4e-4,
    threads: int = 2,
    device: str = "cpu",
    minutes: Annotated[float | None, typer.Option(help="end by the clock instead of by steps")] = None,
) -> None:
    """Trains deocc-mini's denoiser; the same command resumes."""
    recipe = UnetRecipe(*open_banks(train_scenes, test_scenes, device), words, pretrained(autoencoder))
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads, device=device, minutes=minutes))


if __name__ == "__main__":
    typer.run(main)
