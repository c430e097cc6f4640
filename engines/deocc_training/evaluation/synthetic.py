"""Our own synthetic scenes, where everything is known: `deocc_training.scenes`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from deocc_engines.image import encode_png
from deocc_training.evaluation.example import Example
from deocc_training.scenes import SceneSet

__all__ = ["Synthetic"]


class Synthetic:
    """A finished set of scenes. Only the target's appearance is known, so only its order towards others is asked."""

    def __init__(self, folder: Path) -> None:
        self._scenes = SceneSet.open(folder)
        self._digest = hashlib.sha256((folder / "meta.jsonl").read_bytes()).hexdigest()
        self.keys = [f"{index:06d}" for index in range(len(self._scenes))]

    def load(self, index: int) -> Example:
        """See Dataset."""
        scene = self._scenes[index]
        height, width = scene.size
        pixels = np.ascontiguousarray(scene.image[:height, :width])
        labels = scene.labels[:height, :width]
        truth = np.ascontiguousarray(scene.target[:height, :width])
        modal = np.ascontiguousarray(labels == scene.target_label)
        return Example(
            key=self.keys[index],
            image=self.keys[index],
            content=encode_png(pixels),
            pixels=pixels,
            modal=modal,
            amodal=(truth[..., 3] > 127) | modal,  # soft rims: what is seen of it belongs to it
            front=np.isin(labels, [one.label for one in scene.instances if one.in_front]),
            truth=truth,
            text=scene.caption,
            groups=(scene.kind,),
        )

    def description(self) -> dict[str, Any]:
        """See Dataset."""
        return {"format": "scenes", "annotations_sha256": self._digest, "examples": len(self.keys)}
