"""Scenes on disk: three memory-mapped arrays and a line of metadata each.

`image.npy` uint8 [n, 256, 256, 3], `labels.npy` uint8 [n, 256, 256], `target.npy` uint8 [n, 256, 256, 4], and
`meta.jsonl`: one object per scene, in order, whose presence marks the set as finished; `boxes` in it are those of the
visible part and of the complete target, half-open.

Run `python -m deocc_training.scenes build --split train --count 24000 --out ~/.cache/deocc/scenes/train`.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from deocc_engines.mask import bounding_box
from deocc_training.composition import SIDE, Instance, Library, Scene, compose
from deocc_training.sources import default_cache, load_index, prepare
from deocc_training.splits import SPLITS, Split

__all__ = [
    "Chunk",
    "Instance",
    "Library",
    "Scene",
    "SceneSet",
    "build",
    "compose",
    "finished_chunks",
    "is_finished",
    "open_arrays",
    "scene_at",
]

log = logging.getLogger(__name__)

_ARRAYS = {"image": (SIDE, SIDE, 3), "labels": (SIDE, SIDE), "target": (SIDE, SIDE, 4)}
# MIT, and public domain: pictures of them may be published; wallpapers and the other cut-outs may not.
SHIPPABLE = ("fluent-emoji-3d", "openclipart-png")
_CHUNK = 250  # scenes a worker finishes before they count as done


class SceneSet:
    """A finished set; scenes are read from disk when asked for and may be shared between processes."""

    def __init__(self, arrays: dict[str, NDArray[np.uint8]], meta: list[dict[str, Any]]) -> None:
        self.image, self.labels, self.target = arrays["image"], arrays["labels"], arrays["target"]
        self.meta = meta

    @classmethod
    def open(cls, path: Path) -> SceneSet:
        """Open a directory that `build` finished."""
        with (path / "meta.jsonl").open(encoding="utf-8") as lines:
            meta = [json.loads(line) for line in lines]
        return cls(open_arrays(path), meta)

    def __len__(self) -> int:
        return len(self.meta)

    def __getitem__(self, index: int) -> Scene:
        meta = {name: value for name, value in self.meta[index].items() if name != "boxes"}
        meta["size"] = tuple(meta["size"])
        meta["instances"] = tuple(Instance(**instance) for instance in meta["instances"])
        return Scene(image=self.image[index], labels=self.labels[index], target=self.target[index], **meta)

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class Chunk:
    """Finished scenes of a set: start to stop, half-open."""

    start: int
    stop: int
    lines: tuple[str, ...]

    def read(self) -> list[dict[str, Any]]:
        """Their metadata."""
        return [json.loads(line) for line in self.lines]


def is_finished(path: Path) -> bool:
    """Whether the whole set is there."""
    return (path / "meta.jsonl").exists()


def open_arrays(path: Path, names: Iterable[str] = tuple(_ARRAYS)) -> dict[str, NDArray[np.uint8]]:
    """The memory-mapped arrays of a set, which may still be in the making. Written to, they change in memory only."""
    folder = path if is_finished(path) else _in_the_making(path)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in names}


def finished_chunks(path: Path) -> Iterator[Chunk]:
    """What there is of a set."""
    try:
        if is_finished(path):
            lines = (path / "meta.jsonl").read_text(encoding="utf-8").splitlines()
            for start in range(0, len(lines), _CHUNK):
                part = lines[start : start + _CHUNK]
                yield Chunk(start, start + len(part), tuple(part))
        else:
            for mark in sorted(_in_the_making(path).glob("meta-*.jsonl")):
                part = mark.read_text(encoding="utf-8").splitlines()
                start = int(mark.stem.rpartition("-")[2])
                yield Chunk(start, start + len(part), tuple(part))
    except FileNotFoundError:  # it was finished just now: the next look finds it
        return


def _in_the_making(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def scene_at(library: Library, split: Split, seed: int, index: int) -> Scene:
    """Scene `index` of the set with this seed, whatever was drawn before it."""
    return compose(np.random.default_rng([seed, SPLITS.index(split), index]), library, split)


def _meta_line(scene: Scene) -> str:
    meta = {field.name: getattr(scene, field.name) for field in fields(scene) if field.name not in _ARRAYS}
    meta["occluded_fraction"] = round(scene.occluded_fraction, 5)
    meta["instances"] = [vars(instance) for instance in scene.instances]
    meta["boxes"] = [_corners(mask) for mask in (scene.labels == scene.target_label, scene.target[..., 3] > 127)]
    return json.dumps(meta, ensure_ascii=False) + "\n"


def _corners(mask: NDArray[np.bool_]) -> list[int]:
    box = bounding_box(np.ascontiguousarray(mask))
    return [int(value) for value in (box.x_min, box.y_min, box.x_max, box.y_max)]


def _build_chunk(folder: Path, library: Library, split: Split, seed: int, start: int, stop: int) -> int:
    """Write scenes start..stop and then, as the mark that they are complete, their metadata."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+") for name in _ARRAYS}
    lines = []
    for index in range(start, stop):
        scene = scene_at(library, split, seed, index)
        for name, array in arrays.items():
            array[index] = getattr(scene, name)
        lines.append(_meta_line(scene))
    for array in arrays.values():
        array.flush()
    mark = _mark(folder, start)
    mark.with_suffix(".tmp").write_text("".join(lines), encoding="utf-8")
    mark.with_suffix(".tmp").rename(mark)
    return stop - start


def _mark(folder: Path, start: int) -> Path:
    return folder / f"meta-{start:08d}.jsonl"


def build(
    directory: Path, split: Split, count: int, seed: int, workers: int = 2, library: Library | None = None
) -> SceneSet:
    """Build a set, going on where an interrupted run stopped; the directory appears only when it is complete."""
    if is_finished(directory):
        return SceneSet.open(directory)
    library = library or Library(*load_index(default_cache()))
    folder = _in_the_making(directory)
    _start(folder, {"split": split, "count": count, "seed": seed})
    starts = [start for start in range(0, count, _CHUNK) if not _mark(folder, start).exists()]
    jobs = [(folder, library, split, seed, start, min(start + _CHUNK, count)) for start in starts]
    if workers > 1:
        # Spawned, so that no thread or lock of the caller's is copied into the workers.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(_build_chunk, *job) for job in jobs]
            with tqdm(total=sum(job[5] - job[4] for job in jobs), unit="scene", desc=split) as bar:
                for future in as_completed(futures):
                    bar.update(future.result())
    else:
        for job in jobs:
            _build_chunk(*job)
    marks = [_mark(folder, start) for start in range(0, count, _CHUNK)]
    lines = "".join(mark.read_text(encoding="utf-8") for mark in marks)
    for mark in [*marks, folder / "plan.json"]:
        mark.unlink()
    (folder / "meta.jsonl").write_text(lines, encoding="utf-8")
    folder.rename(directory)
    return SceneSet.open(directory)


def _start(folder: Path, plan: dict[str, Any]) -> None:
    """Lay out the arrays, unless a run with the same plan already did."""
    note = folder / "plan.json"
    if note.exists():
        if json.loads(note.read_text()) != plan:
            raise FileExistsError(f"{folder} holds the beginning of another set: {note.read_text()}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in _ARRAYS.items():
        whole = (plan["count"], *shape)
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=whole).flush()
    note.write_text(json.dumps(plan))


app = typer.Typer(help="Cut-outs composited into scenes.", no_args_is_help=True)


@app.command("prepare")
def _prepare(workers: int = 2) -> None:
    """Download, clean and index the cut-outs and backgrounds."""
    for reason, number in sorted(prepare(default_cache(), workers).items()):
        typer.echo(f"{number:6d}  {reason}")


@app.command("build")
def _build(
    split: Annotated[str, typer.Option(help="train or test")],
    count: Annotated[int, typer.Option(min=1, help="number of scenes")],
    out: Annotated[Path, typer.Option(help="directory to create")],
    seed: int = 0,
    workers: int = 2,
    shippable: Annotated[bool, typer.Option(help="only of what may be published in pictures")] = False,
) -> None:
    """Build a set of scenes."""
    if split not in SPLITS:
        raise typer.BadParameter(f"must be one of {', '.join(SPLITS)}", param_hint="--split")
    if not (default_cache() / "index.json").exists():
        prepare(default_cache(), workers)
    chosen: Split = "train" if split == "train" else "test"
    library = Library(*load_index(default_cache()))
    if shippable:
        cutouts, _ = load_index(default_cache())
        library = Library([cutout for cutout in cutouts if cutout.source in SHIPPABLE], {})
    scenes = build(out.expanduser(), chosen, count, seed, workers, library)
    kinds = Counter(str(meta["kind"]) for meta in scenes.meta)
    typer.echo(f"{len(scenes)} scenes in {out}: {dict(kinds)}")


if __name__ == "__main__":
    app()
