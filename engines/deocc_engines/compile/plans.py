"""One ONNX graph to one plan of TensorRT or TensorRT-RTX, in a process of its own.

The vendors' libraries are large, hold memory until the process ends, and end it themselves when something is wrong;
`build_plan` starts ``python -m deocc_engines.compile.plans``, which does the work and says what became of it.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from deocc_engines.errors import EngineFailure, InvalidBundle, InvalidOption, Unavailable

__all__ = ["FLAGS", "MODULES", "Builder", "Profile", "build_plan", "builder_here"]

# (min, opt, max) shapes of one input.
Profile = Sequence[Sequence[Sequence[int]]]

MODULES = {"trt-rtx": "tensorrt_rtx", "trt": "tensorrt"}
PACKAGES = {"tensorrt_rtx": "tensorrt-rtx-cu12", "tensorrt": "tensorrt"}
HINTS = {
    "tensorrt_rtx": "pip install 'deocc[trt-rtx]' brings it",
    "tensorrt": "pip install tensorrt, with its vendor's own index, brings it",
}
FLAGS = ("strongly-typed",)
TIME_LIMIT = 3600.0  # seconds; a full-size network takes some minutes on a data-centre card


@dataclass(frozen=True)
class Refusal:
    """A node that the parser or the builder refused."""

    node: str
    operator: str
    why: str

    def __str__(self) -> str:
        return f"{self.operator or 'node'} {self.node!r}: {self.why}" if self.node else self.why


@dataclass(frozen=True)
class Builder:
    """What is installed.

    Attributes:
        version: exactly, as the module itself says it.
        sms: compute capabilities that it compiles for without having such a card; none: only for its own.
    """

    module: str
    version: str
    sms: tuple[str, ...]


def builder_here(module: str) -> Builder:
    """Asks a builder about itself.

    Raises:
        Unavailable: it is not installed, or cannot be loaded on this machine.
    """
    try:
        distribution(PACKAGES[module])
    except PackageNotFoundError:
        raise Unavailable(f"{PACKAGES[module]} is not installed; {HINTS[module]}") from None
    answer = _ask(module, {"do": "supported"})
    return Builder(module, answer["version"], tuple(answer["sms"]))


def build_plan(module: str, onnx: Path, plan: Path, sm: str, profile: Profile) -> float:
    """Writes the plan; returns the seconds that it took.

    Args:
        sm: compute capability; empty: this machine's.
        profile: by input, in the graph's order.

    Raises:
        InvalidBundle: an operator is not supported; the node is named.
        InvalidOption: not for this compute capability.
        Unavailable: the builder cannot be loaded on this machine.
    """
    order = {"do": "build", "onnx": str(onnx), "plan": str(plan), "sm": sm, "profile": profile}
    answer = _ask(module, order)
    refusals = [Refusal(**refusal) for refusal in answer["refusals"]]
    if refusals:
        shown = "; ".join(map(str, refusals[:5]))
        raise InvalidBundle(f"{module} refuses {onnx.parent.name}: {shown}")
    if not plan.is_file():
        raise EngineFailure(f"{module} gave no plan and no reason for {onnx.parent.name}")
    return float(answer["seconds"])


def _ask(module: str, order: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "deocc_engines.compile.plans", module]
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        command, input=json.dumps(order), capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        answer: dict[str, Any] = json.loads(last)
    except ValueError:
        tail = done.stderr.strip().splitlines()[-1:] or ["no word"]
        raise Unavailable(f"{module} ended with status {done.returncode} on this machine: {tail[0]}") from None
    if "sm" in answer.get("unfit", {}):
        raise InvalidOption(f"{module} does not compile for sm{order['sm']}: {answer['unfit']['sm']}", field="sm")
    return answer


class _Worker:
    """Runs in the process of its own."""

    def __init__(self, module: str) -> None:
        self._trt = trt = importlib.import_module(module)
        errors: list[str] = []

        class Log(trt.ILogger):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    errors.append(message)

        self._errors, self._log = errors, Log()

    def supported(self) -> dict[str, Any]:
        members = getattr(getattr(self._trt, "ComputeCapability", None), "__members__", {})
        sms = [name.removeprefix("SM") for name in members if name.startswith("SM")]
        return {"version": self._trt.__version__, "sms": sms}

    def build(self, onnx: str, plan: str, sm: str, profile: Profile) -> dict[str, Any]:
        trt, started = self._trt, time.perf_counter()
        builder = trt.Builder(self._log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(onnx):
            return {"refusals": [self._refusal(parser.get_error(i)) for i in range(parser.num_errors)]}
        config = builder.create_builder_config()
        if sm and (why := self._aim(config, sm)):
            return {"unfit": {"sm": why}, "refusals": []}
        shapes = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            shapes.set_shape(network.get_input(i).name, *(tuple(shape) for shape in profile[i]))
        config.add_optimization_profile(shapes)
        built = builder.build_serialized_network(network, config)
        if built is None:
            return {"refusals": [{"node": "", "operator": "", "why": why} for why in self._errors or ["no plan"]]}
        Path(plan).write_bytes(built)
        return {"refusals": [], "seconds": time.perf_counter() - started}

    def _aim(self, config: Any, sm: str) -> str:
        """Why the plan cannot be made for this compute capability; empty if it can."""
        if not self.supported()["sms"]:  # builds for the card at hand, whichever is asked for
            return ""
        capability = getattr(self._trt.ComputeCapability, f"SM{sm}", None)
        config.num_compute_capabilities = 1
        if capability is None or not config.set_compute_capability(capability, 0):
            return f"it does for {', '.join(self.supported()['sms'])}"
        return ""

    @staticmethod
    def _refusal(error: Any) -> dict[str, str]:
        return {"node": error.node_name(), "operator": error.node_operator(), "why": error.desc()}


def _main() -> None:
    order = json.loads(sys.stdin.read())
    builder, do = _Worker(sys.argv[1]), order.pop("do")
    answer = builder.supported() if do == "supported" else builder.build(**order)
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
