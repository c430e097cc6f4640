"""The single-process host on free ports, in a thread beside a benchmark."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from deocc_service.engine import bundle_loader
from deocc_service.local import LocalHost
from deocc_service.settings import Settings

__all__ = ["local_host"]


@contextmanager
def local_host() -> Iterator[str]:
    """Serves the embedded engine; yields the address of the HTTP side."""
    settings = Settings(http_port=0, grpc_port=0, metrics_port=0)
    ready, address = threading.Event(), ""
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        nonlocal address
        async with LocalHost(settings, bundle_loader(settings)) as host:
            address = f"http://127.0.0.1:{host.http_port}"
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    if not ready.wait(120):
        raise TimeoutError("the host did not start")
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
