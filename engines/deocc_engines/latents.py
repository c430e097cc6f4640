"""Between pixels and latents: what the networks are shown of a window, and what becomes of the latents they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor

from deocc_engines.errors import EngineFailure
from deocc_engines.networks.unet import condition_of
from deocc_engines.paste import without_white
from deocc_engines.prediction import WHITE, Prediction
from deocc_engines.window import Window, resize

__all__ = ["CompleterRuntime", "Latents", "View"]


@runtime_checkable
class CompleterRuntime(Protocol):
    """What runs the networks: torch or compiled."""

    def encode_text(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]: ...

    def encode_image(self, image: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c z z"]: ...

    def denoise(
        self,
        z_t: Float[Tensor, "b c z z"],
        t: Float[Tensor, " b"],
        condition: Float[Tensor, "b k z z"],
        text: Float[Tensor, "b n d"],
    ) -> Float[Tensor, "b c z z"]: ...

    def decode_image(self, latent: Float[Tensor, "b c z z"]) -> Float[Tensor, "b 3 s s"]: ...

    def decode_mask(self, latent: Float[Tensor, "b c z z"]) -> Float[Tensor, "b 1 s s"]: ...

    @property
    def refine(self) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """As `networks.refiner.Refiner`; None where the engine has none."""


@dataclass(frozen=True, eq=False)
class View:
    """A window and what the networks are shown of it."""

    window: Window
    photo: Float[Tensor, "1 3 s s"]  # in [−1, 1]
    modal: Float[Tensor, "1 1 s s"]  # in [0, 1]
    condition: Float[Tensor, "1 k z z"]  # 1 − m at latent size, E(x∘m), E(x)
    mirrored: bool  # what is shown, left to right


class Latents:
    """Encodes and decodes by a runtime.

    Args:
        factor: pixels along each side of one latent.
        mask_resize: of the modal mask to latent size; as in training.
    """

    def __init__(self, runtime: CompleterRuntime, factor: int, mask_resize: Literal["nearest", "area"]) -> None:
        self._runtime, self._factor, self._mask_resize = runtime, factor, mask_resize

    def view(
        self, image: UInt8[np.ndarray, "h w 3"], modal: Bool[np.ndarray, "h w"], window: Window, *, mirrored: bool
    ) -> View:
        """A photo and its modal mask through a window."""
        seen = _turned(window.take(image, WHITE), mirrored)
        part = _turned(window.take(modal.astype(np.float32), 0.0)[..., None], mirrored)
        masked, whole = torch.split(self.encode(seen * part + WHITE * (1 - part), seen), 1)
        z = whole.shape[-1]
        if self._mask_resize == "area":
            low = resize(part[..., 0], z, z)
        else:  # as torch's "nearest": the top left pixel of each latent
            low = (part[:: self._factor, :: self._factor, 0] > 0.5).astype(np.float32)
        condition = condition_of(torch.from_numpy(low)[None, None], masked, whole)
        return View(window, _signed(seen), torch.from_numpy(part[None, None, ..., 0]), condition, mirrored)

    def decode(self, view: View, z_0: Float[Tensor, "m c z z"]) -> Prediction:
        """The mean of the draws, mended where there is a refiner; never mirrored."""
        decoded, logits = self._runtime.decode_image(z_0).float(), self._runtime.decode_mask(z_0)[:, 0].float()
        _check_finite(decoded, logits)
        colours = ((decoded + 1) * (WHITE / 2)).clamp(0, WHITE).mean(dim=0)
        probability = torch.sigmoid(logits).mean(dim=0)
        whole = quality = None
        if self._runtime.refine is not None:
            draft = torch.cat([colours * (2 / WHITE) - 1, probability[None]])[None]
            mended, verdicts = (part[0].float() for part in self._runtime.refine(draft, view.photo, view.modal))
            _check_finite(mended, verdicts)
            colours = ((mended[:3] + 1) * (WHITE / 2)).clamp(0, WHITE)
            probability = torch.sigmoid(mended[3])
            whole, quality = torch.sigmoid(verdicts).tolist()
        rgb, shape = colours.permute(1, 2, 0).contiguous().numpy(), probability.numpy()
        if self._runtime.refine is None:
            rgb = without_white(rgb, shape)
        return Prediction(view.window, _turned(rgb, view.mirrored), _turned(shape, view.mirrored), whole, quality)

    def encode(self, *images: Float32[np.ndarray, "s s 3"]) -> Tensor:
        """[0, 255] to a latent of each: [b, c, z, z]."""
        return self._runtime.encode_image(torch.cat([_signed(image) for image in images]))

    def encode_in(self, view: View, found: Prediction) -> Tensor:
        """What was found, on white, as the view shows it."""
        alpha = found.probability[..., None]
        on_white = found.rgb * alpha + WHITE * (1 - alpha)
        return self.encode(_turned(view.window.take_from(found.window, on_white, WHITE), view.mirrored))


def _turned(picture: Float32[np.ndarray, "s s *c"], mirrored: bool) -> Float32[np.ndarray, "s s *c"]:
    """Left to right, or as it is."""
    return np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture


def _signed(image: Float32[np.ndarray, "s s 3"]) -> Float[Tensor, "1 3 s s"]:
    """[0, 255] to [−1, 1]."""
    return torch.from_numpy(np.ascontiguousarray((image * (2 / WHITE) - 1).transpose(2, 0, 1), np.float32))[None]


def _check_finite(*tensors: Tensor) -> None:
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise EngineFailure("the networks gave numbers that are not finite")
