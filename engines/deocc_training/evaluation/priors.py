"""Prior images of ExtremeOcc-3D against renders of the true object: metrics in 2D, without any 3D reconstruction."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from deocc.batch.manifest import read_manifest
from deocc_training.evaluation.command import NewMeter
from deocc_training.evaluation.example import InvalidDataset, Unfit
from deocc_training.evaluation.metrics import iou
from deocc_training.evaluation.networks import Network, load_network
from deocc_training.evaluation.perceptual import lpips as perceptual_distance
from deocc_training.evaluation.pictures import read_mask, read_rgba
from deocc_training.evaluation.statistics import Bootstrap

__all__ = ["evaluate_priors", "normalised", "observed_agreement", "silhouette_iou"]

SIDE = 256  # pixels of the common frame
FILL = 0.9  # of the frame, by the longer side of the silhouette
RESAMPLES = 1000
WHITE = 250  # of a render without alpha, what is brighter in every channel is background

Rgba = UInt8[np.ndarray, "h w 4"]


def normalised(rgba: Rgba) -> UInt8[np.ndarray, "s s 4"] | None:
    """Position and size taken out: the silhouette's box centred in 256x256, its longer side 0.9 of that; None if empty.

    A prior has the photo's camera and a render its own, so that neither place nor scale compares.
    """
    ys, xs = np.nonzero(rgba[..., 3] > 127)
    if not len(ys):
        return None
    part = Image.fromarray(np.ascontiguousarray(rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]))
    scale = FILL * SIDE / max(part.size)
    width, height = (max(1, round(side * scale)) for side in part.size)
    small = part.convert("RGBa").resize((width, height), Image.Resampling.BICUBIC).convert("RGBA")
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.paste(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.array(canvas)


def silhouette_iou(prior: UInt8[np.ndarray, "s s 4"], view: UInt8[np.ndarray, "s s 4"]) -> float:
    """IoU of the silhouettes (alpha above one half) of a prior and a render, both normalised.

    *best_view_iou* takes the best of all rendered views: an oracle of the camera, because the observed one is not among
    them.
    """
    a, b = prior[..., 3] > 127, view[..., 3] > 127
    return iou(int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b)))


def observed_agreement(
    prior: Rgba, observed: UInt8[np.ndarray, "h w 3"], modal: Bool[np.ndarray, "h w"]
) -> tuple[float, float]:
    """(*observed_kept*, *observed_error*): is what is seen of the object still there, and does it look the same?

    Kept is the share of the visible part where the prior's alpha is above 0, which is what RelaxFlow takes for the
    object; the error is the mean absolute difference of the colours there, in 8-bit levels, to the observed render.
    """
    kept = (prior[..., 3] > 0) & modal
    share = float(np.count_nonzero(kept) / np.count_nonzero(modal))
    if not kept.any():
        return share, 255.0
    return share, float(np.abs(prior[..., :3][kept].astype(np.int16) - observed[kept]).mean())


def evaluate_priors(
    path: Path, output: Path, *, root: Path | None, lpips: Path | None, meter: NewMeter
) -> dict[str, Any]:
    """Measures every prior of a manifest and writes the JSON report.

    Raises:
        OSError, InvalidInput: the manifest is unfit, or has no priors.
    """
    manifest = read_manifest(path, root, allow_unknown=True)
    network = None if lpips is None else load_network(lpips)
    samples: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    with meter("measuring", len(manifest.entries)) as bar:
        for entry in manifest.entries:
            try:
                samples.append({"id": entry.id, **_sample(entry.row, manifest.root, network)})
            except Unfit as error:
                left_out[entry.id] = str(error)
            bar.advance()
    if not samples:
        raise InvalidDataset(f"no sample of {path} could be measured: {next(iter(left_out.values()), 'it is empty')}")
    names = [name for name in samples[0] if name not in ("id", "priors")]
    bootstrap = Bootstrap([sample["id"] for sample in samples], RESAMPLES)
    summary = {}
    for name in names:
        counted = [float(sample[name] is not None) for sample in samples]
        estimate = bootstrap.ratio([sample[name] or 0.0 for sample in samples], counted)
        summary[name] = None if estimate is None else vars(estimate)
    functions: Mapping[str, Callable[..., Any]] = {
        "best_view_iou": silhouette_iou,
        "normalised": normalised,
        "observed_kept, observed_error": observed_agreement,
    }
    found = {
        "samples": len(samples),
        "summary": summary,
        "left_out": left_out,
        "lpips_network": None if network is None else {"name": network.name, "sha256": network.sha256},
        "definitions": {
            **{name: inspect.getdoc(function) for name, function in functions.items()},
            "best_view_lpips": "LPIPS of the normalised prior and the view with the best silhouette IoU, on white.",
            "means": "Over the priors of a sample, then over samples; best_prior_iou takes a sample's best prior.",
        },
        "rows": samples,
    }
    output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def _sample(row: Mapping[str, Any], root: Path, network: Network | None) -> dict[str, Any]:
    views = _views(root, row)
    modal = read_mask(_inside(root, row["mask"])) if "mask" in row else None  # a point or a box may stand for it
    observed = read_rgba(_inside(root, row.get("obs_object_image") or row["image"]))[..., :3]
    names = row.get("prior_images")
    if not names:
        raise Unfit("it has no prior images")
    priors = [_prior(read_rgba(_inside(root, name)), views, observed, modal, network) for name in names]
    means = {
        name: None if any(prior[name] is None for prior in priors) else float(np.mean([p[name] for p in priors]))
        for name in priors[0]
    }
    best = max(prior["best_view_iou"] or 0.0 for prior in priors)
    return {**means, "best_prior_iou": best, "priors": priors}


def _prior(
    prior: Rgba,
    views: Sequence[UInt8[np.ndarray, "s s 4"]],
    observed: UInt8[np.ndarray, "h w 3"],
    modal: Bool[np.ndarray, "h w"] | None,
    network: Network | None,
) -> dict[str, float | None]:
    found: dict[str, float | None] = {"best_view_iou": 0.0, "best_view_lpips": None}
    frame = normalised(prior)
    if frame is not None:
        overlaps = [silhouette_iou(frame, view) for view in views]
        at = int(np.argmax(overlaps))
        found["best_view_iou"] = overlaps[at]
        if network is not None:
            found["best_view_lpips"] = perceptual_distance(network, _on_white(frame), _on_white(views[at]))
    kept, error = None, None
    if modal is not None and modal.any() and prior.shape[:2] == modal.shape == observed.shape[:2]:
        kept, error = observed_agreement(prior, observed, modal)
    return {**found, "observed_kept": kept, "observed_error": error}


def _views(root: Path, row: Mapping[str, Any]) -> list[UInt8[np.ndarray, "s s 4"]]:
    if not row.get("gt_render_dir"):
        raise Unfit("it has no gt_render_dir")
    files = sorted(_inside(root, row["gt_render_dir"]).glob("view_*.png"))
    frames = [normalised(_with_alpha(file)) for file in files]
    views = [frame for frame in frames if frame is not None]
    if not views:
        raise Unfit(f"there are no renders view_*.png in {row['gt_render_dir']}")
    return views


def _with_alpha(file: Path) -> Rgba:
    """A render; one without transparency stands on white."""
    rgba = read_rgba(file)
    if (rgba[..., 3] == 255).all():
        rgba = rgba.copy()
        rgba[..., 3] = np.where((rgba[..., :3] > WHITE).all(2), 0, 255)
    return rgba


def _inside(root: Path, name: str) -> Path:
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise Unfit(f"a path leads out of the data set: {name}")
    return root / name


def _on_white(rgba: UInt8[np.ndarray, "s s 4"]) -> UInt8[np.ndarray, "s s 3"]:
    picture = Image.fromarray(rgba)
    return np.array(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))
