"""The networks of a bundle as torch modules, each with the one call that is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from deocc_engines.bundle import Bundle
from deocc_engines.errors import InvalidBundle
from deocc_engines.networks.autoencoder import Autoencoder, AutoencoderConfig, MaskDecoder
from deocc_engines.networks.refiner import MaskRefiner, MaskRefinerConfig, Refiner, RefinerConfig
from deocc_engines.networks.sam import Sam, SamConfig
from deocc_engines.networks.text import ClipTextConfig, ClipTextEncoder, TextConfig, TextEncoder
from deocc_engines.networks.unet import Unet, UnetConfig
from deocc_engines.storage import widened

__all__ = ["Call", "Networks", "calls_of", "load_networks"]

C = TypeVar("C")
STORED = (torch.float32, torch.float16, torch.bfloat16)  # what weights may be kept in, beside storage's int8


@dataclass(frozen=True)
class Networks:
    """Modules ready for inference, in float32."""

    text_encoder: nn.Module
    vae: Autoencoder
    unet: Unet
    mask_decoder: MaskDecoder
    sam: Sam
    refiner: Refiner | None = None
    mask_refiner: MaskRefiner | None = None

    @property
    def text_config(self) -> TextConfig | ClipTextConfig:
        config = self.text_encoder.config
        assert isinstance(config, TextConfig | ClipTextConfig)
        return config


@dataclass(frozen=True)
class Call:
    """One thing that a network is asked to do.

    Attributes:
        component: whose weights it needs.
        module: its forward is the call.
        example: inputs of one row, with real shapes.
        dynamic: indices of inputs whose second dimension varies.
        exact: kept in float32 by runtimes that compute in less: cheap, and sensitive.
        batched: rows of several requests are put into one call.
    """

    component: str
    module: nn.Module
    example: tuple[Tensor, ...]
    dynamic: tuple[int, ...] = ()
    exact: bool = False
    batched: bool = False

    @property
    def bound(self) -> bool:
        """Whether the module takes its inputs as `*inputs`."""
        return isinstance(self.module, _Bound)


class _Bound(nn.Module):
    """A method of a module as a module of its own, which is what exporters take."""

    def __init__(self, owner: nn.Module, method: str) -> None:
        super().__init__()
        self.owner, self.method = owner, method

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.owner, self.method)(*inputs)


def calls_of(networks: Networks) -> dict[str, Call]:
    """Every call of the completer's and the segmenter's runtimes, by name."""
    vae, unet, sam = networks.vae.config, networks.unet.config, networks.sam.config
    z, c = unet.latent_size, unet.latent_channels
    s, length = z * vae.factor, networks.text_config.length
    grid, width = networks.sam.grid, networks.sam.embedding_width
    latent, image = torch.zeros(1, c, z, z), torch.zeros(1, 3, s, s)
    ids = torch.zeros(1, length, dtype=torch.int64)
    calls = {
        "encode_text": Call("text_encoder", networks.text_encoder, (ids,), exact=True),
        "encode_image": Call("vae", _Bound(networks.vae, "encode"), (image,)),
        "decode_image": Call("vae", _Bound(networks.vae, "decode"), (latent,)),
        "denoise": Call(
            "unet",
            networks.unet,
            (
                latent,
                torch.ones(1),
                torch.zeros(1, unet.condition_channels, z, z),
                torch.zeros(1, length, unet.text_width),
            ),
            batched=True,
        ),
        "decode_mask": Call("mask_decoder", networks.mask_decoder, (latent,)),
        "sam_encode": Call("sam", _Bound(networks.sam, "encode"), (torch.zeros(1, 3, sam.image_size, sam.image_size),)),
        "sam_decode": Call(
            "sam",
            _Bound(networks.sam, "decode"),
            (
                torch.zeros(1, width, grid, grid),
                torch.zeros(1, 2, 2),
                torch.ones(1, 2),
                torch.zeros(1, 1, 4 * grid, 4 * grid),
                torch.zeros(1),
            ),
            dynamic=(1, 2),
            exact=True,
        ),
    }
    if networks.refiner is not None:
        calls["refine"] = Call("refiner", networks.refiner, (torch.zeros(1, 4, s, s), image, torch.zeros(1, 1, s, s)))
    if networks.mask_refiner is not None:
        w = networks.mask_refiner.config.window
        seen = tuple(torch.zeros(1, channels, w, w) for channels in (1, 3, 2))
        calls["refine_mask"] = Call("mask_refiner", networks.mask_refiner, seen)
    return calls


def load_networks(bundle: Bundle) -> Networks:
    """Builds the networks and loads their weights.

    Raises:
        InvalidBundle: a tensor is missing, unexpected, misshapen or not finite; named in the message.
    """
    clip = bundle.config("text_encoder").get("kind") == "clip"
    text: Callable[[], nn.Module] = (
        (lambda: ClipTextEncoder(_config(ClipTextConfig, bundle, "text_encoder")))
        if clip
        else (lambda: TextEncoder(_config(TextConfig, bundle, "text_encoder")))
    )
    networks = Networks(
        text_encoder=text(),
        vae=Autoencoder(_config(AutoencoderConfig, bundle, "vae")),
        unet=Unet(_config(UnetConfig, bundle, "unet")),
        mask_decoder=MaskDecoder(_config(AutoencoderConfig, bundle, "vae")),
        sam=Sam(_config(SamConfig, bundle, "sam")),
        refiner=Refiner(_config(RefinerConfig, bundle, "refiner")) if bundle.holds("refiner") else None,
        mask_refiner=(
            MaskRefiner(_config(MaskRefinerConfig, bundle, "mask_refiner")) if bundle.holds("mask_refiner") else None
        ),
    )
    for field in dataclasses.fields(networks):
        if module := getattr(networks, field.name):
            _load(bundle, field.name, module)
    return networks


def _config(kind: type[C], bundle: Bundle, component: str) -> C:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in bundle.config(component).items() if k != "kind"}
    try:
        return kind(**values)
    except TypeError as error:
        raise InvalidBundle(f"{component}/config.json: {error}") from error


def _load(bundle: Bundle, component: str, module: nn.Module) -> None:
    try:
        weights = widened(load_file(bundle.weights(component)))
    except SafetensorError as error:
        raise InvalidBundle(f"{component}/model.safetensors is not a safetensors file") from error
    expected = module.state_dict()
    for name, own in expected.items():
        if name not in weights:
            raise InvalidBundle(f"{component}: the tensor {name} is missing")
        if weights[name].shape != own.shape:
            raise InvalidBundle(f"{component}: {name} has shape {list(weights[name].shape)}, not {list(own.shape)}")
        if weights[name].dtype != own.dtype and not (own.is_floating_point() and weights[name].dtype in STORED):
            raise InvalidBundle(f"{component}: {name} is of type {weights[name].dtype}, not {own.dtype}")
        if weights[name].is_floating_point() and not torch.isfinite(weights[name].float()).all():
            raise InvalidBundle(f"{component}: {name} holds numbers that are not finite")
    for name in weights:
        if name not in expected:
            raise InvalidBundle(f"{component}: the tensor {name} is not part of the network")
    module.load_state_dict(weights)
    module.eval().requires_grad_(False)
