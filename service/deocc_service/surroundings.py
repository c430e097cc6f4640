"""What a host takes from the machine that it starts on: ports, and variables for the processes below it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["free_port", "restore_environ"]


def free_port() -> int:
    """A TCP port of the loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def restore_environ(before: Mapping[str, str]) -> None:
    """Makes this process's variables what they were."""
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
