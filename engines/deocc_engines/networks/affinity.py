"""Which places of an image belong to one instance: what a SAM that starts from nothing is given beside SAM's modules.

SAM's decoder must learn from its few prompts an image what an instance is, which took eleven million images. A metric
on pixels (Fathi et al., "Semantic Instance Segmentation via Deep Metric Learning", 2017, section 3.1) learns it from
all pairs of places at once; a prompt then starts from the places that are like the clicked ones, given to SAM's
decoder the way in which it knows masks: as mask prompt.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Affinity"]

RADIUS = 0.7  # of what a point is taken to show, in cells of the fine grid (standard deviation)
NEARBY = 1.5  # the same for where a point's word is taken for certain
CERTAIN = 8.0  # logit of places that a point or a box decides
LIMIT = 16.0  # largest logit of a prior


class Affinity(nn.Module):
    """Features at half SAM's patch size from a convolutional stem and SAM's embedding, and priors from prompts.

    Args:
        patch: pixels along each side of SAM's tokens; a power of two from 4 on.
        width: channels of SAM's tokens.
        prompt_width: channels of SAM's embedding.
        channels: of the fine features.
    """

    def __init__(self, patch: int, width: int, prompt_width: int, channels: int) -> None:
        super().__init__()
        self.channels, self.cell = channels, patch // 2
        layers: list[nn.Module] = []
        count = 3
        for side in range(1, self.cell.bit_length()):
            wider = channels if 1 << side == self.cell else channels // 2
            layers += [nn.Conv2d(count, wider, 3, 2, 1), nn.GroupNorm(8, wider), nn.GELU()]
            count = wider
        self.stem = nn.Sequential(*layers, Residual(channels), Residual(channels))
        self.tokens = nn.Conv2d(channels, width, 2, 2)  # joins SAM's patch embedding
        self.coarse = nn.Conv2d(prompt_width, channels, 1)
        self.fuse = nn.Sequential(Residual(channels), Residual(channels))
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.detail = nn.ConvTranspose2d(channels, prompt_width // 8, 2, 2)  # joins SAM's upscaled embedding
        for added in (self.tokens, self.detail):
            nn.init.zeros_(added.weight)
            assert added.bias is not None
            nn.init.zeros_(added.bias)

    def fine(self, stem: Float[Tensor, "b c f f"], embedding: Float[Tensor, "b d g g"]) -> Float[Tensor, "b c f f"]:
        """The stem's features with what SAM's encoder says, f = 2 g."""
        features: Tensor = self.fuse(stem + F.interpolate(self.coarse(embedding), scale_factor=2.0, mode="nearest"))
        return features

    def together(self, fine: Float[Tensor, "b c f f"], asked: Float[Tensor, "b n p"]) -> Float[Tensor, "b n p"]:
        """Logits that a place belongs with what `asked` weights (each row sums to one); p = f² places."""
        query, key = self.query(fine).flatten(2), self.key(fine).flatten(2)
        logits: Tensor = asked @ query.transpose(1, 2) @ key / self.channels**0.5
        return logits

    def prior(
        self, fine: Float[Tensor, "b c f f"], coordinates: Float[Tensor, "b n 2"], labels: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b 1 l l"]:
        """Logits of the mask that points and box alone suggest, l = 2 f; 0 where they say nothing.

        Args:
            coordinates, labels: as of `Sam.decode`.
        """
        side = fine.shape[-1]
        centres = torch.arange(side, dtype=coordinates.dtype, device=fine.device) + 0.5
        x, y = ((coordinates + 0.5) / self.cell).unsqueeze(-1).unbind(2)  # [b, n, 1] in cells
        away_x, away_y = (centres - x).square(), (centres - y).square()
        distance = (away_y.unsqueeze(-1) + away_x.unsqueeze(-2)).flatten(2)  # [b, n, p], squared
        logits = self.together(fine, torch.softmax(-distance / (2 * RADIUS**2), dim=2))
        near = CERTAIN * torch.exp(-distance / (2 * NEARBY**2))
        included, excluded = (labels == 1).unsqueeze(-1), (labels == 0).unsqueeze(-1)
        alike = torch.where(included, logits + near, -LIMIT).amax(1).clamp(min=-LIMIT)
        alike = torch.where(included.any(1), alike, 0.0)
        unlike = torch.where(excluded, F.relu(logits) + near, 0.0).amax(1)
        outside = self._outside(centres, x, y, labels).flatten(1)
        prior = (alike - unlike - CERTAIN * outside).clamp(-LIMIT, LIMIT)
        return F.interpolate(prior.reshape(-1, 1, side, side), scale_factor=2.0, mode="bilinear")

    @staticmethod
    def _outside(centres: Tensor, x: Tensor, y: Tensor, labels: Tensor) -> Float[Tensor, "b f f"]:
        """1 outside of the box, if there is one, 0 inside; a cell's width between."""
        inside = []
        for place in (y, x):
            low = torch.where(labels == 2, place.squeeze(2), 0.0).sum(1, keepdim=True)
            high = torch.where(labels == 3, place.squeeze(2), 0.0).sum(1, keepdim=True)
            inside.append(((centres - low).clamp(-0.5, 0.5) + (high - centres).clamp(-0.5, 0.5)).clamp(0, 1))
        boxed = (labels == 3).any(1).to(centres.dtype).reshape(-1, 1, 1)
        return boxed * (1 - inside[0].unsqueeze(2) * inside[1].unsqueeze(1))


class Residual(nn.Module):
    """x + conv(gelu(norm(conv(gelu(norm(x))))))"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.block(x)
        return y
