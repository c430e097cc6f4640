"""What is asked of the engine. Ablations are nothing but other settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from deocc.errors import InvalidOption

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Everything that the answers depend on, besides engine and data set; None stands for the engine's default."""

    prompt: Literal["mask", "point"] = "mask"  # the annotation's mask, or a click at its deepest pixel
    text: Literal["none", "name"] = "none"  # what the annotation calls the object
    samples: int = 8
    seed: int = 0  # sample i of every object is drawn with seed + i
    preset: str = ""  # the engine's values for what follows; empty: its default preset
    steps: int | None = None
    guidance_image: float | None = None
    guidance_text: float | None = None
    local_strength: float | None = None  # 0: the global stage alone (without G2L)
    draws: int | None = None  # of which each sample is the mean
    keep_visible: bool = True

    def __post_init__(self) -> None:
        for name, allowed in (("prompt", ("mask", "point")), ("text", ("none", "name"))):
            if getattr(self, name) not in allowed:
                raise InvalidOption(f"must be {' or '.join(allowed)}", field=name)
        if self.samples < 1:
            raise InvalidOption("must be at least 1", field="samples")

    def arguments(self) -> dict[str, Any]:
        """Of `Client.complete`, those that every request shares."""
        names = ("preset", "steps", "guidance_image", "guidance_text", "local_strength", "draws", "keep_visible")
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def best_of(self) -> tuple[int, ...]:
        """1, 2, 4, 8 … up to the number of samples."""
        counts = [2**power for power in range(self.samples.bit_length()) if 2**power < self.samples]
        return (*counts, self.samples)
