"""What this machine can run: the entry point ``diagnose`` of the client's group ``deocc.local``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

from deocc_engines import bundle

__all__ = ["Finding", "diagnose"]

# What it is, whether it is as it should be (None: neither good nor bad), and a word to it.
Finding = tuple[str, bool | None, str]

VERSIONS = ("torch", "openvino", "diffusers", "ray", "fastapi")


def diagnose() -> list[Finding]:
    """Never raises: a part that cannot even be asked is a finding as well."""
    if not any(find_spec(name) for name in VERSIONS):  # the client alone, which is nothing to complain of
        return [("engines", None, "not installed here; pip install 'deocc[serve]' brings them")]
    findings: list[Finding] = [(name, *_tried(partial(_version, name))) for name in VERSIONS]
    findings.append(("bf16", *_tried(_bf16)))
    findings.append(("OpenVINO devices", *_tried(_openvino)))
    findings.append(("GPU", *_tried(_gpu)))
    findings.extend(_engines())
    return findings


def _tried(ask: Callable[[], tuple[bool | None, str]]) -> tuple[bool | None, str]:
    try:
        return ask()
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"


def _version(distribution: str) -> tuple[bool | None, str]:
    return True, version(distribution)


def _verified(path: str) -> tuple[bool | None, str]:
    return True, bundle.verify(path).engine_id


def _bf16() -> tuple[bool | None, str]:
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return True, "in hardware"
    return None, "not in this CPU; it computes in fp32, slower"


def _openvino() -> tuple[bool | None, str]:
    import openvino

    devices = openvino.Core().available_devices
    return "CPU" in devices, ", ".join(devices) or "none"


def _gpu() -> tuple[bool | None, str]:
    import torch

    if not torch.cuda.is_available():
        return None, "none; the CPU does the work"
    name = torch.cuda.get_device_name(0)
    return True, f"{name}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"


def _engines() -> Iterator[Finding]:
    try:
        found = bundle.available()
    except Exception as error:
        yield "engines", False, str(error)
        return
    if not found:
        yield "engines", False, "no bundle in this installation"
    for info in found:
        good, word = _tried(partial(_verified, info.path))
        yield f"engine {info.name}", good, word
