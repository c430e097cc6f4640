"""deocc-mini as it is served against the plain torch float32 version of the same pipeline, in one interleaved run.

make bench
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.hosting import local_host
from deocc_engines.completion import CompletionOptions
from deocc_engines.deoccluder import Deoccluder
from deocc_engines.image import decode_image
from deocc_engines.limits import Limits
from deocc_engines.loading import RuntimeName, load_deoccluder
from deocc_engines.prompt import Point, Prompt

EXAMPLES = Path(__file__).parent.parent / "examples"
ROUNDS = 8


def measured(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, all of them in turn, `rounds` times after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main(rounds: int = ROUNDS) -> None:
    """Prints p50 and p95 by stage, served and in plain torch, and their ratio."""
    example = json.loads((EXAMPLES / "examples.json").read_text())[0]
    content = (EXAMPLES / example["file"]).read_bytes()
    photo = decode_image(content, Limits())
    prompt = Prompt(points=(Point(*example["point"]),))

    def engine(runtime: RuntimeName) -> Deoccluder:
        return load_deoccluder(None, runtime=runtime)[0]

    engines = {"openvino": engine("openvino"), "torch f32": engine("torch")}
    calls: dict[str, Callable[[], object]] = {}
    for name, deoccluder in engines.items():
        calls[f"embed, {name}"] = lambda d=deoccluder: d.segmenter.embed(photo.pixels)  # type: ignore[misc]
        calls[f"second click, {name}"] = lambda d=deoccluder: d.segment(photo, prompt)  # type: ignore[misc]
        calls[f"complete, {name}"] = lambda d=deoccluder: d.complete(photo, prompt, CompletionOptions())  # type: ignore[misc]
    with local_host() as url, httpx.Client(base_url=url, timeout=60) as http:
        uploaded = http.post("/v1/images", content=content, headers={"Content-Type": "image/png"}).raise_for_status()
        points = [{"x": example["point"][0], "y": example["point"][1]}]
        body = {"image": {"image_id": uploaded.json()["image_id"]}, "prompt": {"points": points}}
        calls["second click, served (HTTP, --local)"] = lambda: http.post("/v1/segment", json=body).raise_for_status()
        calls["complete, served (HTTP, --local)"] = lambda: http.post("/v1/complete", json=body).raise_for_status()
        seconds = measured(calls, rounds)
    _print(seconds)


def _print(seconds: dict[str, list[float]]) -> None:
    table = Table("call", "p50 ms", "p95 ms", "torch f32 / this")
    for name, values in seconds.items():
        stage = name.split(",")[0]
        reference = statistics.median(seconds[f"{stage}, torch f32"])
        middle = statistics.median(values)
        p95 = sorted(values)[min(len(values) - 1, round(0.95 * len(values)))]
        table.add_row(name, f"{middle * 1e3:.1f}", f"{p95 * 1e3:.1f}", f"{reference / middle:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
