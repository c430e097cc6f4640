"""Which of several samples comes first, judged without ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from deocc_engines.completion import Sample

__all__ = ["ranked"]

FINEST = 512  # cells along the longer side in which shapes are compared


def ranked(samples: Sequence[Sample], modal: Bool[np.ndarray, "h w"]) -> tuple[Sample, ...]:
    """Best first, each with its final score.

    One sample keeps the score q that it came with. Of several, q is multiplied with a sample's mean agreement with the
    others, the IoU of the hidden parts: of draws from p(shape | image), the one that agrees most with the rest has the
    highest expected IoU with the truth, as far as the model's distribution is right (minimum Bayes risk).

    Where a refiner judged, with its probability w that next to nothing is hidden, the median of the samples', the score
    is then w + (1 − w)·q. w must be the same for all, or a sample that finds less would come first for that.
    """
    if len(samples) > 1:
        agreed = zip(samples, _agreement(samples, modal), strict=True)
        samples = [replace(sample, score=sample.score * a) for sample, a in agreed]
    judged = [sample.whole for sample in samples if sample.whole is not None]
    if judged:
        whole = float(np.median(judged))
        samples = [replace(sample, score=whole + (1 - whole) * sample.score) for sample in samples]
    return tuple(sorted(samples, key=lambda sample: -sample.score))


def _agreement(samples: Sequence[Sample], modal: Bool[np.ndarray, "h w"]) -> list[float]:
    """The mean IoU of each sample's hidden part with those of the others."""
    stride = max(1, -(-max(modal.shape) // FINEST))
    seen = modal[::stride, ::stride]
    hidden = np.stack([sample.amodal_mask()[::stride, ::stride] & ~seen for sample in samples])
    flat = hidden.reshape(len(samples), -1).astype(np.float32)
    both = flat @ flat.T
    area = np.diag(both)
    union = area[:, None] + area[None] - both
    agreement = np.where(union > 0, both / np.maximum(union, 1), 1.0)
    mean: list[float] = ((agreement.sum(1) - 1) / (len(samples) - 1)).tolist()
    return mean
