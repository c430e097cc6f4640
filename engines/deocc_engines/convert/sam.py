"""SAM's weights: segment-anything's `.pth`, and the same in the layout of transformers' SamModel.

The names of our `networks.sam.Sam` are segment-anything's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from deocc_engines.convert.checkpoint import open_checkpoint
from deocc_engines.convert.component import Component
from deocc_engines.convert.names import expected_of, itself, matched
from deocc_engines.convert.tensors import open_safetensors
from deocc_engines.networks.sam import Sam, SamConfig

__all__ = ["BASE", "HUGE", "LARGE", "find_segmenter"]

BASE = SamConfig()
LARGE = SamConfig(width=1024, depth=24, heads=16, global_attention=(5, 11, 17, 23))
HUGE = SamConfig(width=1280, depth=32, heads=16, global_attention=(7, 15, 23, 31))

# segment-anything's names to transformers', applied in this order.
TO_TRANSFORMERS = tuple(
    (re.compile(ours), theirs)
    for ours, theirs in (
        (r"^image_encoder\.", "vision_encoder."),
        (r"^vision_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
        (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
        (r"^vision_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
        (r"^vision_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
        (r"^vision_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
        (r"^vision_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
        (r"\.norm(\d)\.", r".layer_norm\1."),
        (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
        (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
        (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
        (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
        (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
        (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
        (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
        (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
        (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
        (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
        (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.0\.", r"\1proj_in."),
        (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.2\.", r"\1proj_out."),
        (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.1\.", r"\1layers.0."),
    )
)
GAUSSIANS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
# SamModel shares one tensor under two names; which of them a file holds depends on who saved it.
SHARED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


def find_segmenter(files: Sequence[Path], config: SamConfig) -> Component:
    """Matches every tensor of the network with one in the files.

    Args:
        files: one `.pth`, or safetensors (shards and their index); which layout it is, the names say.

    Raises:
        InvalidBundle: the files are damaged, or the weights of another network or size.
    """
    tensors = open_checkpoint(files[0]) if files[0].suffix == ".pth" else open_safetensors(files)
    with torch.device("meta"):
        expected = expected_of(Sam(config))
    transformers = any("vision_encoder." in name for name in tensors)
    taken = matched(
        tensors,
        expected,
        where=f"sam, in {files[-1].name}",
        spellings=in_transformers if transformers else itself,
        ignored=SHARED.__contains__,
    )
    return Component("sam", config, taken, tuple(files))


def in_transformers(name: str) -> tuple[str, ...]:
    """What SamModel calls one of our tensors."""
    if name == GAUSSIANS:
        return SHARED
    for ours, theirs in TO_TRANSFORMERS:
        name = ours.sub(theirs, name)
    return (name,)
