"""Do completed objects look like whole ones? Distances between two sets of pictures, by their features."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image
from scipy import linalg

from deocc_training.evaluation.networks import Network

__all__ = ["RECIPE", "SIDE", "crop", "distances", "features"]

SIDE = 299  # pixels
MARGIN = 1.1
BATCH = 16
SUBSETS, SUBSET = 100, 1000  # of the kernel distance
SEED = 20
RECIPE = (
    "Real: the visible pixels of objects that are not occluded, by the annotated mask. Completed: the service's first "
    "choice for the occluded ones. Each is cropped to a square of 1.1 times the longer side of its alpha's box around "
    "that box's centre, on white, resized to 299x299 (Pillow, bicubic with antialiasing), RGB float32 in [0, 255]."
)


def crop(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "s s 3"] | None:
    """By the recipe; None if all is transparent."""
    ys, xs = np.nonzero(rgba[..., 3] > 127)
    if not len(ys):
        return None
    half = MARGIN * max(np.ptp(xs) + 1, np.ptp(ys) + 1) / 2
    x, y = (xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2
    box = [round(float(v)) for v in (x - half, y - half, x + half, y + half)]
    square = (
        Image.fromarray(rgba).convert("RGBa").crop((box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)))
    )
    small = square.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB"))


def features(network: Network, pictures: Iterator[UInt8[np.ndarray, "s s 3"]]) -> Float32[np.ndarray, "n d"]:
    """Of each picture, in order; an empty array for none."""
    parts = []
    while part := list(islice(pictures, BATCH)):
        parts.append(network(np.stack(part).transpose(0, 3, 1, 2).astype(np.float32)))
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def distances(real: Float32[np.ndarray, "n d"], completed: Float32[np.ndarray, "m d"]) -> dict[str, Any]:
    """Fréchet and kernel distance; None where a set has fewer than two pictures."""
    if min(len(real), len(completed)) < 2:
        return {"frechet": None, "kernel": None, "real": len(real), "completed": len(completed)}
    a, b = real.astype(np.float64), completed.astype(np.float64)
    return {
        "frechet": round(_frechet(a, b), 4),
        "kernel": round(_kernel(a, b), 6),
        "real": len(a),
        "completed": len(b),
        # A covariance of fewer pictures than features is singular, and the distance biased upwards.
        "biased": min(a.shape[0], b.shape[0]) <= a.shape[1],
    }


def _frechet(a: Float64[np.ndarray, "n d"], b: Float64[np.ndarray, "m d"]) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)   (Heusel et al., NeurIPS 2017)"""
    mean = a.mean(0) - b.mean(0)
    sigma_a, sigma_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The eigenvalues of a product of two covariances are real and not negative, but for rounding.
    roots = np.sqrt(np.clip(linalg.eigvals(sigma_a @ sigma_b).real, 0, None))
    return float(mean @ mean + np.trace(sigma_a) + np.trace(sigma_b) - 2 * roots.sum())


def _kernel(a: Float64[np.ndarray, "n d"], b: Float64[np.ndarray, "m d"]) -> float:
    """Unbiased MMD² with k(x, y) = (xᵀy / d + 1)³, mean over random subsets (Bińkowski et al., ICLR 2018)"""
    size = min(len(a), len(b), SUBSET)
    random = np.random.default_rng(SEED)
    count = 1 if size == len(a) == len(b) else SUBSETS
    values = [
        _mmd(a[random.choice(len(a), size, replace=False)], b[random.choice(len(b), size, replace=False)])
        for _ in range(count)
    ]
    return float(np.mean(values))


def _mmd(a: Float64[np.ndarray, "n d"], b: Float64[np.ndarray, "n d"]) -> float:
    n = len(a)
    k_aa, k_bb, k_ab = ((x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = (k_aa.sum() - np.trace(k_aa) + k_bb.sum() - np.trace(k_bb)) / (n * (n - 1))
    return float(within - 2 * k_ab.mean())
