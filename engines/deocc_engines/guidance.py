"""Classifier-free guidance with one scale for the image condition and one for the text (InstructPix2Pix, eq. 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Denoiser", "Guidance", "Rows"]

# model(z_t [b c z z], t [b], condition [b k z z], text [b n d]) -> prediction [b c z z]; torch, compiled or fake.
Denoiser = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Rows(NamedTuple):
    """What a denoiser is asked for."""

    z_t: Float[Tensor, "b c z z"]
    t: Float[Tensor, " b"]
    condition: Float[Tensor, "b k z z"]
    text: Float[Tensor, "b n d"]


@dataclass(frozen=True)
class Guidance:
    """ε = ε(∅,∅) + s_img·(ε(img,∅) − ε(∅,∅)) + s_txt·(ε(img,txt) − ε(img,∅)), in one batched call.

    The null image is a condition of zeros; the null text is the empty prompt. Where that is the prompt, both scales had
    better be s_img: then ε(img,∅) is asked for once.
    """

    image: float = 1.0  # s_img
    text: float = 1.0  # s_txt

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of ε(∅,∅), ε(img,∅) and ε(img,txt)."""
        return 1 - self.image, self.image - self.text, self.text

    @property
    def passes(self) -> int:
        """Forward passes a step: what has no weight is not asked for; both scales 1 mean no guidance."""
        return sum(weight != 0 for weight in self.weights)

    def rows(self, rows: Rows, no_text: Float[Tensor, "1 n d"]) -> Rows:
        """What to ask a denoiser for in place of `rows`."""
        z_t, t, condition, text = rows
        nothing, nobody = torch.zeros_like(condition), no_text.expand_as(text)
        all_three = (nothing, nobody), (condition, nobody), (condition, text)
        asked = [pair for pair, weight in zip(all_three, self.weights, strict=True) if weight]
        conditions, texts = zip(*asked, strict=True)
        return Rows(torch.cat([z_t] * len(asked)), torch.cat([t] * len(asked)), torch.cat(conditions), torch.cat(texts))

    def combined(self, predictions: Float[Tensor, "p c z z"]) -> Float[Tensor, "b c z z"]:
        """One prediction of what the denoiser said to `rows`."""
        weights = [weight for weight in self.weights if weight]
        parts = [weight * part for weight, part in zip(weights, predictions.chunk(len(weights)), strict=True)]
        return torch.stack(parts).sum(0)
