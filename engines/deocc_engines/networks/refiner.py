"""Refiners: look at the photo once more, close up, and mend what coarser networks made of it.

A latent of a small autoencoder holds neither sharp edges nor where the background shows, and a small SAM answers on a
coarse grid. Both refiners are U-Nets of diffusers' blocks that say what to add to an answer, and how good it will be
(as SAM's IoU head does; Kirillov et al., "Segment Anything", section 3). Neither is part of the published networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pixel_shuffle, pixel_unshuffle

__all__ = ["MaskRefiner", "MaskRefinerConfig", "Refiner", "RefinerConfig"]

BINS = 4  # of a histogram along each of red, green and blue
PRIOR, RARE = 2.0, 1e-3  # pixels, and share, of a colour that count as nothing
EDGE = 0.01  # what a visible pixel at the edge counts
NONE = 1e-4  # less than this of visible pixels counts as none
SURE = 1e-3  # probabilities nearer to 0 or 1 than this count as this near


@dataclass(frozen=True)
class RefinerConfig:
    """Sizes of a refiner."""

    channels: tuple[int, ...] = (64, 96, 128)  # by level, finest first
    patch: int = 4  # pixels folded into channels along each side
    groups: int = 32  # of the normalisations


@dataclass(frozen=True)
class MaskRefinerConfig(RefinerConfig):
    """Sizes of a mask refiner."""

    window: int = 128  # pixels along each side of what it is shown


class _PixelUnet(nn.Module):
    """From what is seen, channel by channel, to a change of each pixel and verdicts on the whole."""

    def __init__(self, config: RefinerConfig, inputs: int, outputs: int, verdicts: int) -> None:
        super().__init__()
        self.config = config
        widths, square, groups = config.channels, config.patch**2, config.groups

        def block(given: int, wanted: int) -> ResnetBlock2D:
            return ResnetBlock2D(in_channels=given, out_channels=wanted, temb_channels=None, groups=groups)

        self.conv_in = nn.Conv2d(inputs * square, widths[0], 3, padding=1)
        self.down = nn.ModuleList([block(width, width) for width in widths])
        self.shrink = nn.ModuleList([Downsample2D(a, use_conv=True, out_channels=b) for a, b in pairwise(widths)])
        self.attention = Attention(
            widths[-1], heads=4, dim_head=widths[-1] // 4, norm_num_groups=groups, residual_connection=True, bias=True
        )
        self.middle = block(widths[-1], widths[-1])
        self.grow = nn.ModuleList([Upsample2D(b, use_conv=True, out_channels=a) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([block(2 * width, width) for width in widths[:-1]])
        self.norm = nn.GroupNorm(groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], outputs * square, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)
        self.verdicts = nn.Linear(widths[-1] + widths[0], verdicts)

    def _read(self, seen: Float[Tensor, "b i s s"]) -> tuple[Float[Tensor, "b o s s"], Float[Tensor, "b v"]]:
        x = self.conv_in(pixel_unshuffle(seen, self.config.patch))
        skipped = []
        for level, block in enumerate(self.down):
            x = block(x, None)
            if level < len(self.shrink):
                skipped.append(x)
                x = self.shrink[level](x)
        x = self.middle(self.attention(x), None)
        deep = x.mean((2, 3))
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat([self.grow[level](x), skipped[level]], dim=1), None)
        x = nn.functional.silu(self.norm(x))
        change = pixel_shuffle(self.conv_out(x), self.config.patch)
        return change, self.verdicts(torch.cat([deep, x.mean((2, 3))], dim=1))


class Refiner(_PixelUnet):
    """`refiner(draft, photo, modal)` gives the mended draft (the mean of the decoded draws) and the verdicts.

    Next to what is visible, the colours found there tell more than the draft does: pixel by pixel it weighs the two.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__(config, inputs=11, outputs=5, verdicts=2)

    def forward(
        self, draft: Float[Tensor, "b 4 s s"], photo: Float[Tensor, "b 3 s s"], modal: Float[Tensor, "b 1 s s"]
    ) -> tuple[Float[Tensor, "b 4 s s"], Float[Tensor, "b 2"]]:
        """The mended draft: the object's own colours, not mixed with white at its edge, and the logit of the mask. And
        two logits: that next to nothing is hidden, and the IoU of the hidden part that is to be expected.

        Args:
            draft: colours on white in [−1, 1], and the probability of belonging to the complete object.
            photo: in [−1, 1].
            modal: in [0, 1].
        """
        rgb, probability = draft[:, :3], draft[:, 3:].clamp(SURE, 1 - SURE)
        logit = torch.log(probability / (1 - probability))
        spread = _spread(photo, modal)
        change, verdicts = self._read(torch.cat([photo, 2 * modal - 1, rgb, 2 * probability - 1, spread], dim=1))
        rgb = rgb + (spread - rgb) * torch.sigmoid(change[:, 4:])
        return torch.cat([rgb, logit], dim=1) + change[:, :4], verdicts


class MaskRefiner(_PixelUnet):
    """`refiner(answer, photo, clicks)` gives the mended answer of a SAM and the verdict."""

    config: MaskRefinerConfig

    def __init__(self, config: MaskRefinerConfig) -> None:
        super().__init__(config, inputs=9, outputs=1, verdicts=1)

    def forward(
        self, answer: Float[Tensor, "b 1 s s"], photo: Float[Tensor, "b 3 s s"], clicks: Float[Tensor, "b 2 s s"]
    ) -> tuple[Float[Tensor, "b 1 s s"], Float[Tensor, "b 1"]]:
        """Logits of the modal mask; and the logit of the IoU that is to be expected.

        Args:
            answer: the probability of belonging to the visible part.
            photo: in [−1, 1].
            clicks: 1 around those that include and around those that exclude, else 0.
        """
        probability = answer.clamp(SURE, 1 - SURE)
        logit = torch.log(probability / (1 - probability))
        evidence = _evidence(photo, torch.cat([probability, clicks], dim=1))
        change, verdict = self._read(torch.cat([photo, 2 * probability - 1, clicks, evidence], dim=1))
        return logit + change, verdict


def _spread(photo: Float[Tensor, "b 3 s s"], modal: Float[Tensor, "b 1 s s"]) -> Float[Tensor, "b 3 s s"]:
    """The visible part's colours, carried on over all of the window: a pull-push pyramid (Gortler et al., "The
    Lumigraph", 1996, section 3.4), in [−1, 1] as the photo; 0 where nothing is visible at all. Pixels at the very edge,
    which show some of what is beside them, hardly count."""
    weight = torch.maximum(-max_pool2d(-modal, 3, stride=1, padding=1), EDGE * modal)
    levels = [(photo * weight, weight)]
    while levels[-1][1].shape[-1] % 2 == 0:
        colour, weight = (4 * avg_pool2d(each, 2) for each in levels[-1])
        scale = 1 / weight.clamp(min=1)
        levels.append((colour * scale, weight * scale))
    filled = levels[-1][0] / levels[-1][1].clamp(min=NONE)
    for colour, weight in reversed(levels[:-1]):
        wider = interpolate(filled, scale_factor=2.0, mode="bilinear")
        filled = torch.lerp(wider, colour / weight.clamp(min=NONE), weight)
    return filled


def _evidence(photo: Float[Tensor, "b 3 s s"], parts: Float[Tensor, "b n s s"]) -> Float[Tensor, "b n s s"]:
    """How much more often a pixel's colour is met in each part than in all of the picture: the log ratio of two colour
    histograms, which is what GrabCut goes by (Rother et al. 2004), at half the resolution."""
    photo, parts = avg_pool2d(photo, 2), avg_pool2d(parts, 2)
    centres = torch.linspace(-1, 1, BINS, device=photo.device).reshape(1, BINS, 1, 1)
    red, green, blue = ((1 - (photo[:, i : i + 1] - centres).abs() * (BINS - 1) / 2).clamp(min=0) for i in range(3))
    near = red[:, :, None, None] * green[:, None, :, None] * blue[:, None, None]
    near = near.flatten(1, 3).flatten(2)  # [b, bins, places]: how near a place is to a colour; sums to 1 over colours
    overall = near.mean(2)
    inside = parts.flatten(2) @ near.transpose(1, 2)  # [b, n, bins]
    share = (inside + PRIOR * overall[:, None]) / (inside.sum(2, keepdim=True) + PRIOR)
    ratio = torch.log((share + RARE) / (overall[:, None] + RARE))
    return interpolate((ratio @ near).reshape(parts.shape), scale_factor=2.0, mode="nearest")
