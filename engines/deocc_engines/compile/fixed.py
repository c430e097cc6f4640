"""The inputs on which engines are compared: one drawn scene, and what the reference makes of it on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from deocc_engines.bundle import Bundle
from deocc_engines.closeup import close_up
from deocc_engines.components import Networks
from deocc_engines.prompt import Point, Prompt
from deocc_engines.sampler import Schedule, noise_for
from deocc_engines.segmenter import normalised, prompt_tokens
from deocc_engines.text import Tokenizer
from deocc_engines.window import Window

__all__ = ["ORDER", "FixedInputs", "scene"]

Row = tuple[Tensor, ...]  # the inputs of one row
# Each call's inputs are made of what those before it gave.
ORDER = (
    *("encode_text", "encode_image", "denoise", "decode_image", "decode_mask", "refine"),
    *("sam_encode", "sam_decode", "refine_mask"),
)
SIDE = 256  # pixels
PROMPTS = tuple(Prompt((Point(100, 120), Point(157, 130, include=False))[:count]) for count in (1, 2))
STEPS = 20  # of the schedule whose first, middle and last step are compared


def scene() -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """A shaded ball behind a post, and the ball's visible part."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    pixels = np.stack([120 + x / 4, 160 - y / 4, 90 + (x + y) / 8], axis=2)
    ball = (x - 120) ** 2 + (y - 130) ** 2 <= 70**2
    shade = 1 - np.hypot(x - 95, y - 100) / 220
    pixels[ball] = (np.array([230, 60, 40]) * shade[..., None])[ball]
    post = (x >= 140) & (x < 175)
    pixels[post] = (60, 70, 80)
    texture = np.random.default_rng(0).normal(0, 4, pixels.shape)
    return np.clip(pixels + texture, 0, 255).astype(np.uint8), ball & ~post


class FixedInputs:
    """Rows for every call, in `ORDER`.

    Args:
        bundle: for its tokenizer and schedule.
    """

    def __init__(self, bundle: Bundle, networks: Networks) -> None:
        self._networks, manifest = networks, bundle.manifest
        self._tokenizer = Tokenizer.open(bundle.path / "tokenizer" / "tokenizer.json", networks.text_config.length)
        self._schedule = Schedule(manifest["schedule"]["name"], manifest["schedule"]["config"])
        self._window = int(manifest["window"])
        self._pixels, self._modal = scene()
        self._given: dict[str, list[Any]] = {}

    def rows(self, name: str) -> list[Row]:
        """The inputs of one call. Those before it in `ORDER` must have been answered."""
        make: dict[str, Callable[[], list[Row]]] = {
            "encode_text": self._words,
            "encode_image": self._images,
            "denoise": self._noisy,
            "decode_image": self._latents,
            "decode_mask": self._latents,
            "refine": self._drafts,
            "sam_encode": lambda: [(torch.from_numpy(normalised(self._pixels, self._sam))[None],)],
            "sam_decode": self._prompts,
            "refine_mask": self._answers,
        }
        return make[name]()

    def answered(self, name: str, outputs: list[Any]) -> None:
        """Keeps what the reference gave, row by row."""
        self._given[name] = outputs

    @property
    def _sam(self) -> int:
        return self._networks.sam.config.image_size

    def _words(self) -> list[Row]:
        return [(torch.from_numpy(self._tokenizer(text))[None],) for text in ("", "a red ball")]

    def _images(self) -> list[Row]:
        """The visible part on white, and the whole image."""
        window = Window.whole(SIDE, SIDE, self._window)
        image = window.take(self._pixels, 255.0)
        modal = window.take(self._modal.astype(np.float32), 0.0)[..., None]
        images = (image * modal + 255 * (1 - modal), image)
        return [(torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1)) / 127.5 - 1)[None],) for i in images]

    def _drafts(self) -> list[Row]:
        """Of both images, beside the photo."""
        (_, photo), window = self._images(), Window.whole(SIDE, SIDE, self._window)
        modal = torch.from_numpy(window.take(self._modal.astype(np.float32), 0.0))[None, None]
        decoded = zip(self._given["decode_image"], self._given["decode_mask"], strict=True)
        return [(torch.cat([rgb, torch.sigmoid(logit)], dim=1), *photo, modal) for rgb, logit in decoded]

    def _latents(self) -> list[Row]:
        return [(latent,) for latent in self._given["encode_image"]]

    def _noisy(self) -> list[Row]:
        """The first, a middle and the last step of a schedule; with and without words."""
        masked, whole = self._given["encode_image"]
        nothing, words = self._given["encode_text"]
        z = masked.shape[-1]
        window = Window.whole(SIDE, SIDE, z)
        seen = torch.from_numpy(window.take(self._modal.astype(np.float32), 0.0))[None, None]
        condition = torch.cat([1 - seen, masked, whole], dim=1)
        scheduler = self._schedule.fresh(STEPS)
        noise = noise_for(0, "parity", tuple(masked.shape))
        steps = [scheduler.timesteps[i] for i in (0, STEPS // 2, STEPS - 1)]
        return [
            (
                scheduler.scale_model_input(scheduler.add_noise(masked, noise, t.reshape(1)), t),
                t.float().reshape(1),
                condition,
                text,
            )
            for t, text in zip(steps, (words, nothing, words), strict=True)
        ]

    def _answers(self) -> list[Row]:
        """The first to each prompt, close up."""
        assert self._networks.mask_refiner is not None
        size = self._networks.mask_refiner.config.window
        answers = (logits[0, 0].float().numpy() for logits, _ in self._given["sam_decode"])
        seen = [close_up(self._pixels, own, p, size) for own, p in zip(answers, PROMPTS, strict=True)]
        return [tuple(torch.from_numpy(part)[None] for part in (s.answer, s.photo, s.clicks)) for s in seen]

    def _prompts(self) -> list[Row]:
        """One point, and two."""
        embedding = self._given["sam_encode"][0]
        low = torch.zeros(1, 1, 4 * self._networks.sam.grid, 4 * self._networks.sam.grid)
        rows: list[Row] = []
        for prompt in PROMPTS:
            coordinates, labels = prompt_tokens(prompt, self._sam / SIDE)
            given = torch.from_numpy(coordinates)[None], torch.from_numpy(labels)[None]
            rows.append((embedding, *given, low, torch.zeros(1)))
        return rows
