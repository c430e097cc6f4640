"""Random weights in the layouts of the published models, at any size: what the converter must read, without a download.

diffusers, transformers and torch write the files themselves, so the layouts are theirs; what older versions of them
wrote differently is said at each function. The modules come back, so that outputs can be compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import CLIPTextModel

from deocc_engines.networks.autoencoder import Autoencoder, AutoencoderConfig
from deocc_engines.networks.sam import Sam, SamConfig
from deocc_engines.networks.text import ClipTextConfig, ClipTextEncoder
from deocc_engines.networks.unet import Unet, UnetConfig

__all__ = [
    "FULL",
    "SMALL",
    "Sizes",
    "random_mask_decoder",
    "random_sam",
    "random_text",
    "random_unet",
    "random_vae",
    "write_base",
    "write_checkpoint",
]

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.10.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
PREFIX = "model_ema.models.0."


@dataclass(frozen=True)
class Sizes:
    """Of all networks of an engine; the defaults are the published ones."""

    unet: UnetConfig = UnetConfig()
    vae: AutoencoderConfig = AutoencoderConfig()
    text: ClipTextConfig = ClipTextConfig()
    sam: SamConfig = SamConfig()


FULL = Sizes()
SMALL = Sizes(
    UnetConfig(4, 8, channels=(32, 64), heads=(1, 2), attention=(True, False), layers=1, text_width=32),
    AutoencoderConfig(4, channels=(32, 32, 32, 64), layers=1),
    ClipTextConfig(vocabulary=600, width=32, layers=2, heads=2, mlp=48, length=12),
    SamConfig(128, 16, 32, 3, 2, (1,), 3, 32, 2, 48),
)


def random_text(sizes: Sizes) -> CLIPTextModel:
    """The text encoder."""
    return ClipTextEncoder(sizes.text).network.eval()


def random_vae(sizes: Sizes) -> AutoencoderKL:
    """The autoencoder."""
    return Autoencoder(sizes.vae).network.eval()


def random_unet(sizes: Sizes) -> UNet2DConditionModel:
    """The UNet that was trained: with 13 input channels."""
    return Unet(sizes.unet).network.eval()


def random_mask_decoder(sizes: Sizes) -> AutoencoderKL:
    """A whole autoencoder whose decoder ends in one channel."""
    vae = random_vae(sizes)
    last = vae.decoder.conv_out
    vae.decoder.conv_out = nn.Conv2d(last.in_channels, 1, 3, padding=1)
    return vae


def random_sam(sizes: Sizes) -> Sam:
    """A SAM that finds something at every prompt, where untrained logits would hover around zero."""
    sam = Sam(sizes.sam).eval()
    with torch.no_grad():
        for parameter in (sam.image_encoder.pos_embed, *(_positions(sam))):
            parameter.normal_(std=0.02)  # segment-anything starts them at zero
        sam.mask_decoder.output_upscaling[-2].bias.fill_(1.0)
        for mlp in sam.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].bias.fill_(0.2)
    return sam


def _positions(sam: Sam) -> list[Tensor]:
    return [p for name, p in sam.image_encoder.named_parameters() if ".rel_pos_" in name]


def write_base(folder: Path, sizes: Sizes, text: CLIPTextModel, vae: AutoencoderKL, **saving: Any) -> None:
    """The base in diffusers' layout, without the UNet's weights.

    Args:
        saving: of diffusers' `save_pretrained`: `variant`, `max_shard_size`.
    """
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionInpaintPipeline"}')
    with torch.device("meta"):
        settings = {**Unet(sizes.unet).network.config, "in_channels": 2 * sizes.unet.latent_channels + 1}
        UNet2DConditionModel(**{k: v for k, v in settings.items() if k[0] != "_"}).save_config(folder / "unet")
    vae.save_pretrained(folder / "vae", **saving)
    _write_text(folder / "text_encoder", text, variant=saving.get("variant"))
    _write_tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))


def _write_text(folder: Path, text: CLIPTextModel, variant: str | None) -> None:
    """As transformers 4 did: below `text_model.`, with the position ids."""
    folder.mkdir()
    text.config.to_json_file(str(folder / "config.json"), use_diff=False)
    weights = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in text.state_dict().items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(text.config.max_position_embeddings)[None]
    save_file(weights, folder / f"model{'.' + variant if variant else ''}.safetensors")


def _write_tokenizer(folder: Path) -> None:
    """CLIP's files with a vocabulary of bytes and one merged word; pads with "!", as Stable Diffusion 2 does."""
    folder.mkdir()
    alphabet = sorted(ByteLevel.alphabet())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    words.insert(0, words.pop(words.index("!")))
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps({**ends, "pad_token": "!"}))
    settings = {**ends, "pad_token": "<|endoftext|>", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_checkpoint(file: Path, module: nn.Module, *, wrapper: str = "", **more: Any) -> None:
    """A Lightning checkpoint with the module's weights as its moving average.

    Args:
        wrapper: goes before the names, below the average's own prefix.
        more: of the checkpoint, beside the state dict.
    """
    average = {f"{PREFIX}{wrapper}{name}": value for name, value in module.state_dict().items()}
    # The weights as they were last: not what is published as the model.
    last = {f"{wrapper or 'model.'}{name}": torch.zeros(1) for name in module.state_dict()}
    torch.save(
        {
            "epoch": 3,
            "global_step": 1000,
            "pytorch-lightning_version": "2.2.1",
            "state_dict": {**last, **average, "model_ema.n_averaged": torch.tensor(1000)},
            "optimizer_states": [],
            "callbacks": {},
            **more,
        },
        file,
    )
