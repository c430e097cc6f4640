"""Which of several samples comes first, judged without ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from deocc_engines.completion import Sample

__all__ = ["ranked"]

FINEST = 512  # cells along the longer side in which shapes are compared


def ranked(samples: Sequence[Sample], modal: Bool[np.ndarray, "h w"]) -> tuple[Sample, ...]:
    """Best first, each with its final score.

    Where a refiner judged, it has the last word: with its probability w that next to nothing is hidden, the median of
    the samples', and the IoU q of the hidden part that it expects, a score is w + (1 − w)·q. w must be the same for
    all, or a sample that finds less would come first for that.

    Else one sample keeps the score that it came with. Of several, a sample's score is multiplied with its mean
    agreement with the others, the IoU of the hidden parts: of draws from p(shape | image), the one that agrees most
    with the rest has the highest expected IoU with the truth, as far as the model's distribution is right (minimum
    Bayes risk).
    """
    judged = [sample.whole for sample in samples if sample.whole is not None]
    if judged:
        whole = float(np.median(judged))
        return _sorted(replace(sample, score=whole + (1 - whole) * sample.score) for sample in samples)
    if len(samples) == 1:
        return tuple(samples)
    stride = max(1, -(-max(modal.shape) // FINEST))
    seen = modal[::stride, ::stride]
    hidden = np.stack([sample.amodal_mask()[::stride, ::stride] & ~seen for sample in samples])
    flat = hidden.reshape(len(samples), -1).astype(np.float32)
    both = flat @ flat.T
    area = np.diag(both)
    union = area[:, None] + area[None] - both
    agreement = np.where(union > 0, both / np.maximum(union, 1), 1.0)
    mean = (agreement.sum(1) - 1) / (len(samples) - 1)
    return _sorted(replace(sample, score=sample.score * float(a)) for sample, a in zip(samples, mean, strict=True))


def _sorted(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: -sample.score))
