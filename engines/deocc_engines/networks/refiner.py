"""The refiner: looks at the photo once more, at full resolution, and mends what was decoded from latents.

A latent of a small autoencoder holds neither sharp edges nor where the background shows. The refiner is given the
photo, the modal mask and the draft (the mean of the decoded draws) and says what to add to colours and mask; and, of
the whole view, whether the object is complete as it is, and how good the result will be (as SAM's IoU head does;
Kirillov et al., "Segment Anything", section 3). A U-Net of diffusers' blocks. Not part of the published DeoccAnything.
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
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

__all__ = ["Refiner", "RefinerConfig"]

INPUTS, OUTPUTS, VERDICTS = 8, 4, 2
SURE = 1e-3  # probabilities nearer to 0 or 1 than this count as this near


@dataclass(frozen=True)
class RefinerConfig:
    """Sizes of a refiner."""

    channels: tuple[int, ...] = (64, 96, 128)  # by level, finest first
    patch: int = 4  # pixels folded into channels along each side
    groups: int = 32  # of the normalisations


class Refiner(nn.Module):
    """`refiner(draft, photo, modal)` gives the mended draft and the verdicts."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        widths, square, groups = config.channels, config.patch**2, config.groups

        def block(given: int, wanted: int) -> ResnetBlock2D:
            return ResnetBlock2D(in_channels=given, out_channels=wanted, temb_channels=None, groups=groups)

        self.conv_in = nn.Conv2d(INPUTS * square, widths[0], 3, padding=1)
        self.down = nn.ModuleList([block(width, width) for width in widths])
        self.shrink = nn.ModuleList([Downsample2D(a, use_conv=True, out_channels=b) for a, b in pairwise(widths)])
        self.attention = Attention(
            widths[-1], heads=4, dim_head=widths[-1] // 4, norm_num_groups=groups, residual_connection=True, bias=True
        )
        self.middle = block(widths[-1], widths[-1])
        self.grow = nn.ModuleList([Upsample2D(b, use_conv=True, out_channels=a) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([block(2 * width, width) for width in widths[:-1]])
        self.norm = nn.GroupNorm(groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], OUTPUTS * square, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)
        self.verdicts = nn.Linear(widths[-1] + widths[0], VERDICTS)

    def forward(
        self, draft: Float[Tensor, "b 4 s s"], photo: Float[Tensor, "b 3 s s"], modal: Float[Tensor, "b 1 s s"]
    ) -> tuple[Float[Tensor, "b 4 s s"], Float[Tensor, "b 2"]]:
        """The mended draft, colours and the logit of the mask; and two logits: that next to nothing is hidden, and
        the IoU of the hidden part that is to be expected.

        Args:
            draft: colours on white in [−1, 1], and the probability of belonging to the complete object.
            photo: in [−1, 1].
            modal: in [0, 1].
        """
        rgb, probability = draft[:, :3], draft[:, 3:].clamp(SURE, 1 - SURE)
        logit = torch.log(probability / (1 - probability))
        seen = torch.cat([photo, 2 * modal - 1, rgb, 2 * probability - 1], dim=1)
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
        verdicts = self.verdicts(torch.cat([deep, x.mean((2, 3))], dim=1))
        return torch.cat([rgb, logit], dim=1) + change, verdicts
