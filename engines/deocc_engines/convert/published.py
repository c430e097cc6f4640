"""What is published, where, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass

from deocc_engines.convert import sam
from deocc_engines.networks.sam import SamConfig

__all__ = [
    "BASE",
    "CHECKPOINTS",
    "COMPLETER",
    "DEFAULT_SEGMENTER",
    "SEGMENTERS",
    "Licence",
    "PublishedSam",
    "Repository",
]


@dataclass(frozen=True)
class Licence:
    """Terms that a user must accept before anything under them is converted."""

    name: str  # an SPDX identifier where there is one
    url: str
    commercial_use: bool
    note: str  # what a user should know before accepting


@dataclass(frozen=True)
class Repository:
    """One repository of the Hugging Face hub.

    Attributes:
        files: patterns of what is needed of it.
    """

    hub_id: str
    licence: Licence
    files: tuple[str, ...]


@dataclass(frozen=True)
class PublishedSam:
    """One size of SAM."""

    repository: Repository
    config: SamConfig


NON_COMMERCIAL = Licence(
    "CC-BY-NC-SA-4.0",
    "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    commercial_use=False,
    note="not for commercial use; the licences on the model's card and in its authors' repository disagree, and it was "
    "trained on EntitySeg's images, which are non-commercial too",
)
OPENRAIL = Licence(
    "CreativeML-OpenRAIL++-M",
    "https://huggingface.co/sd2-community/stable-diffusion-2-inpainting",
    commercial_use=True,
    note="use is restricted by the licence's Attachment A, and whoever passes the model on must pass this on, too",
)
APACHE = Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", commercial_use=True, note="")

COMPLETER = "deocc-anything"
CHECKPOINTS = Repository("cloudyfall/DeoccAnything", NON_COMMERCIAL, ("*.ckpt",))
BASE = Repository(
    "sd2-community/stable-diffusion-2-inpainting",
    OPENRAIL,
    (
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/*.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "vae/config.json",
    ),
)
DEFAULT_SEGMENTER = "sam-vit-b"
SEGMENTERS = {
    f"sam-vit-{size[0]}": PublishedSam(
        Repository(
            f"facebook/sam-vit-{size}",
            APACHE,
            ("config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
        ),
        config,
    )
    for size, config in (("base", sam.BASE), ("large", sam.LARGE), ("huge", sam.HUGE))
}
