"""deocc-mini itself: what the bundle in the package promises."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from deocc import AsyncClient, Client, Completion
from deocc_engines.bundle import Bundle, available, find, verify
from deocc_engines.image import decode_image
from deocc_engines.limits import Limits
from deocc_service.engine import bundle_loader
from deocc_service.local import LocalHost
from deocc_service.settings import Settings

EXAMPLES = Path(__file__).parent.parent / "examples"
EXAMPLE = json.loads((EXAMPLES / "examples.json").read_text())[0]
PHOTO = (EXAMPLES / EXAMPLE["file"]).read_bytes()
CALL = {"points": [tuple(EXAMPLE["point"])], "text": EXAMPLE["text"], "seed": 11}


def test_the_bundle_is_whole_and_small() -> None:
    (info,) = [engine for engine in available() if engine.name == "deocc-mini"]
    assert verify("deocc-mini") == info
    sizes = [entry["size"] for entry in find("deocc-mini").manifest["files"].values()]
    assert sum(sizes) < 90e6
    assert max(sizes) < 50e6
    assert (Bundle.open(Path(info.path)).path / "README.md").is_file()


def in_process() -> Completion:
    with Client(local=True) as client:
        return client.complete(PHOTO, **CALL)


async def test_same_bytes_in_process_and_served_alone_and_beside_seven_others() -> None:
    expected = await asyncio.to_thread(in_process)
    settings = Settings.read({}, http_port=0, grpc_port=0, metrics_port=0, drain_seconds=1)
    async with (
        LocalHost(settings, bundle_loader(settings)) as host,
        AsyncClient(f"http://127.0.0.1:{host.http_port}") as http,
        AsyncClient(grpc=f"127.0.0.1:{host.grpc_port}") as grpc,
    ):
        for client in (http, grpc):
            assert (await client.complete(PHOTO, **CALL)).samples == expected.samples
        others = [http.complete(PHOTO, **{**CALL, "seed": seed, "steps": 3 + seed}) for seed in range(7)]
        together = await asyncio.gather(grpc.complete(PHOTO, **CALL), *others)
        assert together[0].samples == expected.samples


@pytest.mark.parametrize("example", json.loads((EXAMPLES / "examples.json").read_text()), ids=lambda e: e["file"])
def test_visible_pixels_are_kept(example: dict[str, object]) -> None:
    content = (EXAMPLES / str(example["file"])).read_bytes()
    photo = decode_image(content, Limits())
    with Client(local=True) as client:
        completion = client.complete(content, points=[example["point"]], steps=4)
    modal = completion.modal.mask
    rgba = np.array(completion.best.image)
    assert rgba.shape == (480, 640, 4)
    deep = cv2.distanceTransform(modal.astype(np.uint8), cv2.DIST_L2, 5) > completion.rim
    assert deep.sum() > 1000
    np.testing.assert_array_equal(rgba[deep][:, :3], photo.pixels[deep])
    assert (rgba[deep][:, 3] == 255).all()
