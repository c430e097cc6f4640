"""Image autoencoder and mask decoder over diffusers' AutoencoderKL.

With ``patch = 1`` and the sizes of Stable Diffusion 2 these are the published VAE and the mask decoder of
SynergyAmodal (section "deocclusion", mask decoder: a copy of the VAE decoder with one output channel). With
``patch = 4`` pixels are first folded into channels (space to depth), so that no layer works at full resolution:
thin layers at full resolution are what makes small autoencoders slow on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

__all__ = ["Autoencoder", "AutoencoderConfig", "MaskDecoder"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of an autoencoder; the defaults are Stable Diffusion 2's."""

    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)  # by level, finest first
    layers: int = 2  # residual blocks a level
    patch: int = 1  # pixels folded into channels along each side
    scale: float = 0.18215  # latents times this have unit variance

    @property
    def factor(self) -> int:
        """Pixels along each side of one latent."""
        return int(self.patch * 2 ** (len(self.channels) - 1))

    def network(self, image_channels: int) -> AutoencoderKL:
        """The bare network for images of so many channels."""
        levels = len(self.channels)
        return AutoencoderKL(
            in_channels=image_channels * self.patch**2,
            out_channels=image_channels * self.patch**2,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(self.channels),
            layers_per_block=self.layers,
            latent_channels=self.latent_channels,
            scaling_factor=self.scale,
        )


class Autoencoder(nn.Module):
    """RGB in [−1, 1] to latents of unit variance and back."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network(3)

    def encode(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c z z"]:
        """The mode of the posterior, scaled."""
        folded = pixel_unshuffle(image, self.config.patch)
        moments = self.network.quant_conv(self.network.encoder(folded))
        mode: Tensor = moments.chunk(2, dim=1)[0] * self.config.scale
        return mode

    def decode(self, latent: Float[Tensor, "b c z z"]) -> Float[Tensor, "b 3 s s"]:
        folded = self.network.decoder(self.network.post_quant_conv(latent / self.config.scale))
        return pixel_shuffle(folded, self.config.patch)


class MaskDecoder(nn.Module):
    """The latent of an object on white to the logit of its mask."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        network = config.network(3)
        last = network.decoder.conv_out
        network.decoder.conv_out = nn.Conv2d(last.in_channels, config.patch**2, 3, padding=1)
        nn.init.zeros_(network.decoder.conv_out.weight)
        nn.init.zeros_(network.decoder.conv_out.bias)
        self.post_quant_conv = network.post_quant_conv
        self.decoder = network.decoder

    def forward(self, latent: Float[Tensor, "b c z z"]) -> Float[Tensor, "b 1 s s"]:
        folded = self.decoder(self.post_quant_conv(latent / self.config.scale))
        return pixel_shuffle(folded, self.config.patch)

    @torch.no_grad()
    def start_from(self, autoencoder: Autoencoder) -> None:
        """Takes the image decoder's weights, all but the last convolution; the first one stays frozen."""
        source = autoencoder.network.state_dict()
        for name, own in self.state_dict(keep_vars=True).items():
            if not name.startswith("decoder.conv_out"):
                own.copy_(source[name])
        self.post_quant_conv.requires_grad_(False)
