"""Classifier-free guidance with one scale for the image condition and one for the text (InstructPix2Pix, eq. 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Denoiser", "Guidance", "guided"]

# model(z_t [b c z z], t [b], condition [b k z z], text [b n d]) -> prediction [b c z z]; torch, compiled or fake.
Denoiser = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Guidance:
    """Scales; both 1 means no guidance and one forward pass a step."""

    image: float = 1.0  # s_img
    text: float = 1.0  # s_txt

    @property
    def passes(self) -> int:
        """Forward passes a step."""
        return 1 if self.image == 1.0 and self.text == 1.0 else 3


def guided(denoiser: Denoiser, guidance: Guidance, no_text: Float[Tensor, "1 n d"]) -> Denoiser:
    """ε = ε(∅,∅) + s_img·(ε(img,∅) − ε(∅,∅)) + s_txt·(ε(img,txt) − ε(img,∅)), in one batched call.

    The null image is a condition of zeros; the null text is the empty prompt.
    """
    if guidance.passes == 1:
        return denoiser

    def model(z_t: Tensor, t: Tensor, condition: Tensor, text: Tensor) -> Tensor:
        nothing, nobody = torch.zeros_like(condition), no_text.expand_as(text)
        predictions = denoiser(
            torch.cat([z_t] * 3),
            torch.cat([t] * 3),
            torch.cat([nothing, condition, condition]),
            torch.cat([nobody, nobody, text]),
        )
        neither, image, both = predictions.chunk(3)
        return neither + guidance.image * (image - neither) + guidance.text * (both - image)

    return model
