"""The engines that a service runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from deocc.v1 import deocclusion_pb2 as v1

__all__ = ["Engine", "Limits", "Preset"]


@dataclass(frozen=True)
class Preset:
    """What an engine takes for options that are left out."""

    steps: int
    guidance_image: float
    guidance_text: float
    local_strength: float
    draws: int

    @classmethod
    def from_message(cls, message: v1.CompleteOptions) -> Preset:
        return cls(message.steps, message.guidance_image, message.guidance_text, message.local_strength, message.draws)


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_bytes: int  # of the encoded image
    max_pixels: int
    max_points: int
    max_samples: int
    max_steps: int
    max_text_characters: int
    max_draws: int


@dataclass(frozen=True)
class Engine:
    """One engine of a service."""

    engine_id: str  # name and content hash, "deocc-mini@3f2a…"
    name: str
    licence: str
    commercial_use: bool
    runtimes: Mapping[str, str]  # by call of a network, e.g. "denoise"
    is_default: bool
    window: int  # pixels along each side of the completer's window
    default_preset: str
    presets: Mapping[str, Preset]
    limits: Limits

    @classmethod
    def from_message(cls, message: v1.Engine) -> Engine:
        limits = message.limits
        return cls(
            message.engine_id,
            message.name,
            message.licence,
            message.commercial_use,
            MappingProxyType(dict(message.runtimes)),
            message.is_default,
            message.window,
            message.defaults.preset,
            MappingProxyType({name: Preset.from_message(message.presets[name]) for name in sorted(message.presets)}),
            Limits(
                limits.max_bytes,
                limits.max_pixels,
                limits.max_points,
                limits.max_samples,
                limits.max_steps,
                limits.max_text_characters,
                limits.max_draws,
            ),
        )
