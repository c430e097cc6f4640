"""`deocc serve`: one of the two hosts, until a signal comes."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

from deocc_service.calls import configure_log
from deocc_service.engine import Load, bundle_loader
from deocc_service.page import first_example
from deocc_service.settings import Settings

__all__ = ["serve"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(settings: Settings | None = None, local: bool = False, load: Load | None = None) -> None:
    """Serves until SIGINT or SIGTERM, then lets running requests end.

    Args:
        settings: None: those of the environment.
        local: one process instead of Ray Serve.
        load: what to serve; None: the bundle that the settings name.
    """
    settings = settings or Settings.read()
    load = load or bundle_loader(settings)
    configure_log(settings.log_format)
    if local:
        asyncio.run(_serve_local(settings, load))
    else:
        _serve_ray(settings, load)


async def _serve_local(settings: Settings, load: Load) -> None:
    from deocc_service.local import LocalHost

    stopped = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with LocalHost(settings, load) as host:
        _announce(settings, host.http_port, host.grpc_port)
        await stopped.wait()


def _serve_ray(settings: Settings, load: Load) -> None:
    from deocc_service.ray_host import RayHost

    with RayHost(settings, load) as host:
        stopped = threading.Event()
        # After the start: Ray sets a handler of its own, which would end the process at once.
        before = {number: signal.signal(number, lambda *_: stopped.set()) for number in SIGNALS}
        _announce(settings, host.http_port, host.grpc_port)
        stopped.wait()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else handler)


def _announce(settings: Settings, http_port: int, grpc_port: int) -> None:
    page = f"{'https' if settings.tls else 'http'}://{_name(settings.http_host)}:{http_port}"
    lines = [
        f"deocc is ready: {page}/  (gRPC on {_name(settings.grpc_host)}:{grpc_port}, API at {page}/docs)",
        "Try it:",
        f"  {curl_line(page)}",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201 - the one line that a person waits for


def curl_line(page: str) -> str:
    """A command that works as it stands, if there is an example scene."""
    example = first_example()
    if example is None:
        return f"curl -H 'Accept: image/png' -F image=@photo.jpg -F point=120,80 {page}/v1/complete -o whole.png"
    x, y = example.point
    path = _short(example.path)
    return f"curl -H 'Accept: image/png' -F image=@{path} -F point={x:g},{y:g} {page}/v1/complete -o whole.png"


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _name(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "0.0.0.0", "::1", "::") else host  # noqa: S104 - a comparison
