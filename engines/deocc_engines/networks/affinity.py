"""Which places of an image belong to one instance: what a small SAM is given beside SAM's modules.

SAM's decoder must learn from its few prompts an image what an instance is, which took eleven million images. A metric
on pixels (Fathi et al., "Semantic Instance Segmentation via Deep Metric Learning", 2017, section 3.1) learns it from
all pairs of places at once; a prompt then starts from the places that are like the clicked ones, given to SAM's
decoder the way in which it knows masks: as mask prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Affinity", "detail_width"]

RADIUS = 0.7  # of what a point is taken to show, in cells of the fine grid (standard deviation)
NEARBY = 1.5  # the same for where a point's word is taken for certain
CERTAIN = 8.0  # logit of places that a point or a box decides
LIMIT = 16.0  # largest logit of a prior


def detail_width(prompt_width: int) -> int:
    """Channels of SAM's upscaled embedding."""
    return prompt_width // 8


class Affinity(nn.Module):
    """Features at half SAM's patch size from a backbone's and SAM's embedding, and priors from prompts.

    Args:
        width: channels of SAM's tokens.
        prompt_width: channels of SAM's embedding.
        channels: of the fine features.
        pyramid: channels of the backbone's features, finest first: at 4 g, 2 g, g and g / 2 cells along each side.
    """

    def __init__(self, width: int, prompt_width: int, channels: int, pyramid: Sequence[int]) -> None:
        super().__init__()
        self.channels = channels
        finest, fine, same, coarsest = pyramid
        detailed = detail_width(prompt_width)
        self.same, self.coarsest = nn.Conv2d(same, width, 1), nn.Conv2d(coarsest, width, 1)
        self.stem = nn.Conv2d(fine, channels, 1)
        self.coarse = nn.Conv2d(prompt_width, channels, 1)
        self.fuse = nn.Sequential(Residual(channels), Residual(channels))
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.finest = nn.Conv2d(finest, 2 * detailed, 1)
        self.magnified = nn.ConvTranspose2d(channels, 2 * detailed, 2, 2)
        self.detailed = nn.Sequential(Residual(2 * detailed), nn.Conv2d(2 * detailed, detailed, 1))

    def tokens(self, pyramid: Sequence[Tensor]) -> Float[Tensor, "b w g g"]:
        """In place of SAM's patches."""
        *_, same, coarsest = pyramid
        tokens: Tensor = self.same(same) + F.interpolate(self.coarsest(coarsest), scale_factor=2.0, mode="nearest")
        return tokens

    def fine(self, pyramid: Sequence[Tensor], embedding: Float[Tensor, "b d g g"]) -> Float[Tensor, "b c f f"]:
        """The backbone's features with what SAM's encoder says, f = 2 g."""
        coarse = F.interpolate(self.coarse(embedding), scale_factor=2.0, mode="nearest")
        features: Tensor = self.fuse(self.stem(pyramid[1]) + coarse)
        return features

    def detail(self, pyramid: Sequence[Tensor], fine: Float[Tensor, "b c f f"]) -> Float[Tensor, "b e l l"]:
        """What joins SAM's upscaled embedding, l = 4 g."""
        features: Tensor = self.detailed(self.finest(pyramid[0]) + self.magnified(fine))
        return features

    def together(self, fine: Float[Tensor, "b c f f"], asked: Float[Tensor, "b n p"]) -> Float[Tensor, "b n p"]:
        """Logits that a place belongs with what `asked` weights (each row sums to one); p = f² places."""
        query, key = self.query(fine).flatten(2), self.key(fine).flatten(2)
        logits: Tensor = asked @ query.transpose(1, 2) @ key / self.channels**0.5
        return logits

    def prior(
        self,
        fine: Float[Tensor, "b c f f"],
        coordinates: Float[Tensor, "b n 2"],
        labels: Float[Tensor, "b n"],
        cell: float,
    ) -> Float[Tensor, "b 1 l l"]:
        """Logits of the mask that points and box alone suggest, l = 2 f; 0 where they say nothing.

        Args:
            coordinates, labels: as of `Sam.decode`.
            cell: pixels along each side of a place.
        """
        side = fine.shape[-1]
        centres = torch.arange(side, dtype=coordinates.dtype, device=fine.device) + 0.5
        x, y = ((coordinates + 0.5) / cell).unsqueeze(-1).unbind(2)  # [b, n, 1] in cells
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
