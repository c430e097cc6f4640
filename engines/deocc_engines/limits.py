"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds on one request; a request over one of them is refused with TooLarge."""

    max_bytes: int = 20 * 1024 * 1024  # of the encoded image
    max_pixels: int = 40_000_000  # of the decoded image
    min_side: int = 16  # pixels
    max_points: int = 64
    max_samples: int = 8
    max_steps: int = 100  # per stage
    max_draws: int = 8  # of which a sample is the mean
    max_text_characters: int = 300
