"""Answers: what a bundle's SAM says to clicks on scenes, close up, which is what a mask refiner learns from.

Samples of uint8 [7, s, s] in 0..255: the photo (3), the probability that SAM gives (1), the clicks that include and
that exclude (2), the modal mask (1). Of each scene two instances: one click and the best answer, one click and any
answer, and the corrections by a second and a third click. They are made by a bundle, compiled as it is served.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Bool, UInt8
from numpy.random import Generator

from deocc_engines.bundle import find
from deocc_engines.closeup import close_up
from deocc_engines.components import calls_of, load_networks
from deocc_engines.mask import bounding_box, depth
from deocc_engines.networks.refiner import MaskRefinerConfig
from deocc_engines.prompt import Box, Point, Prompt
from deocc_engines.runtimes.selection import runtime_of
from deocc_engines.segmenter import Answer, Segmenter
from deocc_training.composition import Scene
from deocc_training.samples import write
from deocc_training.scenes import SceneSet

__all__ = ["PARTS", "Questioner"]

PARTS = [3, 1, 2, 1]  # channels, in the order above
INSTANCES = 2  # asked for in each scene
EACH = 4  # samples of an instance
SCENES = 8  # a batch
THREADS = 2
SIZE = MaskRefinerConfig.window
SMALLEST = 60  # visible pixels of an instance worth asking for
BOXED = 0.15  # share of the instances that are first asked for by a box
ZOOMED = 0.4  # share of the scenes seen in part
DEEPEST = 0.5  # share of the clicks at the deepest point, as evaluations click; the others fall rather deep

Labels = UInt8[np.ndarray, "h w"]


class Questioner:
    """Clicks on scenes and keeps what SAM answers.

    Args:
        size: of the close-ups, pixels along each side.
    """

    def __init__(self, segmenter: Segmenter, size: int) -> None:
        self._segmenter, self._size = segmenter, size

    def __call__(self, scene: Scene, rng: Generator) -> UInt8[np.ndarray, "n 7 s s"]:
        """INSTANCES · EACH samples of a scene."""
        pixels, labels = _seen(scene, rng)
        embedding = self._segmenter.embed(pixels)

        samples = list[UInt8[np.ndarray, "7 s s"]]()
        found, areas = np.unique(labels, return_counts=True)
        wanted = found[(areas >= SMALLEST) & (found > 0)]
        for label in rng.choice(wanted if len(wanted) else found, INSTANCES):
            inside = labels == label
            boxed = rng.random() < BOXED
            prompt = (
                Prompt(box=_jittered(bounding_box(inside), rng)) if boxed else Prompt((_clicked(inside, True, rng),))
            )
            for turn in range(EACH - 1):
                answers = self._segmenter.answers(embedding, pixels, [prompt])[0]
                best = max(answers, key=lambda answer: answer.score)
                kept = [best, answers[rng.integers(len(answers))]] if turn == 0 else [best]
                samples += [self._sample(pixels, inside, prompt, answer) for answer in kept]
                wrong = best.mask(*inside.shape) != inside
                if wrong.any():
                    prompt = replace(prompt, points=(*prompt.points, _clicked(wrong, inside, rng)))
        return np.stack(samples)

    def _sample(
        self, pixels: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"], prompt: Prompt, answer: Answer
    ) -> UInt8[np.ndarray, "7 s s"]:
        seen = close_up(pixels, answer.logits, prompt, self._size)
        truth = seen.window.take(inside.astype(np.float32), 0.0)
        layers = np.concatenate([(seen.photo + 1) / 2, seen.answer, seen.clicks, truth[None]])
        return np.asarray(np.rint(layers * 255), np.uint8)


def _seen(scene: Scene, rng: Generator) -> tuple[UInt8[np.ndarray, "h w 3"], Labels]:
    """The scene or a part of it, at times mirrored."""
    height, width = scene.size
    top, left = 0, 0
    if rng.random() < ZOOMED:
        height, width = (round(extent * rng.uniform(0.5, 1)) for extent in scene.size)
        top, left = (
            int(rng.integers(whole - part + 1)) for whole, part in zip(scene.size, (height, width), strict=True)
        )
    across = slice(None, None, -1 if rng.random() < 0.5 else 1)
    parts = (part[top : top + height, left : left + width][:, across] for part in (scene.image, scene.labels))
    pixels, labels = (np.ascontiguousarray(part) for part in parts)
    return pixels, labels


def _clicked(where: Bool[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"] | bool, rng: Generator) -> Point:
    """A click on one of these pixels, and whether it is inside."""
    deep = depth(np.ascontiguousarray(where)).ravel()
    place = deep.argmax() if rng.random() < DEEPEST else rng.choice(len(deep), p=deep / deep.sum(dtype=np.float64))
    y, x = np.unravel_index(place, where.shape)
    return Point(float(x) + 0.5, float(y) + 0.5, bool(np.broadcast_to(inside, where.shape)[y, x]))


def _jittered(box: Box, rng: Generator) -> Box:
    """Displaced by some of its sides, as people's boxes are."""
    sides = np.array([box.x_max - box.x_min, box.y_max - box.y_min] * 2)
    ends = np.array(dataclasses.astuple(box)) + rng.normal(0, 0.05, 4) * sides
    x_min, x_max = sorted(ends[::2].tolist())
    y_min, y_max = sorted(ends[1::2].tolist())
    return Box(x_min, y_min, x_max, y_max)


def main(
    bundle: Annotated[str, typer.Option(help="name or path")],
    scenes: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    count: Annotated[int, typer.Option(help="rounded down to whole batches")] = 64000,
    seed: int = 0,
) -> None:
    """Asks about training scenes; the same command resumes."""
    opened = find(bundle)
    networks = load_networks(opened)
    sam = networks.sam
    torch.set_num_threads(1)
    segmenter = Segmenter(
        runtime_of(opened, calls_of(networks), "auto", THREADS),
        sam.config.image_size,
        4 * sam.grid,
        closer=opened.manifest.get("closer_look"),
    )
    ask, drawn = Questioner(segmenter, SIZE), SceneSet.open(scenes)

    def asked(index: int) -> UInt8[np.ndarray, "n 7 s s"]:
        return ask(drawn[index % len(drawn)], np.random.default_rng([seed, index]))

    with ThreadPoolExecutor(THREADS) as threads:

        def make(start: int) -> UInt8[np.ndarray, "b 7 s s"]:
            first = start // (INSTANCES * EACH)
            return np.concatenate(list(threads.map(asked, range(first, first + SCENES))))

        write(out, count, SCENES * INSTANCES * EACH, (sum(PARTS), SIZE, SIZE), make)


if __name__ == "__main__":
    typer.run(main)
