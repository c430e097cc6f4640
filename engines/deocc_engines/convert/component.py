"""One component of a bundle: its configuration and its weights, written one component at a time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from deocc_engines.convert.tensors import StoredTensor
from deocc_engines.errors import InvalidBundle

__all__ = ["DTYPES", "Component"]

DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, eq=False)
class Component:
    """What was found for one network, not yet read.

    Attributes:
        name: of its folder.
        config: a dataclass, the network's.
        weights: by the names of the network's own state dict.
        files: that they are in.
        kind: of the network, where a component has several.
    """

    name: str
    config: Any
    weights: Mapping[str, StoredTensor]
    files: tuple[Path, ...]
    kind: str | None = None

    def write(self, bundle: Path, dtype: torch.dtype) -> None:
        """Writes config.json and model.safetensors. In memory: these weights in `dtype`, and one tensor.

        Raises:
            InvalidBundle: a tensor holds numbers that are not finite, or too large for `dtype`.
        """
        folder = bundle / self.name
        folder.mkdir()
        values = {**({"kind": self.kind} if self.kind else {}), **dataclasses.asdict(self.config)}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
        weights = {name: self._cast(name, stored.read(), dtype) for name, stored in self.weights.items()}
        save_file(weights, folder / "model.safetensors")

    def _cast(self, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        cast = tensor.to(dtype).clone(memory_format=torch.contiguous_format)
        if torch.isfinite(cast).all():
            return cast
        if not torch.isfinite(tensor).all():
            raise InvalidBundle(f"{self.name}: {name} holds numbers that are not finite")
        short = str(dtype).removeprefix("torch.")
        raise InvalidBundle(f"{self.name}: {name} holds numbers too large for {short}; ask for float32")
