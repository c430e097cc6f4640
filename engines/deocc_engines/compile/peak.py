"""What this machine can do at most: a large product of matrices on the same runtime, in the same run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

__all__ = ["SIDE", "gemm"]

SIDE = 2048


def gemm(runtime: str, streams: int) -> tuple[Callable[[], object], int]:
    """One product on the kind of arithmetic that a runtime does, and its floating-point operations.

    Args:
        runtime: its name.
        streams: requests in flight, of one thread each; of runtimes of the CPU.
    """
    if runtime.startswith("openvino"):
        return _openvino(runtime.rpartition("-")[2], streams), 2 * SIDE**3
    if "cuda" in runtime or runtime.startswith("tensorrt"):
        return _cuda(), 2 * (4 * SIDE) ** 3
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return lambda: a @ b, 2 * SIDE**3


def _openvino(dtype: str, streams: int) -> Callable[[], object]:
    import openvino as ov  # machines with a GPU need not have it
    from openvino import opset13 as ops
    from openvino import properties
    from openvino.properties import hint

    rng = np.random.default_rng(0)
    weight = ops.constant(rng.standard_normal((SIDE, SIDE), np.float32))
    given = ops.parameter([SIDE, SIDE], np.float32)
    model = ov.Model([ops.matmul(given, weight, False, True)], [given])
    options = {
        hint.inference_precision(): getattr(ov.Type, dtype),
        properties.inference_num_threads(): streams,
        properties.num_streams(): streams,
        hint.enable_cpu_pinning(): False,
    }
    compiled, x = ov.Core().compile_model(model, "CPU", options), rng.standard_normal((SIDE, SIDE), np.float32)
    return lambda: compiled.create_infer_request().infer([x], share_inputs=True)


def _cuda() -> Callable[[], object]:
    a, b = (torch.randn(4 * SIDE, 4 * SIDE, dtype=torch.float16, device="cuda") for _ in range(2))

    def run() -> None:
        torch.mm(a, b)
        torch.cuda.synchronize()

    return run
