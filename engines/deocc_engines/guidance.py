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

    The null image is a condition of zeros; the null text is the empty prompt.
    """

    image: float = 1.0  # s_img
    text: float = 1.0  # s_txt

    @property
    def passes(self) -> int:
        """Forward passes a step; both scales 1 mean no guidance."""
        return 1 if self.image == 1.0 and self.text == 1.0 else 3

    def rows(self, rows: Rows, no_text: Float[Tensor, "1 n d"]) -> Rows:
        """What to ask a denoiser for in place of `rows`."""
        if self.passes == 1:
            return rows
        z_t, t, condition, text = rows
        nothing, nobody = torch.zeros_like(condition), no_text.expand_as(text)
        return Rows(
            torch.cat([z_t] * 3),
            torch.cat([t] * 3),
            torch.cat([nothing, condition, condition]),
            torch.cat([nobody, nobody, text]),
        )

    def combined(self, predictions: Float[Tensor, "p c z z"]) -> Float[Tensor, "b c z z"]:
        """One prediction of what the denoiser said to `rows`."""
        if self.passes == 1:
            return predictions
        neither, image, both = predictions.chunk(3)
        return neither + self.image * (image - neither) + self.text * (both - image)
