"""The example scenes of the repository: MIT renders of the test split on drawn backgrounds, so they may be shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from deocc_engines.completion import CompletionOptions
from deocc_engines.image import decode_image
from deocc_engines.limits import Limits
from deocc_engines.loading import load_deoccluder
from deocc_engines.prompt import Point, Prompt
from deocc_training.sheets import on_checker, outlined
from deocc_training.sources import default_cache, load_index
from deocc_training.splits import split_of

__all__ = ["LAYOUTS", "draw"]

WIDTH, HEIGHT = 640, 480
SHADOW = 70  # alpha
Colour = tuple[int, int, int]

# By scene: wall and floor, the point to click, then what stands there from back to front: (caption, x, y, side) of the
# centre, in pixels. The object asked for is the first one.
LAYOUTS: dict[str, tuple[Colour, Colour, tuple[int, int], list[tuple[str, int, int, int]]]] = {
    "fruit": (
        (236, 226, 208),
        (178, 134, 96),
        (250, 250),
        [("green apple", 270, 280, 260), ("tomato", 390, 340, 200), ("kiwifruit", 130, 370, 130)],
    ),
    "street": (
        (173, 205, 228),
        (140, 140, 138),
        (200, 260),
        [("minibus", 280, 270, 330), ("palm tree", 380, 255, 300), ("duck", 160, 370, 120)],
    ),
    "dinosaur": (
        (201, 219, 190),
        (120, 152, 96),
        (300, 170),
        [("t-rex", 310, 245, 330), ("volleyball", 250, 350, 150), ("crystal ball", 440, 340, 170)],
    ),
    "desk": (
        (222, 218, 232),
        (150, 116, 92),
        (330, 180),
        [("radio", 330, 250, 280), ("scroll", 220, 330, 180), ("hourglass", 460, 310, 190)],
    ),
    "whole": ((244, 214, 196), (190, 120, 110), (330, 250), [("extraterrestrial alien", 320, 250, 260)]),
}


def draw(name: str, seed: int = 0) -> UInt8[np.ndarray, "480 640 3"]:
    """One scene."""
    cutouts, _ = load_index(default_cache())
    renders = {c.caption: c.path for c in cutouts if c.kind == "render" and split_of(c.identity) == "test"}
    wall, floor, _, things = LAYOUTS[name]
    canvas = _room(wall, floor, np.random.default_rng(seed))
    for caption, x, y, side in things:
        thing = Image.open(renders[caption]).convert("RGBA")
        thing = thing.crop(thing.getbbox())
        scale = side / max(thing.size)
        thing = thing.resize((round(thing.width * scale), round(thing.height * scale)), Image.Resampling.LANCZOS)
        corner = (x - thing.width // 2, y - thing.height // 2)
        _cast_shadow(canvas, corner, thing.size)
        canvas.alpha_composite(thing, (max(corner[0], 0), max(corner[1], 0)))
    return np.array(canvas.convert("RGB"))


def _room(wall: Colour, floor: Colour, rng: np.random.Generator) -> Image.Image:
    rows = np.linspace(0, 1, HEIGHT)[:, None, None]
    light = 1.06 - 0.16 * np.abs(np.linspace(-0.6, 1, WIDTH))[None, :, None]
    picture = np.where(rows < 0.66, np.array(wall) * (0.94 + 0.1 * rows), np.array(floor) * (0.8 + 0.3 * rows)) * light
    picture += rng.normal(0, 2.5, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).convert("RGBA")


def _cast_shadow(canvas: Image.Image, corner: tuple[int, int], size: tuple[int, int]) -> None:
    left, bottom = corner[0], corner[1] + size[1]
    shadow = Image.new("L", canvas.size, 0)
    shadow.paste(
        SHADOW, (left + size[0] // 10, bottom - size[1] // 14, left + size[0] * 9 // 10, bottom + size[1] // 20)
    )
    canvas.alpha_composite(
        Image.merge("RGBA", [*Image.new("RGB", canvas.size).split(), shadow.filter(ImageFilter.GaussianBlur(12))])
    )


app = typer.Typer(add_completion=False)


@app.command("scenes")
def _scenes(out: Annotated[Path, typer.Option()]) -> None:
    """Writes the scenes and examples.json."""
    out.mkdir(parents=True, exist_ok=True)
    listed = []
    for name, (_, _, point, things) in LAYOUTS.items():
        Image.fromarray(draw(name)).save(out / f"{name}.png", optimize=True)
        listed.append({"file": f"{name}.png", "point": list(point), "text": things[0][0]})
    (out / "examples.json").write_text(json.dumps(listed, indent=2) + "\n")


@app.command("figure")
def _figure(
    scenes: Annotated[Path, typer.Option(help="the directory of the scenes")],
    out: Annotated[Path, typer.Option(help="the picture to write")],
) -> None:
    """Draws every scene, what is visible of the clicked object, and the embedded engine's first answer (seed 0)."""
    deoccluder, _ = load_deoccluder()
    rows = []
    for example in json.loads((scenes / "examples.json").read_text()):
        photo = decode_image((scenes / example["file"]).read_bytes(), Limits())
        prompt = Prompt(points=(Point(*example["point"]),))
        completion = deoccluder.complete(photo, prompt, CompletionOptions(text=example["text"]))
        marked = outlined(photo.pixels, completion.modal.mask, thickness=3)
        rows.append(np.concatenate([photo.pixels, marked, on_checker(completion.samples[0].rgba())], axis=1))
    picture = Image.fromarray(np.concatenate(rows))
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((960, round(960 * picture.height / picture.width)), Image.Resampling.LANCZOS).save(out, quality=88)


if __name__ == "__main__":
    app()
