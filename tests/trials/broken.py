"""`deocc serve` with an engine and a clock that a trial can break while it runs.

python -m tests.trials.broken local|ray SWITCH --http-port 8100 --grpc-port 9100

The file SWITCH says what is broken: `raise` (every denoising step raises), `nan` (every step gives NaN), or a number:
seconds that the wall clock of this process is ahead. Without it nothing is. On Ray, SIGUSR1 deploys a new version in
the place of the one that runs.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deocc_service.engine import Load
from tests.trials.service import ROOT


@dataclass(frozen=True)
class BreakableLoad:
    """Loads as `load` does, with the switch in front of the denoiser."""

    load: Load
    switch: Path

    def __call__(self) -> Any:
        deoccluder, info = self.load()
        batcher = deoccluder.completer.batcher
        denoise = batcher._denoise

        def breakable(*rows: Any) -> Any:
            match switched(self.switch):
                case "raise":
                    raise RuntimeError("a step that failed")
                case "nan":
                    return denoise(*rows) * float("nan")
                case _:
                    return denoise(*rows)

        batcher._denoise = breakable
        return deoccluder, info


def switched(switch: Path) -> str:
    """What is broken now."""
    try:
        return switch.read_text()
    except FileNotFoundError:
        return ""


def main() -> None:
    """Serves until a signal comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host", choices=["local", "ray"])
    parser.add_argument("switch", type=Path)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    options = parser.parse_args()
    if options.host == "local":  # before anybody takes the clock
        now = time.time
        time.time = lambda: now() + float(found if (found := switched(options.switch))[:1].isdigit() else 0)
    os.environ["PYTHONPATH"] = str(ROOT)

    from deocc_service.engine import bundle_loader
    from deocc_service.main import serve
    from deocc_service.settings import Settings
    from tests.trials.broken import BreakableLoad  # not that of __main__, which replicas do not have

    images = tempfile.mkdtemp(prefix="deocc-images-")  # one for both versions
    settings = Settings.read(http_port=options.http_port, grpc_port=options.grpc_port, image_dir=images)
    load = BreakableLoad(bundle_loader(settings), options.switch)

    def deploy() -> None:
        from ray import serve

        from deocc_service.app import bind
        from deocc_service.proxy import APP

        newer = settings.model_copy(update={"segment_queue": settings.segment_queue + 1})
        serve.run(bind(newer, load), name=APP)

    signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=deploy).start())
    serve(settings, options.host == "local", load)


if __name__ == "__main__":
    main()
