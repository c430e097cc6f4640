"""A bundle with random weights and real shapes: the whole service in a second, on any machine."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from deocc_engines.bundle import Bundle
from deocc_engines.components import Networks
from deocc_engines.networks.autoencoder import Autoencoder, AutoencoderConfig, MaskDecoder
from deocc_engines.networks.refiner import MaskRefiner, MaskRefinerConfig, Refiner, RefinerConfig
from deocc_engines.networks.sam import Sam, SamConfig
from deocc_engines.networks.text import TextConfig, TextEncoder
from deocc_engines.networks.unet import Unet, UnetConfig
from deocc_training.pack import MANIFEST, write_bundle

VAE = AutoencoderConfig(latent_channels=4, channels=(32, 32), layers=1, patch=4, scale=1.0)
UNET = UnetConfig(4, 4, channels=(32, 32), heads=(1, 1), attention=(False, True), layers=1, text_width=16)
TEXT = TextConfig(vocabulary=8, table_width=8, width=16, layers=1, heads=2, length=4)
SAM = SamConfig(
    image_size=64,
    patch=16,
    width=16,
    depth=1,
    heads=2,
    global_attention=(0,),
    window=2,
    prompt_width=32,
    decoder_mlp=16,
    affinity=16,
    backbone_channels=(8,) * 7,
    backbone_blocks=(1,) * 7,
)
REFINER = RefinerConfig(channels=(16, 32), groups=8)
WORDS = {"[PAD]": 0, "[UNK]": 1, "a": 2, "red": 3, "ball": 4}


def tiny_refiner(*, whole: float = -2.0, quality: float = 0.0) -> Refiner:
    """One that mends something, and always judges the same: logits."""
    torch.manual_seed(1)
    refiner = Refiner(REFINER)
    torch.nn.init.normal_(refiner.conv_out.weight, std=0.05)  # zeros would mend nothing
    torch.nn.init.zeros_(refiner.verdicts.weight)
    with torch.no_grad():
        refiner.verdicts.bias.copy_(torch.tensor([whole, quality]))
    return refiner


def tiny_mask_refiner(*, change: float = 0.0, quality: float = 0.0) -> MaskRefiner:
    """One that adds so much to every logit, and always judges the same: a logit."""
    torch.manual_seed(2)
    refiner = MaskRefiner(MaskRefinerConfig(REFINER.channels, groups=REFINER.groups, window=32))
    torch.nn.init.constant_(refiner.get_parameter("conv_out.bias"), change)
    torch.nn.init.zeros_(refiner.verdicts.weight)
    torch.nn.init.constant_(refiner.verdicts.bias, quality)
    return refiner


def write_tiny_bundle(folder: Path, refiner: Refiner | None = None, mask_refiner: MaskRefiner | None = None) -> Bundle:
    """32-pixel windows, two-level networks, seeded weights."""
    torch.manual_seed(0)
    vae, decoder = Autoencoder(VAE), MaskDecoder(VAE)
    torch.nn.init.normal_(decoder.decoder.conv_out.weight, std=0.2)  # zeros would say "half" everywhere
    sam = Sam(SAM)
    # Untrained mask logits hover around zero: shifted up, every prompt finds something.
    torch.nn.init.ones_(sam.mask_decoder.output_upscaling[-2].bias)
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        torch.nn.init.constant_(mlp.layers[-1].bias, 0.2)
    networks = Networks(TextEncoder(TEXT), vae, Unet(UNET), decoder, sam, refiner, mask_refiner)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    source = folder.parent / f"{folder.name}-tokenizer.json"
    tokenizer.save(str(source))
    manifest = {
        **MANIFEST,
        "name": "tiny",
        "window": 32,
        "presets": {
            "fast": {"steps": 4, "guidance_image": 1.0, "guidance_text": 1.0, "local_strength": 0.5},
            "guided": {"steps": 6, "guidance_image": 2.0, "guidance_text": 3.0, "local_strength": 0.5},
        },
    }
    return write_bundle(folder, networks, source, manifest)
