"""What a compiled file is made from, as one number: the name under which it is kept."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deocc_engines.bundle import sha256_of

__all__ = ["Recipe", "graph_hash"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a build gives. Plans are not the same bytes twice, so they are known by this.

    Attributes:
        graph: of `graph_hash`.
        profile: (min, opt, max) shapes by input.
        flags: of the builder, and which operators were kept in float32.
        sms: compute capabilities.
    """

    graph: str
    profile: Mapping[str, Sequence[Sequence[int]]]
    dtype: str
    flags: tuple[str, ...]
    runtime: str
    version: str
    sms: tuple[str, ...]
    os: str = f"{platform.system()}-{platform.machine()}"

    @property
    def key(self) -> str:
        """Hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def graph_hash(onnx: Path) -> str:
    """SHA-256 over an ONNX file and the external data beside it."""
    digest = hashlib.sha256(sha256_of(onnx).encode())
    data = onnx.with_name(onnx.name + ".data")
    if data.is_file():
        digest.update(sha256_of(data).encode())
    return digest.hexdigest()
