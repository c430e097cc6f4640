"""The base model in diffusers' layout: sizes, text encoder, autoencoder, tokenizer and schedule.

::

    model_index.json
    scheduler/scheduler_config.json
    text_encoder/config.json, model[.fp16].safetensors
    tokenizer/vocab.json, merges.txt, special_tokens_map.json, tokenizer_config.json
    unet/config.json
    vae/config.json, diffusion_pytorch_model[.fp16].safetensors

The UNet's own weights are not read: DeoccAnything publishes all of its UNet.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deocc_engines.convert.tensors import read_json
from deocc_engines.errors import InvalidBundle
from deocc_engines.networks.autoencoder import Autoencoder, AutoencoderConfig
from deocc_engines.networks.text import ClipTextConfig, ClipTextEncoder
from deocc_engines.networks.unet import Unet, UnetConfig
from deocc_engines.sampler import SCHEDULERS

__all__ = ["CONFIGS", "INDEX", "schedule_of", "text_config", "unet_config", "vae_config", "write_tokenizer"]

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
CONFIGS = (INDEX, SCHEDULER, *(f"{component}/config.json" for component in ("text_encoder", "unet", "vae")))
TOKENIZER = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json")
CLIP = ("hidden_act", "layer_norm_eps")  # of a text encoder, beside its sizes


def unet_config(base: Path) -> UnetConfig:
    """Sizes of the denoiser: the inpainting UNet's, but for its input channels.

    Raises:
        InvalidBundle: the base is not an inpainting model, or of another architecture than our network.
    """
    file = base / "unet" / "config.json"
    theirs = read_json(file)
    try:
        levels = len(theirs["block_out_channels"])
        heads = theirs["attention_head_dim"]  # diffusers' name for the number of heads
        config = UnetConfig(
            latent_channels=theirs["out_channels"],
            latent_size=theirs["sample_size"],
            channels=tuple(theirs["block_out_channels"]),
            heads=tuple(heads) if isinstance(heads, list) else (heads,) * levels,
            attention=tuple(block == "CrossAttnDownBlock2D" for block in theirs["down_block_types"]),
            layers=theirs["layers_per_block"],
            text_width=theirs["cross_attention_dim"],
        )
        channels = theirs["in_channels"]
    except (KeyError, TypeError) as error:
        raise InvalidBundle(f"unet/config.json: {error}") from error
    if channels != 2 * config.latent_channels + 1:
        raise InvalidBundle(f"unet/config.json: {channels} input channels; an inpainting model is wanted as base")
    with torch.device("meta"):
        ours = Unet(config).network.config
    _same("unet", ours, theirs, but=("in_channels", "attention_head_dim", "upcast_attention"))
    return config


def vae_config(base: Path) -> AutoencoderConfig:
    """Sizes of the autoencoder.

    Raises:
        InvalidBundle: it is of another architecture than our network.
    """
    theirs = read_json(base / "vae" / "config.json")
    try:
        config = AutoencoderConfig(
            latent_channels=theirs["latent_channels"],
            channels=tuple(theirs["block_out_channels"]),
            layers=theirs["layers_per_block"],
            patch=1,
            scale=theirs.get("scaling_factor", AutoencoderConfig.scale),
        )
    except (KeyError, TypeError) as error:
        raise InvalidBundle(f"vae/config.json: {error}") from error
    with torch.device("meta"):
        ours = Autoencoder(config).network.config
    _same("vae", ours, theirs, but=("sample_size", "force_upcast"))
    return config


def text_config(base: Path) -> ClipTextConfig:
    """Sizes of the text encoder.

    Raises:
        InvalidBundle: it is of another architecture than our network.
    """
    theirs = read_json(base / "text_encoder" / "config.json")
    try:
        config = ClipTextConfig(
            vocabulary=theirs["vocab_size"],
            width=theirs["hidden_size"],
            layers=theirs["num_hidden_layers"],
            heads=theirs["num_attention_heads"],
            mlp=theirs["intermediate_size"],
            length=theirs["max_position_embeddings"],
        )
    except KeyError as error:
        raise InvalidBundle(f"text_encoder/config.json: {error}") from error
    with torch.device("meta"):
        ours = ClipTextEncoder(config).network.config.to_dict()
    _same("text_encoder", {key: ours[key] for key in CLIP}, theirs, but=())
    return config


def _same(component: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], *, but: tuple[str, ...]) -> None:
    for key, value in theirs.items():
        if key.startswith("_") or key in but or key not in ours:
            continue
        own = list(ours[key]) if isinstance(ours[key], tuple) else ours[key]
        if own != value:
            raise InvalidBundle(f"{component}/config.json: {key} is {value!r}; the network that is run has {own!r}")


def schedule_of(base: Path, scheduler: str) -> dict[str, Any]:
    """The noise levels that the base was trained with, for one of diffusers' schedulers.

    Whatever scheduler the base names, its configuration is handed to `scheduler` as far as that one knows the keys,
    which is diffusers' own way of changing schedulers.

    Raises:
        InvalidBundle: the base does not predict ε.
    """
    theirs = read_json(base / SCHEDULER)
    if theirs.get("prediction_type", "epsilon") != "epsilon":
        raise InvalidBundle(f"{SCHEDULER}: it predicts {theirs['prediction_type']!r}, DeoccAnything epsilon")
    known = inspect.signature(SCHEDULERS[scheduler]).parameters
    return {"name": scheduler, "config": {key: value for key, value in theirs.items() if key in known}}


def write_tokenizer(base: Path, folder: Path) -> tuple[Path, ...]:
    """Writes tokenizer.json from CLIP's vocabulary and merges, padding included; gives the files that it read.

    transformers decides, as it did when the model was trained: SD2 pads with "!" (token 0), and takes every "!" in a
    prompt for padding.

    Raises:
        InvalidBundle: the files are missing or damaged.
    """
    from transformers import CLIPTokenizerFast

    source = base / "tokenizer"
    if not ((source / "vocab.json").is_file() and (source / "merges.txt").is_file()):
        raise InvalidBundle("tokenizer/vocab.json and tokenizer/merges.txt are wanted")
    read_json(source / "vocab.json")
    try:
        tokenizer = CLIPTokenizerFast.from_pretrained(source, local_files_only=True)
    except Exception as error:  # the backend is Rust: what it raises is a bare Exception
        raise InvalidBundle(f"tokenizer: {error}") from error
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    return tuple(file for name in TOKENIZER if (file := source / name).is_file())
