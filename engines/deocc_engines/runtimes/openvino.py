"""OpenVINO on the CPU: bfloat16 where the processor has it, float32 otherwise.

Each request in flight has one thread of its own: so the arithmetic of a row never depends on how many others run,
and on two cores two streams of one thread do more work than one of two. A small denoiser also takes several rows in one
request, which saves reading its weights for each: where that gives each row the same bytes on this machine.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import LifoQueue
from types import MappingProxyType
from typing import Any

import openvino as ov
import torch
from openvino import properties
from openvino.properties import hint
from torch import Tensor

from deocc_engines.components import Call

__all__ = ["OpenvinoCompiler", "convert", "runtime_here", "version_here"]

log = logging.getLogger(__name__)

# Rows. Each size costs memory (140 MB of deocc-mini) and half a second at the start; eight would save 4 % over four.
BATCHES = (2, 4)
SMALL = 100e6  # parameters; a row of a larger network has work enough: full size runs at 94 % of the peak


def runtime_here() -> str:
    """The name of this runtime on this machine: with the precision that its processor computes in."""
    capabilities = ov.Core().get_property("CPU", properties.device.capabilities)
    return "openvino-bf16" if "BF16" in capabilities else "openvino-f32"


def version_here() -> str:
    """Names OpenVINO as listings do, e.g. "openvino-2026.4.1"."""
    return f"openvino-{ov.__version__.split('-')[0]}"


def convert(call: Call) -> ov.Model:
    """A call for rows of one as OpenVINO's own graph, in float32."""
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every shape that it takes as constant; ours are
        # Traced here: the converter's own tracing runs the network thrice more, to look whether it is deterministic.
        traced = torch.jit.trace(call.module, call.example, strict=False, check_trace=False)  # type: ignore[no-untyped-call]
        model = ov.convert_model(traced, example_input=call.example)
    model.reshape(
        {
            port: [1, -1, *example.shape[2:]] if index in call.dynamic else list(example.shape)
            for index, (port, example) in enumerate(zip(model.inputs, call.example, strict=True))
        }
    )
    return model


class OpenvinoCompiler:
    """Converts modules once, keeps the result in `cache`, compiles it for this machine.

    Args:
        cache: a directory for converted networks; its name holds the bundle's hash.
        streams: requests that may run at once.
        compiled: files of networks that were converted before, by call.
    """

    def __init__(self, cache: Path, streams: int, compiled: Mapping[str, Path] = MappingProxyType({})) -> None:
        self._core = ov.Core()
        self._cache, self._streams, self._compiled = cache, streams, compiled
        self.name = runtime_here()

    def __call__(self, name: str, call: Call) -> Mapping[int, Callable[..., Any]]:
        """Compiles one call, by the number of rows."""
        model = self._converted(name, call)
        by_size = {1: self._runner(model, call)}
        if call.batched and sum(p.numel() for p in call.module.parameters()) < SMALL:
            for size in BATCHES:
                model.reshape(
                    {port: [size, *example.shape[1:]] for port, example in zip(model.inputs, call.example, strict=True)}
                )
                together = self._runner(model, call)
                if not _agree(by_size[1], together, call, size):
                    log.warning(
                        "%s rows at once give other bytes than one on this machine: each is run by itself", size
                    )
                    break
                by_size[size] = together
        return by_size

    def _runner(self, model: ov.Model, call: Call) -> Callable[..., Any]:
        compiled = self._core.compile_model(model, "CPU", self._options(call))
        # A request holds all buffers of a pass and serves one thread at a time: as many as can run, the last one first.
        free: LifoQueue[ov.InferRequest | None] = LifoQueue()
        for _ in range(self._streams):
            free.put(None)

        def run(*inputs: Tensor) -> Any:
            request = free.get()
            try:
                request = request or compiled.create_infer_request()
                result = request.infer([tensor.numpy() for tensor in inputs], share_inputs=True)
                # Copied out: the request's buffers are written again by its next run.
                outputs = tuple(torch.from_numpy(result[i].copy()) for i in range(len(compiled.outputs)))
            finally:
                free.put(request)
            return outputs if len(outputs) > 1 else outputs[0]

        return run

    def _options(self, call: Call) -> dict[str, Any]:
        precise = call.exact or self.name == "openvino-f32"
        return {
            hint.inference_precision(): ov.Type.f32 if precise else ov.Type.bf16,
            properties.inference_num_threads(): self._streams,
            properties.num_streams(): self._streams,
            hint.enable_cpu_pinning(): False,  # several models share these cores
        }

    def _converted(self, name: str, call: Call) -> ov.Model:
        if name in self._compiled:
            return self._core.read_model(self._compiled[name])
        file = self._cache / f"{name}.xml"
        if file.exists():
            return self._core.read_model(file)
        log.info("converting %s for OpenVINO; kept in %s", name, self._cache)
        model = convert(call)
        self._cache.mkdir(parents=True, exist_ok=True)
        # Several replicas may start at once: each writes its own file and renames it whole, weights first.
        own = self._cache / f"{name}.{threading.get_ident()}.xml"
        ov.save_model(model, own, compress_to_fp16=True)
        own.with_suffix(".bin").replace(file.with_suffix(".bin"))
        own.replace(file)
        return self._core.read_model(file)


def _agree(one: Callable[..., Any], together: Callable[..., Any], call: Call, rows: int) -> bool:
    """Whether each row has the same bytes alone and among others."""
    generator = torch.Generator().manual_seed(rows)
    shapes = [(rows, *example.shape[1:]) for example in call.example]
    drawn = [
        example + torch.randn(shape, generator=generator) for example, shape in zip(call.example, shapes, strict=True)
    ]
    alone = torch.cat([one(*(tensor[row : row + 1] for tensor in drawn)) for row in range(rows)])
    return torch.equal(together(*drawn), alone)
