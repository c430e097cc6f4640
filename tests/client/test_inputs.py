"""What callers may hand over."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import deocc
from deocc.images import image_content, image_source, mask_png
from deocc.requests import complete_request

from .conftest import png


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_encoded_images_go_untouched(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png("RGB"))
    with path.open("rb") as file:
        for image in (str(path), path, png("RGB"), file):
            assert image_content(image) == png("RGB")
    uploaded = deocc.UploadedImage("sha256:00", 1, 1, 60)
    assert image_source(uploaded).image_id == "sha256:00"


def test_pixels_in_memory_are_taken_as_they_stand() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(np.asarray(opened(image_content(pixels))), pixels)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6
    sent = opened(image_content(turned))
    assert sent.size == (7, 5)
    assert 0x0112 not in sent.getexif()
    assert opened(image_content(turned.convert("P"))).mode == "RGB"  # the service refuses palettes; Pillow knows them


def test_a_mask_is_what_is_bright_and_opaque(tmp_path: Path) -> None:
    expected = np.zeros((4, 5), bool)
    expected[1:3, 2:] = True
    grey = Image.fromarray(expected.astype(np.uint8) * 255)
    rgba = Image.merge("RGBA", [Image.new("L", grey.size, 255)] * 3 + [grey])
    rgba.save(tmp_path / "mask.png")
    for mask in (expected, expected.astype(np.uint8) * 255, grey, grey.convert("1"), rgba, tmp_path / "mask.png"):
        sent = opened(mask_png(mask))
        assert sent.mode == "L"
        assert np.array_equal(np.asarray(sent) == 255, expected)


@pytest.mark.parametrize(
    ("arguments", "kind", "field"),
    [
        ({}, deocc.InvalidPrompt, "prompt"),
        ({"points": [(1, 2), (1,)]}, deocc.InvalidPrompt, "prompt.points[1]"),
        ({"points": [(1, float("nan"))]}, deocc.InvalidPrompt, "prompt.points[0]"),
        ({"points": [(1, 2, 3)]}, deocc.InvalidPrompt, "prompt.points[0].label"),
        ({"box": (1, 2, 3)}, deocc.InvalidPrompt, "prompt.box"),
        ({"mask": np.zeros((2, 2, 3))}, deocc.InvalidPrompt, "prompt.mask"),
        ({"mask": b"no picture"}, deocc.InvalidPrompt, "prompt.mask"),
        ({"points": [(1, 2)], "seed": -1}, deocc.InvalidOption, "options.seed"),
        ({"points": [(1, 2)], "output": "half"}, deocc.InvalidOption, "options.output"),
        ({"points": [(1, 2)], "priority": "urgent"}, deocc.InvalidOption, "options.priority"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_field(arguments: Any, kind: type[deocc.DeoccError], field: str) -> None:
    with pytest.raises(kind) as caught:
        complete_request(png("RGB"), "", **arguments)
    assert caught.value.field == field  # type: ignore[attr-defined]


def test_wrong_kinds() -> None:
    with pytest.raises(TypeError, match="not int"):
        image_content(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="num_sample"):
        deocc.Client(transport=object()).complete(png("RGB"), num_sample=2)  # type: ignore[arg-type,call-arg]
    with pytest.raises(deocc.InvalidImage):
        image_content(np.zeros((4, 4), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one of"):
        deocc.Client("http://a", local=True)


def test_import_is_light_and_the_surface_is_on_purpose() -> None:
    heavy = "{'torch', 'ray', 'openvino', 'fastapi', 'deocc_engines', 'deocc_service', 'typer'}"
    code = f"import deocc, sys; assert not {heavy} & set(sys.modules); import deocc.cli; print(sorted(deocc.__all__))"
    code += f"; assert not ({heavy} - {{'typer'}}) & set(sys.modules)"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    for name in deocc.__all__:
        assert hasattr(deocc, name)
        assert repr(name) in result.stdout
    public = {name for name in vars(deocc) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(deocc, name)) is type(sys)}
    assert public - modules - {"version"} == set(deocc.__all__) - {"__version__"}
