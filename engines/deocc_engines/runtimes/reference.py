"""The reference: torch in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from deocc_engines.components import Call

__all__ = ["NAME", "compile_call"]

NAME = "torch-f32"


def compile_call(name: str, call: Call) -> Mapping[int, Callable[..., Any]]:
    """The module itself, without gradients."""
    module = call.module

    @torch.inference_mode()
    def run(*inputs: Tensor) -> Any:
        return module(*inputs)

    return {1: run}
