"""Drafts: views of scenes with what the latent stages make of them, which is what a refiner learns from.

Samples of uint8 [12, s, s] in 0..255: the photo (3), the modal mask (1), the complete object on white (3), its
alpha (1), and of the draft, decoded as a completion decodes it, the colours (3) and the probability (1). They are made
by a bundle: compiled as it is served and written, or on a GPU, which makes them faster than a refiner learns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from jaxtyping import UInt8
from torch import Tensor, nn

from deocc_engines.bundle import find
from deocc_engines.components import calls_of, load_networks
from deocc_engines.runtimes import Runtime
from deocc_engines.runtimes.selection import runtime_of
from deocc_engines.text import Tokenizer
from deocc_training.bank import Picked, SceneBank
from deocc_training.samples import write
from deocc_training.unet import condition_of_views, sampled
from deocc_training.views import Warp, cut
from deocc_training.windows import global_window, local_window

__all__ = ["PARTS", "Drafter", "FreshDrafts"]

PARTS = [3, 1, 3, 1, 3, 1]  # channels, in the order above
BATCH = 32  # views drafted alike
STEPS = 2  # as the default preset
DRAWS = (1, 4)  # that the draft is the mean of: as the presets have it, and at times as one may ask for
MEANS = 0.15  # share of the local views that are drafted so
LOCAL = 0.65  # share of the views that are local


class Drafter:
    """A bundle's completer up to the decoded latents."""

    def __init__(self, runtime: Runtime, tokenizer: Tokenizer, size: int, device: str = "cpu") -> None:
        self._runtime, self._size = runtime, size
        self._no_text = runtime.encode_text(torch.from_numpy(tokenizer(""))[None].to(device))

    def __call__(self, picked: Picked, rng: np.random.Generator) -> UInt8[Tensor, "b 12 s s"]:
        """Views of scenes, warped, and their drafts; all of one kind."""
        local = rng.random() < LOCAL
        draws = DRAWS[local and rng.random() < MEANS]
        windows = [
            local_window(amodal, *extent, self._size, rng) if local else global_window(modal, *extent, self._size, rng)
            for extent, (modal, amodal) in zip(picked.extents, picked.boxes, strict=True)
        ]
        device = picked.labels.device
        seen = cut(picked, windows, Warp.draw(rng, len(windows), device))
        condition = condition_of_views(self._runtime.encode_image, seen)
        noise = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        rgb, p = torch.zeros_like(seen.image), torch.zeros_like(seen.alpha)
        for _ in range(draws):
            z_0 = self._denoised(condition, noise)
            rgb += ((self._runtime.decode_image(z_0).float() + 1) / 2).clamp(0, 1) / draws
            p += torch.sigmoid(self._runtime.decode_mask(z_0).float()) / draws
        layers = torch.cat([seen.image, seen.modal, seen.target, seen.alpha, rgb, p], dim=1)
        return (layers * 255).round().to(torch.uint8)

    def _denoised(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        channels = (condition.shape[1] - 1) // 2
        shape = len(condition), channels, *condition.shape[2:]
        noise = torch.randn(shape, generator=generator, device=condition.device)
        return sampled(self._runtime.denoise, noise, condition, self._no_text.expand(len(noise), -1, -1), STEPS)


class FreshDrafts:
    """Drafts of a bundle, made when they are wanted."""

    def __init__(self, bundle: str, scenes: Path, device: str) -> None:
        opened = find(bundle)
        networks = load_networks(opened)
        calls: dict[str, Callable[..., Any]] = {
            name: partial(_called, call.module.to(device), device) for name, call in calls_of(networks).items()
        }
        tokenizer = Tokenizer.open(opened.path / "tokenizer" / "tokenizer.json", networks.text_config.length)
        self._draft = Drafter(Runtime.batched("torch", calls, ""), tokenizer, opened.manifest["window"], device)
        self._bank = SceneBank(scenes, device)

    @torch.no_grad()
    def draw(self, rng: np.random.Generator, batch: int) -> Tensor:
        """[b, 12, s, s], values in [0, 1]."""
        return self._draft(self._bank.draw(rng, batch), rng).float() / 255


def _called(module: nn.Module, device: str, *inputs: Tensor) -> Any:
    with torch.autocast(device, torch.bfloat16):
        return module(*inputs)


def main(
    bundle: Annotated[str, typer.Option(help="name or path")],
    scenes: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    count: Annotated[int, typer.Option(help="rounded down to whole batches")] = 48000,
    seed: int = 0,
) -> None:
    """Drafts views of training scenes; the same command resumes."""
    opened = find(bundle)
    networks = load_networks(opened)
    torch.set_num_threads(2)
    size = opened.manifest["window"]
    drafter = Drafter(
        runtime_of(opened, calls_of(networks), "auto", streams=2),
        Tokenizer.open(opened.path / "tokenizer" / "tokenizer.json", networks.text_config.length),
        size,
    )
    bank = SceneBank(scenes)

    def make(start: int) -> UInt8[np.ndarray, "b 12 s s"]:
        rng, places = np.random.default_rng([seed, start]), np.arange(start, start + BATCH) % len(bank)
        with torch.inference_mode():
            return drafter(bank.pick(places), rng).numpy()

    write(out, count, BATCH, (sum(PARTS), size, size), make)


if __name__ == "__main__":
    typer.run(main)
