"""Latents of scenes, computed once: what the denoiser is trained on.

Run `python -m deocc_training.latents`; more scenes can be added later, while a denoiser is trained on the first ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Float16
from tqdm import tqdm

from deocc_engines.networks.autoencoder import Autoencoder
from deocc_training.autoencoder import SIZE, images_of, pretrained, to_tensor
from deocc_training.scenes import SceneSet
from deocc_training.windows import View, global_window, local_window, view

__all__ = ["LatentSet", "build"]

SHARD = 2000  # scenes a file
BATCH = 8  # scenes encoded at once


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Scenes seen through windows, two rows a scene: global, local."""

    latents: Float16[np.ndarray, "n 3 c z z"]  # E(x), E(x∘m) and E(x_g)
    modal: Float16[np.ndarray, "n z z"]  # share of each latent that belongs to the visible part
    hidden: Float16[np.ndarray, "n z z"]  # and to the hidden part
    captions: np.ndarray  # [n] of str

    @classmethod
    def open(cls, folder: Path) -> LatentSet:
        """Reads all shards that are finished."""
        shards = [np.load(path) for path in sorted(folder.glob("*.npz"))]
        if not shards:
            raise FileNotFoundError(f"no latents in {folder}")
        return cls(*(np.concatenate([shard[field.name] for shard in shards]) for field in fields(cls)))

    def __len__(self) -> int:
        return len(self.latents)


@torch.no_grad()
def build(scenes: SceneSet, autoencoder: Autoencoder, folder: Path, *, limit: int, seed: int = 0) -> None:
    """Encodes the first `limit` scenes, rounded up to whole shards; shards that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, min(limit, len(scenes)), SHARD):
        path = folder / f"{first:06d}.npz"
        if path.exists():
            continue
        indices = np.arange(first, min(first + SHARD, len(scenes)))
        batches = [indices[k : k + BATCH] for k in range(0, len(indices), BATCH)]
        rows = [_encoded(scenes, batch, autoencoder, seed) for batch in tqdm(batches, desc=path.stem, mininterval=5.0)]
        columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **columns)
        os.replace(partial, path)


def _encoded(scenes: SceneSet, indices: np.ndarray, autoencoder: Autoencoder, seed: int) -> dict[str, np.ndarray]:
    cuts: list[View] = []
    for index in map(int, indices):
        scene, rng = scenes[index], np.random.default_rng([seed, index])
        for window in (global_window(scene, SIZE, rng), local_window(scene, SIZE, rng)):
            cut = view(scene, window)
            cuts.append(cut.flipped() if rng.random() < 0.5 else cut)
    pictures = to_tensor([picture for cut in cuts for picture in images_of(cut)])
    with torch.autocast("cpu", torch.bfloat16):
        z = autoencoder.encode(pictures).float()
    factor = autoencoder.config.factor
    return {
        "latents": z.reshape(len(cuts), 3, *z.shape[1:]).numpy().astype(np.float16),
        "modal": np.stack([share_in_latents(cut.modal, factor) for cut in cuts]).astype(np.float16),
        "hidden": np.stack([share_in_latents(np.maximum(cut.alpha - cut.modal, 0), factor) for cut in cuts]).astype(
            np.float16
        ),
        "captions": np.repeat([scenes.meta[int(index)]["caption"] for index in indices], 2),
    }


def share_in_latents(mask: np.ndarray, factor: int) -> np.ndarray:
    """[s, s] to [z, z] by averaging."""
    z = mask.shape[0] // factor
    return np.asarray(mask.reshape(z, factor, z, factor).mean((1, 3)))


def main(
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option()],
    autoencoder: Annotated[Path, typer.Option(help="the run that trained it")],
    out: Annotated[Path, typer.Option()],
    scenes: int = 24000,
    threads: int = 1,
) -> None:
    """Encodes training scenes and, for the sample sheets, a shard of held-out ones."""
    torch.set_num_threads(threads)
    vae = pretrained(autoencoder)
    build(SceneSet.open(test_scenes), vae, out / "test", limit=1)
    build(SceneSet.open(train_scenes), vae, out / "train", limit=scenes)


if __name__ == "__main__":
    typer.run(main)
