"""Text encoders: token ids in, one vector a token out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["ClipTextConfig", "ClipTextEncoder", "TextConfig", "TextEncoder"]


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the small text encoder."""

    vocabulary: int = 30522
    table_width: int = 128  # of the frozen token table
    width: int = 256
    layers: int = 2
    heads: int = 4
    length: int = 16  # tokens a prompt


class TextEncoder(nn.Module):
    """A frozen table of pretrained token vectors under a small trained transformer.

    The table holds the meaning of words never met in training; the transformer learns what matters for shape and
    colour. How the table is made: `deocc_training.words`.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary, config.table_width).requires_grad_(False)
        self.lift = nn.Linear(config.table_width, config.width)
        self.place = nn.Parameter(torch.zeros(config.length, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            2 * config.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        tokens: Tensor = self.norm(self.layers(self.lift(self.table(ids)) + self.place))
        return tokens


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes of OpenCLIP's text encoder as Stable Diffusion 2 uses it; the defaults are ViT-H's 23 layers."""

    vocabulary: int = 49408
    width: int = 1024
    layers: int = 23
    heads: int = 16
    mlp: int = 4096
    length: int = 77


class ClipTextEncoder(nn.Module):
    """transformers' CLIPTextModel; all tokens of the last layer, normalised."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        from transformers import CLIPTextConfig, CLIPTextModel  # seconds to import, and only full-size bundles need it

        self.config = config
        self.network = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=config.vocabulary,
                hidden_size=config.width,
                intermediate_size=config.mlp,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.length,
                hidden_act="gelu",
                projection_dim=512,
            )
        )

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        tokens: Tensor = self.network(input_ids=ids).last_hidden_state
        return tokens
