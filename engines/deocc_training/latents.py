"""Latents of scenes, computed once: what the denoiser is trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Int32
from torch import Tensor
from tqdm import tqdm

from deocc_engines.networks.autoencoder import Autoencoder
from deocc_training.autoencoder import SIZE, images_of, to_tensor
from deocc_training.scenes import SceneSet
from deocc_training.windows import global_window, local_window, view

__all__ = ["LatentSet", "build"]

VARIANTS = 2  # the global and the local window
BATCH = 16  # views encoded at once


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Memory-mapped.

    Attributes:
        latents: E(x), E(x∘m) and E(x_g), [n, 3, c, z, z].
        modal: share of each latent that belongs to the visible part, [n, z, z].
        scene: index of the scene behind each row.
        captions: of each scene.
    """

    latents: Float16[np.ndarray, "n 3 c z z"]
    modal: Float16[np.ndarray, "n z z"]
    scene: Int32[np.ndarray, " n"]
    captions: list[str]

    @classmethod
    def open(cls, path: Path) -> LatentSet:
        """Opens a finished set."""
        latents, modal, scene = (np.load(path / f"{name}.npy", mmap_mode="r") for name in ("latents", "modal", "scene"))
        return cls(latents, modal, scene, json.loads((path / "captions.json").read_text()))

    def __len__(self) -> int:
        return len(self.scene)


def share_in_latents(modal: np.ndarray, factor: int) -> np.ndarray:
    """[s, s] to [z, z] by averaging."""
    z = modal.shape[0] // factor
    return np.asarray(modal.reshape(z, factor, z, factor).mean((1, 3)))


@torch.no_grad()
def build(scenes: SceneSet, autoencoder: Autoencoder, out: Path, *, limit: int, seed: int = 0) -> None:
    """Encodes the first `limit` scenes, half of them mirrored; resumes; captions.json marks the end."""
    if (out / "captions.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    config = autoencoder.config
    scene_count = min(limit, len(scenes))
    z, count = SIZE // config.factor, VARIANTS * scene_count
    shapes = {"latents": (count, 3, config.latent_channels, z, z), "modal": (count, z, z), "scene": (count,)}
    done_file = out / "done"
    done = int(done_file.read_text()) if done_file.exists() else 0
    arrays = {
        name: np.lib.format.open_memmap(
            out / f"{name}.npy",
            mode="r+" if done else "w+",
            dtype=np.int32 if name == "scene" else np.float16,
            shape=shape,
        )
        for name, shape in shapes.items()
    }
    per_batch = BATCH // VARIANTS
    for first in tqdm(range(done, scene_count, per_batch), mininterval=5.0):
        indices = range(first, min(first + per_batch, scene_count))
        cuts = []
        for index in indices:
            scene, rng = scenes[index], np.random.default_rng([seed, index])
            whole = view(scene, global_window(scene, SIZE))
            local = view(scene, local_window(scene, SIZE, rng))
            cuts += [cut.flipped() if rng.random() < 0.5 else cut for cut in (whole, local)]
        pictures = [picture for cut in cuts for picture in images_of(cut)]
        with torch.autocast("cpu", torch.bfloat16):
            encoded = autoencoder.encode(to_tensor(pictures)).float()
        rows = slice(VARIANTS * first, VARIANTS * first + len(cuts))
        arrays["latents"][rows] = _reordered(encoded, len(cuts))
        arrays["modal"][rows] = np.stack([share_in_latents(cut.modal, config.factor) for cut in cuts])
        arrays["scene"][rows] = np.repeat(np.array(indices, np.int32), VARIANTS)
        if first % (per_batch * 100) == 0:
            for array in arrays.values():
                array.flush()
            done_file.write_text(str(first))
    for array in arrays.values():
        array.flush()
    (out / "captions.json").write_text(json.dumps([meta["caption"] for meta in scenes.meta]))


def _reordered(encoded: Tensor, count: int) -> np.ndarray:
    """Rows come as x, x∘m, x_g; they are kept as E(x), E(x∘m), E(x_g)."""
    return encoded.reshape(count, 3, *encoded.shape[1:]).numpy().astype(np.float16)
