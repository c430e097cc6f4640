"""Which runtime an engine gets: by what its bundle holds and what the machine can run, said in the log, never silently.

``auto``: on a machine with a GPU TensorRT, or torch on the GPU where no plan may run; OpenVINO elsewhere, torch
where it is not installed. Whatever failed its comparison with the reference is not served; what was compiled but never
compared is left aside.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import torch

from deocc_engines.bundle import Bundle
from deocc_engines.compile.listing import Artefact
from deocc_engines.compile.verdicts import Verdicts, verdicts_file
from deocc_engines.components import Call
from deocc_engines.errors import DeoccError, InvalidBundle, Unavailable
from deocc_engines.extras import extra
from deocc_engines.folders import cache_folder, converted_name
from deocc_engines.runtimes import Runtime, cuda, reference
from deocc_engines.runtimes.card import MODULES, card_here
from deocc_engines.runtimes.profiles import choose_plans

__all__ = ["RuntimeName", "expected_here", "runtime_of"]

RuntimeName = Literal["auto", "openvino", "torch", "onnx", "tensorrt", "cuda", "cuda-compiled"]

log = logging.getLogger(__name__)


def runtime_of(
    bundle: Bundle, calls: dict[str, Call], wanted: RuntimeName, streams: int, *, unverified: bool = False
) -> Runtime:
    """Compiles every call of a bundle.

    Args:
        streams: requests that may run at once; of runtimes of the CPU.
        unverified: also what was never compared with the reference, or failed: for the comparison itself.

    Raises:
        InvalidBundle: what would be served failed its comparison, or is not for this machine.
        Unavailable: a part of the runtime is not installed, or there is no such device.
    """
    gate = _Gate(bundle, unverified)
    if wanted == "auto":
        return _gpu(bundle, calls, gate) if torch.cuda.is_available() else _cpu(bundle, calls, streams, gate)
    if wanted == "tensorrt":
        return _tensorrt(bundle, calls, gate)
    if wanted in ("cuda", "cuda-compiled"):
        return _cuda(calls, gate, optimise=wanted == "cuda-compiled")
    if wanted == "torch":
        return _torch(calls, gate)
    return _openvino(bundle, calls, streams, gate) if wanted == "openvino" else _onnx(bundle, calls, streams, gate)


def expected_here() -> str:
    """What ``auto`` comes to on this machine, before a bundle is loaded."""
    if torch.cuda.is_available():
        return f"tensorrt or {cuda.NAME}"
    try:
        with extra("serve"):
            from deocc_engines.runtimes.openvino import runtime_here
    except Unavailable:
        return reference.NAME
    return runtime_here()


class _Gate:
    """Lets through what was compared and found equal."""

    def __init__(self, bundle: Bundle, unverified: bool) -> None:
        self._bundle, self.unverified = bundle, unverified

    def admitted(self, artefacts: tuple[Artefact, ...], identity: str) -> tuple[Artefact, ...]:
        """Those that may be served.

        Raises:
            InvalidBundle: one failed.
        """
        admitted = []
        for artefact in artefacts:
            verdict = artefact.parity.get(identity)
            if not self.unverified and verdict is None:
                log.warning(
                    "%s as compiled in the bundle was never compared with the reference as %s and is left aside; "
                    "'deocc engines verify' does",
                    artefact.call,
                    identity,
                )
                continue
            if not self.unverified:
                Verdicts({artefact.call: verdict} if verdict else {}).check(identity)
            admitted.append(artefact)
        return tuple(admitted)

    def files(self, artefacts: tuple[Artefact, ...], suffix: str) -> dict[str, Path]:
        return {artefact.call: self._bundle.path / artefact.file(suffix) for artefact in artefacts}

    def passed(self, runtime: Runtime) -> Runtime:
        """The runtime, unless what it gives was found wrong on this machine."""
        if self.unverified:
            return runtime
        here = Verdicts.read(verdicts_file(self._bundle.engine_id, runtime.identity))
        # Verdicts on what the bundle holds travel with it; those on what was converted here stay here.
        compiled = {artefact.call for artefact in runtime.artefacts}
        calls = {name: verdict for name, verdict in here.calls.items() if name not in compiled}
        image = self._bundle.compiled.image.get(runtime.identity, ()) if compiled else here.image
        Verdicts(calls, image).check(runtime.name)
        return runtime


def _cpu(bundle: Bundle, calls: dict[str, Call], streams: int, gate: _Gate) -> Runtime:
    try:
        return _openvino(bundle, calls, streams, gate)
    except Unavailable as error:
        log.warning("NOT running on OpenVINO, but on the slower torch: %s", error.message)
        return _torch(calls, gate)


def _torch(calls: dict[str, Call], gate: _Gate) -> Runtime:
    return gate.passed(Runtime.compiled(reference.NAME, calls, reference.compile_call, torch.__version__))


def _openvino(bundle: Bundle, calls: dict[str, Call], streams: int, gate: _Gate) -> Runtime:
    with extra("serve"):
        from deocc_engines.runtimes.openvino import OpenvinoCompiler, runtime_here, version_here
    name, version = runtime_here(), version_here().rpartition("-")[2]
    artefacts = bundle.compiled.of("openvino")
    for other in {artefact.runtime for artefact in artefacts} - {version_here()}:
        log.warning("networks compiled with %s are left aside: this is %s", other, version_here())
    fitting = tuple(artefact for artefact in artefacts if artefact.runtime == version_here())
    admitted = gate.admitted(fitting, f"{name}@{version}")
    key = f"{converted_name(bundle.engine_id)}-torch{torch.__version__}-ov{version}"
    compiler = OpenvinoCompiler(cache_folder() / "openvino" / key, streams, gate.files(admitted, ".xml"))
    return gate.passed(Runtime.compiled(name, calls, compiler, version, admitted, streams))


def _onnx(bundle: Bundle, calls: dict[str, Call], streams: int, gate: _Gate) -> Runtime:
    with extra("export"):
        from deocc_engines.compile.export import graphs_folder
        from deocc_engines.runtimes.onnx import OnnxCompiler, version_here
    artefacts = bundle.compiled.of("onnx")
    dtype = next((artefact.dtype for artefact in artefacts if artefact.call == "denoise"), "f32")
    name, version = f"onnx-{dtype}", version_here()
    admitted = gate.admitted(artefacts, f"{name}@{version}")
    compiler = OnnxCompiler(graphs_folder(bundle.engine_id), gate.files(admitted, ".onnx"))
    return gate.passed(Runtime.compiled(name, calls, compiler, version, admitted, streams))


def _gpu(bundle: Bundle, calls: dict[str, Call], gate: _Gate) -> Runtime:
    try:
        return _tensorrt(bundle, calls, gate)
    except DeoccError as error:
        log.warning("NOT running on TensorRT, but on the slower torch: %s", error.message)
        return _cuda(calls, gate)


def _cuda(calls: dict[str, Call], gate: _Gate, *, optimise: bool = False) -> Runtime:
    if not torch.cuda.is_available():
        raise Unavailable("there is no CUDA device on this machine")
    compiled = {name: cuda.compile_call(name, call, optimise=optimise) for name, call in calls.items()}
    name = f"{cuda.NAME}-compiled" if optimise else cuda.NAME
    return gate.passed(Runtime.batched(name, compiled, cuda.version_here()))


def _tensorrt(bundle: Bundle, calls: dict[str, Call], gate: _Gate) -> Runtime:
    from deocc_engines.runtimes.tensorrt import EngineSet

    reasons = []
    for module in MODULES:
        try:
            card = card_here(module)
        except Unavailable as error:
            reasons.append(error.message)
            continue
        choice = choose_plans(bundle.compiled, calls, card, unverified=gate.unverified)
        if choice.refusal:
            reasons.append(choice.refusal)
            continue
        engines = EngineSet.open(card, bundle.path, calls, choice.plans)
        version = choice.identity.partition("@")[2]
        plans = tuple(artefact for own in choice.plans.values() for artefact in own)
        compiled = {name: engines.call(name) for name in calls}
        return gate.passed(Runtime.batched(choice.name, compiled, version, plans))
    raise InvalidBundle(f"no plan of this bundle runs here: {'; '.join(dict.fromkeys(reasons))}")
