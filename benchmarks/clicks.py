"""Clicks on one photo of 1024 x 1024 pixels with a segmenter of SAM ViT-B's sizes and random weights.

The first click on a photo encodes it and decodes the prompt; any later one finds the embedding in the cache and decodes
only. All of it in one interleaved run, as it is served and in torch float32.

python -m benchmarks.clicks [--rounds 5]
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.published import FULL, random_sam
from deocc_engines.bundle import find
from deocc_engines.components import calls_of, load_networks
from deocc_engines.deoccluder import Deoccluder
from deocc_engines.embeddings import EmbeddingCache
from deocc_engines.image import Photo, decode_image
from deocc_engines.limits import Limits
from deocc_engines.loading import deoccluder_of
from deocc_engines.prompt import Point, Prompt
from deocc_engines.runtimes import Runtime, reference
from deocc_engines.runtimes.openvino import OpenvinoCompiler, version_here
from deocc_engines.window import resize

EXAMPLE = Path(__file__).parent.parent / "examples" / "street.png"
SIDE = 1024
ONE = Prompt((Point(400, 520),))
SEVERAL = tuple(Prompt((Point(x, y),)) for x in (200, 400, 600, 800) for y in (300, 700))  # of one photo


def main(rounds: int = 5) -> None:
    """Prints the median milliseconds of each kind of click."""
    torch.manual_seed(0)
    photo = _photo()
    with tempfile.TemporaryDirectory() as folder:
        engines = {"openvino": _engine(Path(folder)), "torch f32": _engine(None)}
        calls: dict[tuple[str, str], Callable[[], object]] = {}
        for name, engine in engines.items():
            calls[name, "first click: encode, decode"] = lambda e=engine: _fresh(e).segment(photo, ONE)  # type: ignore[misc]
            calls[name, "later click: decode"] = lambda e=engine: e.segment(photo, ONE)  # type: ignore[misc]
        served = engines["openvino"]
        calls["openvino", "8 later clicks, one by one"] = lambda: [served.segment(photo, prompt) for prompt in SEVERAL]
        calls["openvino", "8 later clicks, one batch"] = lambda: served.segment_all(photo, SEVERAL)
        found = _measured(calls, engines, rounds)
    table = Table("runtime", "what", "ms", "encoded", "of the first click")
    for (name, what), (seconds, encoded) in found.items():
        share = seconds / found[name, "first click: encode, decode"][0]
        table.add_row(name, what, f"{seconds * 1e3:.0f}", str(encoded), f"{share:.1%}")
    Console(width=100).print(table)


def _measured(
    calls: dict[tuple[str, str], Callable[[], object]], engines: dict[str, Deoccluder], rounds: int
) -> dict[tuple[str, str], tuple[float, int]]:
    """Median seconds, and how often one such call asked the cache for what it did not hold."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    encoded = dict.fromkeys(calls, 0)
    missed: list[bool] = []
    for engine in engines.values():
        engine.embeddings.on_lookup = lambda hit: missed.append(not hit)
    for turn in range(rounds + 1):
        for key, call in calls.items():
            missed.clear()
            started = time.perf_counter()
            call()
            if turn:
                seconds[key].append(time.perf_counter() - started)
                encoded[key] = sum(missed)
    return {key: (statistics.median(values), encoded[key]) for key, values in seconds.items()}


def _engine(folder: Path | None) -> Deoccluder:
    """deocc-mini with a segmenter of ViT-B's sizes alone, compiled into `folder`; in torch float32 without one."""
    bundle = find(None)
    networks = dataclasses.replace(load_networks(bundle), sam=random_sam(FULL), mask_refiner=None)
    calls = calls_of(networks)
    streams = os.cpu_count() or 1
    if folder is None:
        runtime = Runtime.compiled(reference.NAME, calls, reference.compile_call, torch.__version__)
    else:
        compiler = OpenvinoCompiler(folder, streams)
        runtime = Runtime.compiled(compiler.name, calls, compiler, version_here())
    return deoccluder_of(bundle, networks, runtime, Limits(), streams)


def _fresh(engine: Deoccluder) -> Deoccluder:
    """With nothing in its cache, whose lookups are told to the same."""
    empty = EmbeddingCache()
    empty.on_lookup = engine.embeddings.on_lookup
    return dataclasses.replace(engine, embeddings=empty)


def _photo() -> Photo:
    given = decode_image(EXAMPLE.read_bytes(), Limits()).pixels.astype(np.float32)
    square = np.stack([resize(np.ascontiguousarray(given[..., c]), SIDE, SIDE) for c in range(3)], axis=2)
    return Photo(np.clip(square, 0, 255).astype(np.uint8), "sha256:clicks")


if __name__ == "__main__":
    typer.run(main)
