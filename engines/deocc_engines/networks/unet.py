"""The denoiser: diffusers' UNet2DConditionModel with the channel layout of DeoccAnything.

Input channels, in this order: ``z_t (c) | mask (1) | E(x∘m) (c) | E(x) (c)``; 13 for c = 4. The mask channel is
1 − m at latent size (SynergyAmodal, section 3; the SD2 inpainting UNet with its ``conv_in`` widened from 9 to 13).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Unet", "UnetConfig", "condition_of"]


@dataclass(frozen=True)
class UnetConfig:
    """Sizes of a denoiser; the defaults are DeoccAnything's."""

    latent_channels: int = 4
    latent_size: int = 64
    channels: tuple[int, ...] = (320, 640, 1280, 1280)  # by level, finest first
    heads: tuple[int, ...] = (5, 10, 20, 20)  # of attention, by level
    attention: tuple[bool, ...] = (True, True, True, False)  # which levels attend to themselves and to the text
    layers: int = 2  # residual blocks a level
    text_width: int = 1024

    @property
    def condition_channels(self) -> int:
        return 1 + 2 * self.latent_channels


def condition_of(
    modal: Float[Tensor, "b 1 z z"], masked: Float[Tensor, "b c z z"], image: Float[Tensor, "b c z z"]
) -> Float[Tensor, "b k z z"]:
    """The k = 1 + 2c channels that stand behind z_t: 1 − m↓, E(x∘m), E(x).

    Args:
        modal: m↓, the share of each latent that belongs to the visible part, in [0, 1].
        masked, image: E(x∘m) and E(x).
    """
    return torch.cat([1 - modal, masked, image], dim=1)


class Unet(nn.Module):
    """`unet(z_t, t, condition, text)` gives the prediction (ε or v, as the bundle's schedule says)."""

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.config = config
        down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in config.attention)
        up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(config.attention))
        self.network = UNet2DConditionModel(
            sample_size=config.latent_size,
            in_channels=config.latent_channels + config.condition_channels,
            out_channels=config.latent_channels,
            down_block_types=down,
            up_block_types=up,
            block_out_channels=tuple(config.channels),
            layers_per_block=config.layers,
            cross_attention_dim=config.text_width,
            attention_head_dim=list(config.heads),  # diffusers' name for the number of heads
            use_linear_projection=True,
        )

    def forward(
        self,
        z_t: Float[Tensor, "b c z z"],
        t: Float[Tensor, " b"],
        condition: Float[Tensor, "b k z z"],
        text: Float[Tensor, "b n d"],
    ) -> Float[Tensor, "b c z z"]:
        prediction: Tensor = self.network(
            torch.cat([z_t, condition], dim=1), t, encoder_hidden_states=text, return_dict=False
        )[0]
        return prediction
