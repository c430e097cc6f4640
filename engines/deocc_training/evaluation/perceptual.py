"""LPIPS on the hidden part."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from deocc_training.evaluation.networks import Network

__all__ = ["hidden_lpips", "lpips"]

SIDE = 256  # pixels
MARGIN = 8  # pixels around the hidden part, so that its edges are seen


def lpips(network: Network, a: UInt8[np.ndarray, "s s 3"], b: UInt8[np.ndarray, "s s 3"]) -> float:
    """Learned perceptual distance (Zhang et al., CVPR 2018) of two pictures.

    The network takes two batches of RGB pictures in [−1, 1] and gives a number for each pair, as an exported `lpips`
    model does.
    """
    return float(network(_signed(a), _signed(b))[0, 0])


def hidden_lpips(
    network: Network,
    answer: UInt8[np.ndarray, "h w 3"],
    truth: UInt8[np.ndarray, "h w 3"],
    hidden: Bool[np.ndarray, "h w"],
) -> float:
    """LPIPS of the truth and the truth with its hidden part replaced by the answer's, both on white.

    Cropped to the hidden part's box and 8 pixels around it, resized to 256x256.
    """
    mixed = np.where(hidden[..., None], answer, truth)
    ys, xs = np.nonzero(hidden)
    part = np.s_[max(0, ys.min() - MARGIN) : ys.max() + MARGIN + 1, max(0, xs.min() - MARGIN) : xs.max() + MARGIN + 1]
    return lpips(network, _resized(mixed[part]), _resized(truth[part]))


def _resized(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    return np.array(Image.fromarray(np.ascontiguousarray(picture)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _signed(picture: UInt8[np.ndarray, "s s 3"]) -> Float32[np.ndarray, "1 3 s s"]:
    return (picture.transpose(2, 0, 1)[None] / 127.5 - 1).astype(np.float32)
