"""What a host adds to the engine: the same completion of a photo of 1 MB, called directly and asked of each host.

python -m tests.trials.overhead [--rounds 40] [--hosts local ray]

In turn, in one run; each call with a photo of its own, which nobody remembers. The direct call does what the answer
takes: it decodes the photo, completes, and encodes the picture and both masks. What is added to it is the host's, and
the client's. "picture alone" is the same without the masks, for who would not want them.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from PIL import Image

import deocc
from deocc_engines.completion import Completion, CompletionOptions
from deocc_engines.image import decode_image, encode_png
from deocc_engines.limits import Limits
from deocc_engines.loading import load_deoccluder
from deocc_engines.mask import mask_to_png
from deocc_engines.prompt import Point, Prompt
from tests.trials.service import EXAMPLES, serving

BYTES = 1_000_000
POINT = (200.0, 260.0)


def photo_of_a_megabyte() -> bytes:
    """An example with noise, as a JPEG of the quality that comes nearest."""
    with Image.open(EXAMPLES / "street.png") as opened:
        pixels = np.asarray(opened.convert("RGB").resize((1600, 1200)), np.int16)
    noisy = Image.fromarray(
        (pixels + np.random.default_rng(0).integers(-12, 13, pixels.shape)).clip(0, 255).astype(np.uint8)
    )
    found = []
    for quality in range(50, 100, 3):
        out = io.BytesIO()
        noisy.save(out, "JPEG", quality=quality)
        found.append(out.getvalue())
    return min(found, key=lambda content: abs(len(content) - BYTES))


def main() -> None:
    """Prints one JSON document: milliseconds at the median, and what each way adds to the direct call."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--hosts", nargs="*", default=["local", "ray"])
    options = parser.parse_args()
    content = photo_of_a_megabyte()
    scaled = (POINT[0] * 2.5, POINT[1] * 2.5)
    deoccluder, _ = load_deoccluder()

    def alone(content: bytes) -> Completion:
        photo = decode_image(content, Limits())
        found = deoccluder.complete(photo, Prompt((Point(*scaled),)), CompletionOptions(seed=1))
        encode_png(found.samples[0].rgba())
        return found

    def direct(content: bytes) -> None:
        found = alone(content)
        mask_to_png(found.samples[0].amodal_mask())
        mask_to_png(found.modal.mask)

    with ExitStack() as stack:
        calls: dict[str, Callable[[bytes], object]] = {"direct": direct, "picture alone": alone}
        for host in options.hosts:
            service = stack.enter_context(serving(host))
            for number, protocol in enumerate(("HTTP", "gRPC")):
                client = stack.enter_context(service.client(number))
                calls[f"{host}, {protocol}"] = lambda content, client=client: client.complete(
                    content, points=[scaled], seed=1
                )
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(options.rounds + 1):
            for name, call in calls.items():
                own = content + f"{name} {turn}".encode()  # after the end of the picture
                started = time.perf_counter()
                call(own)
                if turn:
                    taken[name].append(1e3 * (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    quiet = {name: float(np.quantile(values, 0.1)) for name, values in taken.items()}  # where others disturb little
    report = {
        name: {
            "p50_ms": round(middle, 1),
            "added_ms": round(middle - medians["direct"], 1),
            "p10_ms": round(quiet[name], 1),
            "added_at_p10_ms": round(quiet[name] - quiet["direct"], 1),
        }
        for name, middle in medians.items()
    }
    print(json.dumps({"deocc": deocc.__version__, "bytes": len(content), **report}, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
