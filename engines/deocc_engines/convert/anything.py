"""DeoccAnything's completer from its published files: a base in diffusers' layout and Lightning checkpoints.

SynergyAmodal publishes what it trained: the 13-channel UNet in one checkpoint, the mask decoder in another, of both the
moving average (EMA) below ``model_ema.models.0.``. Text encoder and autoencoder are the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deocc_engines.convert import base as diffusers_base
from deocc_engines.convert.checkpoint import open_checkpoint
from deocc_engines.convert.component import Component
from deocc_engines.convert.names import (
    Spellings,
    agreement,
    expected_of,
    itself,
    matched,
    older_attention,
    prefix_of,
)
from deocc_engines.convert.tensors import Tensors, open_safetensors, weight_files
from deocc_engines.errors import InvalidBundle
from deocc_engines.networks.autoencoder import Autoencoder, AutoencoderConfig, MaskDecoder
from deocc_engines.networks.text import ClipTextConfig, ClipTextEncoder
from deocc_engines.networks.unet import Unet, UnetConfig

__all__ = ["EMA", "Completer", "find_completer"]

EMA = "model_ema.models.0."
NETWORK = "network."  # what our modules put before the names of the module that they wrap
DECODER, FIRST = "decoder.", "post_quant_conv."  # of a mask decoder
ENOUGH = 0.8  # a checkpoint with this share of a network's tensors is taken to be meant as that network

# What no file says. Steps: the released demo's 25, the paper's 50. Both guidance scales are the demo's. The paper lets
# the local stage start from "reduced" noise without a number, the demo from full noise (a fresh sample); .6 is what
# measured best on deocc-mini, not on these weights.
SETTINGS: dict[str, Any] = {
    "presets": {
        "fast": {"steps": 25, "guidance_image": 1.0, "guidance_text": 1.0, "local_strength": 0.6},
        "quality": {"steps": 50, "guidance_image": 1.0, "guidance_text": 1.0, "local_strength": 0.6},
    },
    "global_margin": None,
    "mask_resize": "nearest",
    "whole_below": 0.05,  # of the hidden share: deocc-mini's, unmeasured on these weights
}


@dataclass(frozen=True, eq=False)
class Completer:
    """What was found for the four networks, not yet read.

    Attributes:
        settings: what the manifest says of it.
        base: the base's folder.
        checkpoints: those of the given ones that are used.
    """

    settings: dict[str, Any]
    base: Path
    components: tuple[Component, ...]
    checkpoints: tuple[Path, ...]

    def write(self, bundle: Path, dtype: torch.dtype, say: Callable[[str], None]) -> tuple[Path, ...]:
        """Writes tokenizer and components; gives the files that were read of the base.

        Raises:
            InvalidBundle: the tokenizer is damaged, or a tensor holds unfit numbers.
        """
        read = [*diffusers_base.write_tokenizer(self.base, bundle / "tokenizer")]
        for component in self.components:
            say(f"converting {component.name}")
            component.write(bundle, dtype)
            read += [file for file in component.files if file not in self.checkpoints]
        return (*(self.base / name for name in diffusers_base.CONFIGS if (self.base / name).is_file()), *read)


def find_completer(base: Path, checkpoints: Sequence[Path], scheduler: str, *, half: bool) -> Completer:
    """Matches every tensor of the networks with one in the files.

    Args:
        checkpoints: in any order; what is in each is found by names and shapes.
        scheduler: one of diffusers', by name.
        half: of the base's variants prefer "fp16".

    Raises:
        InvalidBundle: a file is missing or damaged, or its tensors are not the networks'.
    """
    unet, vae = diffusers_base.unet_config(base), diffusers_base.vae_config(base)
    text = diffusers_base.text_config(base)
    if (unet.text_width, unet.latent_channels) != (text.width, vae.latent_channels):
        raise InvalidBundle("the base's unet, vae and text_encoder are not of one model: their widths differ")
    schedule = diffusers_base.schedule_of(base, scheduler)
    settings = {"window": unet.latent_size * vae.factor, "schedule": schedule, **SETTINGS}
    averages = {file: _averages(file) for file in checkpoints}
    autoencoder = _autoencoder(base, vae, half)
    components = (
        _unet(unet, averages),
        _mask_decoder(vae, averages, autoencoder.weights),
        autoencoder,
        _text_encoder(base, text, half),
    )
    used = tuple(dict.fromkeys(file for component in components[:2] for file in component.files))
    return Completer(settings, base, components, used)


def _averages(file: Path) -> Tensors:
    tensors = open_checkpoint(file)
    return {name.removeprefix(EMA): stored for name, stored in tensors.items() if name.startswith(EMA)}


def _named(weights: Tensors, before: str) -> Tensors:
    return {before + name: stored for name, stored in weights.items()}


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):  # names and shapes, no memory
        return make()


def _text_encoder(base: Path, config: ClipTextConfig, half: bool) -> Component:
    files = weight_files(base / "text_encoder", half=half)
    taken = matched(
        open_safetensors(files),
        expected_of(_on_meta(lambda: ClipTextEncoder(config)), NETWORK),
        where="text_encoder",
        ignored=lambda name: name.endswith("position_ids"),  # 0, 1, 2 …: older transformers saved them
    )
    return Component("text_encoder", config, _named(taken, NETWORK), files, kind="clip")


def _autoencoder(base: Path, config: AutoencoderConfig, half: bool) -> Component:
    files = weight_files(base / "vae", half=half)
    expected = expected_of(_on_meta(lambda: Autoencoder(config)), NETWORK)
    taken = matched(open_safetensors(files), expected, where="vae", spellings=older_attention)
    return Component("vae", config, _named(taken, NETWORK), files)


def _unet(config: UnetConfig, averages: Mapping[Path, Tensors]) -> Component:
    expected = expected_of(_on_meta(lambda: Unet(config)), NETWORK)
    file = _holding("the UNet", averages, expected)
    taken = matched(averages[file], expected, where=f"unet, in {file.name} below {EMA}")
    return Component("unet", config, _named(taken, NETWORK), (file,))


def _mask_decoder(config: AutoencoderConfig, averages: Mapping[Path, Tensors], autoencoder: Tensors) -> Component:
    """The decoder may stand alone or within a whole autoencoder. Its first convolution was frozen: where it is not
    beside the decoder, it is the base's."""
    network = _on_meta(lambda: MaskDecoder(config))
    expected = expected_of(network, DECODER)
    file = _holding("the mask decoder", averages, expected, older_attention)
    tensors, where = averages[file], f"mask_decoder, in {file.name} below {EMA}"
    taken = matched(
        tensors, expected, where=where, spellings=older_attention, ignored=lambda name: name.startswith(FIRST)
    )
    prefix = prefix_of(tensors, expected, older_attention)
    beside = [at for at in (prefix, prefix.removesuffix(DECODER)) if f"{at}{FIRST}weight" in tensors]
    source, at = (tensors, beside[0]) if beside else (autoencoder, NETWORK)
    below = {name.removeprefix(at): stored for name, stored in source.items() if name.startswith(at + FIRST)}
    first = matched(below, {FIRST + name: shape for name, shape in expected_of(network, FIRST).items()}, where=where)
    return Component("mask_decoder", config, {**_named(taken, DECODER), **first}, (file,))


def _holding(
    what: str,
    averages: Mapping[Path, Tensors],
    expected: Mapping[str, tuple[int, ...]],
    spellings: Spellings = itself,
) -> Path:
    """The checkpoint whose tensors agree best with a network's.

    Raises:
        InvalidBundle: none does, or several do.
    """
    names = ", ".join(file.name for file in averages)
    if not any(averages.values()):
        raise InvalidBundle(f"{names}: no EMA weights; nothing is named {EMA}…")
    shares = {file: agreement(tensors, expected, spellings) for file, tensors in averages.items()}
    best = max(shares.values())
    if best < ENOUGH:
        raise InvalidBundle(f"{what} is not among the EMA weights ({EMA}…) of {names}")
    holding = [file.name for file, share in shares.items() if share == best]
    if len(holding) > 1:
        raise InvalidBundle(f"{what} is in several checkpoints: {', '.join(holding)}; name the one that is meant")
    return max(shares, key=shares.__getitem__)
