"""SAM from segment-anything's own modules, at any size (Kirillov et al., "Segment Anything", 2023)."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deocc_engines.networks.affinity import Affinity, detail_width
from deocc_engines.networks.efficientnet import EfficientNetLite, pyramid_of

__all__ = ["Sam", "SamConfig"]


@dataclass(frozen=True)
class SamConfig:
    """Sizes of a segmenter; the defaults are ViT-B's."""

    image_size: int = 1024  # pixels along each side of the padded input
    patch: int = 16  # pixels along each side of one token
    width: int = 768
    depth: int = 12
    heads: int = 12
    global_attention: tuple[int, ...] = (2, 5, 8, 11)  # blocks that attend to the whole image
    window: int = 14  # tokens along each side, in the other blocks
    prompt_width: int = 256
    decoder_depth: int = 2
    decoder_mlp: int = 2048
    affinity: int = 0  # channels of `Affinity`; 0: SAM as published
    # Of the stages of the EfficientNet-Lite that goes with `affinity`.
    backbone_channels: tuple[int, ...] = ()
    backbone_blocks: tuple[int, ...] = ()


@cache
def _modeling() -> ModuleType:
    # segment_anything's own __init__ imports torchvision, which its networks do not need.
    package = importlib.util.find_spec("segment_anything")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("segment-anything is not installed")
    folder = Path(package.origin).parent / "modeling"
    name = "_segment_anything_modeling"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder; state-dict names are segment-anything's.

    With `config.affinity` an `Affinity` joins them, and with it a convolutional backbone: its coarser features are
    SAM's patches; the affinity's priors join the mask prompt, its details the mask. The embedding then carries both
    after SAM's own channels.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        modeling = _modeling()
        grid = config.image_size // config.patch
        self.image_encoder = modeling.ImageEncoderViT(
            img_size=config.image_size,
            patch_size=config.patch,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=4,
            out_chans=config.prompt_width,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=not config.affinity,  # a backbone knows what is beside what
            window_size=config.window,
            global_attn_indexes=config.global_attention,
        )
        self.prompt_encoder = modeling.PromptEncoder(
            embed_dim=config.prompt_width,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=16,
        )
        self.mask_decoder = modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=config.decoder_depth, embedding_dim=config.prompt_width, mlp_dim=config.decoder_mlp, num_heads=8
            ),
            transformer_dim=config.prompt_width,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        )
        if config.affinity:
            self.image_encoder.patch_embed = nn.Identity()
            self.backbone = EfficientNetLite(config.backbone_channels, config.backbone_blocks)
            pyramid = pyramid_of(config.backbone_channels)
            self.affinity = Affinity(config.width, config.prompt_width, config.affinity, pyramid)

    @property
    def grid(self) -> int:
        """Tokens along each side of the embedding."""
        return self.config.image_size // self.config.patch

    @property
    def embedding_width(self) -> int:
        """Channels of the embedding."""
        own, fine = self.config.prompt_width, self.config.affinity
        return own + 4 * fine + 16 * detail_width(own) if fine else own

    def encode(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d g g"]:
        """Normalised, padded images to their embeddings."""
        if self.config.affinity:
            return self._encode_both(image)
        embedding: Tensor = self.image_encoder(image)
        return embedding

    def fine(self, embedding: Float[Tensor, "b d g g"]) -> Float[Tensor, "b c f f"]:
        """The affinity's part of an embedding, f = 2 g."""
        start = self.config.prompt_width
        return F.pixel_shuffle(embedding[:, start : start + 4 * self.config.affinity], 2)

    def _encode_both(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d g g"]:
        # ImageEncoderViT.forward with the backbone's features for patches.
        encoder, affinity = self.image_encoder, self.affinity
        pyramid = self.backbone(image)
        tokens = affinity.tokens(pyramid).permute(0, 2, 3, 1) + encoder.pos_embed
        for block in encoder.blocks:
            tokens = block(tokens)
        embedding = encoder.neck(tokens.permute(0, 3, 1, 2))
        fine = affinity.fine(pyramid, embedding)
        detail = affinity.detail(pyramid, fine)
        return torch.cat([embedding, F.pixel_unshuffle(fine, 2), F.pixel_unshuffle(detail, 4)], dim=1)

    def decode(
        self,
        embedding: Float[Tensor, "b d g g"],
        coordinates: Float[Tensor, "b n 2"],
        labels: Float[Tensor, "b n"],
        mask: Float[Tensor, "b 1 l l"],
        has_mask: Float[Tensor, " b"],
    ) -> tuple[Float[Tensor, "b 4 l l"], Float[Tensor, "b 4"]]:
        """One prompt an image to mask logits at a quarter of the input's resolution and predicted IoUs.

        Output 0 answers unambiguous prompts, 1 to 3 ambiguous ones.

        Args:
            coordinates: xy in pixels of the padded input.
            labels: 1 include, 0 exclude, 2 and 3 the corners of a box, −1 padding.
            mask: logits of an earlier answer; used where `has_mask` is 1.
        """
        encoder = self.prompt_encoder
        sparse = self._embed_points(coordinates, labels)
        if self.config.affinity:
            fine = self.fine(embedding)
            mask = mask * has_mask.reshape(-1, 1, 1, 1) + self.affinity.prior(
                fine, coordinates, labels, self.config.patch / 2
            )
            dense = encoder.mask_downscaling(mask)
            detail = F.pixel_shuffle(embedding[:, -16 * detail_width(self.config.prompt_width) :], 4)
            embedding = embedding[:, : self.config.prompt_width]
            masks, scores = self._predict(embedding, encoder.get_dense_pe(), sparse, dense, detail)
            return masks + mask, scores  # the decoder corrects what the prompt suggests
        given = encoder.mask_downscaling(mask)
        none = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(given)
        dense = torch.where(has_mask.reshape(-1, 1, 1, 1) > 0, given, none)
        return self._predict(embedding, encoder.get_dense_pe(), sparse, dense)

    def _embed_points(
        self, coordinates: Float[Tensor, "b n 2"], labels: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n d"]:
        # The arithmetic of PromptEncoder._embed_points and _embed_boxes without its in-place masking, which does
        # not export: +.5 moves to pixel centres, each label adds its own learned vector.
        encoder = self.prompt_encoder
        place = encoder.pe_layer.forward_with_coords(coordinates + 0.5, encoder.input_image_size)
        label = labels.unsqueeze(-1)
        place = torch.where(label == -1, torch.zeros_like(place), place)
        place = place + torch.where(label == -1, encoder.not_a_point_embed.weight, 0.0)
        for value, learned in enumerate(encoder.point_embeddings):
            place = place + torch.where(label == value, learned.weight, 0.0)
        return place

    def _predict(
        self,
        embedding: Float[Tensor, "b d g g"],
        place: Float[Tensor, "1 d g g"],
        sparse: Float[Tensor, "b n d"],
        dense: Float[Tensor, "b d g g"],
        detail: Float[Tensor, "b c l l"] | None = None,
    ) -> tuple[Float[Tensor, "b 4 l l"], Float[Tensor, "b 4"]]:
        # MaskDecoder.predict_masks repeats one image for many prompts; here every row has its own image.
        decoder = self.mask_decoder
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.unsqueeze(0).expand(sparse.shape[0], -1, -1), sparse], dim=1)
        source = embedding + dense
        b, d, g, _ = source.shape
        answers, source = decoder.transformer(source, place.expand(b, -1, -1, -1), tokens)
        upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(b, d, g, g))
        if detail is not None:
            upscaled = upscaled + detail
        weights = torch.stack(
            [mlp(answers[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )
        masks = torch.einsum("bkc,bchw->bkhw", weights, upscaled)
        return masks, decoder.iou_prediction_head(answers[:, 0])
