"""Torch on a GPU: what runs where no plan fits. Float16 products, float32 normalisations and softmax (autocast)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deocc_engines.components import Call

__all__ = ["NAME", "compile_call", "version_here"]

NAME = "torch-cuda-f16"


def version_here() -> str:
    """The exact version, and the card that it was compared on."""
    return f"{torch.__version__}-sm{''.join(map(str, torch.cuda.get_device_capability()))}"


def compile_call(name: str, call: Call, *, optimise: bool = False) -> Callable[..., Any]:
    """The module itself, moved to the card. Takes and gives tensors of the host.

    Args:
        optimise: with torch.compile, which takes minutes and is worth it in long runs. Without its CUDA graphs: those
            can be replayed only by the thread that captured them, and requests come in threads of their own.
    """
    module = call.module.to("cuda")
    forward: Callable[..., Any] = torch.compile(module, mode="max-autotune-no-cudagraphs") if optimise else module

    @torch.inference_mode()
    def run(*inputs: Tensor) -> Any:
        with torch.autocast("cuda", torch.float16, enabled=not call.exact):
            outputs = forward(*(tensor.to("cuda", non_blocking=True) for tensor in inputs))
        if isinstance(outputs, tuple):
            return tuple(output.float().cpu() for output in outputs)
        return outputs.float().cpu()

    return run
