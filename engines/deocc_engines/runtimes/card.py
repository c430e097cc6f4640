"""The GPU of this machine, and what runs plans on it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import torch

from deocc_engines.errors import Unavailable

__all__ = ["MODULES", "Card", "card_here"]

MODULES = ("tensorrt_rtx", "tensorrt")  # the one that PyPI has first
PROBE = "import sys, importlib; print(importlib.import_module(sys.argv[1]).__version__, flush=True)"
PROBE_LIMIT = 60.0  # seconds


@dataclass(frozen=True)
class Card:
    """What plans must have been built for.

    Attributes:
        module: "tensorrt_rtx" or "tensorrt".
        version: of it, exactly.
        sm: compute capability without a dot.
    """

    module: str
    version: str
    sm: str

    @property
    def runtime(self) -> str:
        return f"{self.module}-{self.version}"


def card_here(module: str) -> Card:
    """This machine's card with one of the runtimes.

    Raises:
        Unavailable: there is no card, or the runtime cannot be loaded.
    """
    if not torch.cuda.is_available():
        raise Unavailable("there is no CUDA device on this machine")
    # In a process of its own: without a fitting driver these libraries end the process that imports them.
    command = [sys.executable, "-c", PROBE, module]
    probe = subprocess.run(  # noqa: S603 - our own words, no shell
        command, capture_output=True, text=True, timeout=PROBE_LIMIT, check=False
    )
    version = probe.stdout.strip().rpartition("\n")[2]
    if not version:
        why = (probe.stderr.strip().splitlines() or [f"status {probe.returncode}"])[-1]
        raise Unavailable(f"{module} cannot be loaded: {why}")
    return Card(module, version, "{}{}".format(*torch.cuda.get_device_capability()))
