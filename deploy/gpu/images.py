"""Whole images on one runtime: seconds of one request with so many samples. One JSON document on standard output."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from deocc_engines.compile.fixed import scene
from deocc_engines.completion import CompletionOptions
from deocc_engines.image import Photo
from deocc_engines.loading import load_deoccluder
from deocc_engines.prompt import Prompt


def main() -> None:
    """Times `Deoccluder.complete` on the scene that engines are compared on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("runtime")
    parser.add_argument("--samples", default="1,4,8")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    started = time.perf_counter()
    deoccluder, info = load_deoccluder(str(options.bundle.resolve()), runtime=options.runtime)
    loaded = time.perf_counter() - started
    pixels, modal = scene()
    photo, prompt = Photo(pixels, "sha256:parity"), Prompt(mask=modal)
    rows = []
    for samples in map(int, options.samples.split(",")):
        asked = CompletionOptions(num_samples=samples, steps=options.steps)
        seconds = []
        for turn in range(options.rounds + 1):
            started = time.perf_counter()
            deoccluder.complete(photo, prompt, asked)
            if turn:
                seconds.append(time.perf_counter() - started)
        rows.append({"samples": samples, "seconds": statistics.median(seconds), "steps": options.steps})
    runtime = ", ".join(sorted(set(info.runtimes.values())))
    print(json.dumps({"runtime": runtime, "loading_seconds": loaded, "images": rows}))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
