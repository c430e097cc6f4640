"""What an engine takes, measured in a process that has nothing else."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from deocc_engines.bundle import Bundle
from deocc_engines.components import calls_of, load_networks
from deocc_engines.runtimes.selection import RuntimeName, runtime_of

__all__ = ["Memory", "memory_of"]


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        host: the most that the process ever held.
        device: of the card, after one run of every call; 0 without one.
    """

    host: int
    device: int


def memory_of(bundle: Path, runtime: RuntimeName, streams: int) -> Memory:
    """Loads an engine and runs every call once."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (bundle, runtime, streams))


def _measured(path: Path, wanted: RuntimeName, streams: int) -> Memory:
    gpu = torch.cuda.is_available()
    before = torch.cuda.mem_get_info()[0] if gpu else 0
    bundle = Bundle.open(path)
    calls = calls_of(load_networks(bundle))
    runtime = runtime_of(bundle, calls, wanted, streams or os.cpu_count() or 1, unverified=True)
    for name, call in calls.items():
        getattr(runtime, name)(*call.example)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Memory(host, before - torch.cuda.mem_get_info()[0] if gpu else 0)
