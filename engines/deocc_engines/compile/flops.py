"""How much work a call is."""

from __future__ import annotations

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from deocc_engines.components import Call

__all__ = ["flops_of"]


def flops_of(call: Call, rows: int = 1) -> int:
    """Floating-point operations, two a multiplication with addition.

    Counted on the meta device: without memory, and with attention, which the counter misses on a CPU.
    """
    module = call.module
    state = {name: tensor.to("meta") for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    inputs = tuple(example.repeat(rows, *(1 for _ in example.shape[1:])).to("meta") for example in call.example)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        functional_call(module, state, inputs)
    return int(counter.get_total_flops())
