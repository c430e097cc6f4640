"""The figures mean what their docstrings say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deocc.cli import main
from deocc_training.evaluation.baselines import inpainted
from deocc_training.evaluation.distribution import crop, distances
from deocc_training.evaluation.metrics import (
    Overlap,
    boundary_f,
    hidden_psnr,
    hidden_ssim,
    overlap,
    visible_error,
    visible_kept,
)
from deocc_training.evaluation.networks import RandomNetwork, load_network
from deocc_training.evaluation.perceptual import hidden_lpips
from deocc_training.evaluation.priors import evaluate_priors, normalised, silhouette_iou
from deocc_training.evaluation.row import Row
from deocc_training.evaluation.statistics import Bootstrap, holm, paired
from deocc_training.evaluation.tables import order_table
from tests.training.evaluation_sets import photo

NOTHING = Overlap(0, 1, 0, 0, 0.0)


def square(x: int, y: int, side: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_overlaps_are_counts_of_pixels() -> None:
    truth, modal = square(10, 10, 20), square(10, 10, 20) & (np.arange(80) < 20)
    answer = square(15, 10, 20)
    found = overlap(answer, truth, modal, {"other": square(30, 10, 20)})
    assert (found.intersection, found.union) == (15 * 20, 25 * 20)
    assert (found.hidden_intersection, found.hidden_union) == (10 * 20, 15 * 20)
    assert found.over == {"other": 5 * 20}
    assert found.iou == 15 / 25


def test_contours() -> None:
    assert boundary_f(square(10, 10, 20), square(10, 10, 20)) == 1
    assert boundary_f(square(10, 10, 20), square(50, 30, 20)) == 0
    empty = np.zeros((60, 80), bool)
    assert boundary_f(empty, square(10, 10, 20)) == 0
    assert boundary_f(empty, empty) == 1
    assert boundary_f(np.ones((60, 80), bool), empty) == 1  # the image's border is no contour
    assert 0 < boundary_f(square(10, 10, 20), square(12, 10, 20)) < 1


def test_what_is_hidden_is_compared_where_it_is_hidden() -> None:
    truth, hidden = photo(1), square(20, 20, 20, (80, 96))
    answer = np.where(hidden[..., None], truth, 0).astype(np.uint8)
    assert hidden_psnr(answer, truth, hidden) == 60
    assert hidden_psnr(np.clip(truth.astype(int) + 5, 0, 255).astype(np.uint8), truth, hidden) > 30
    assert hidden_ssim(truth, truth, hidden) == pytest.approx(1)
    assert hidden_ssim(255 - truth, truth, hidden) < 0.5


def test_the_visible_part() -> None:
    rgba = np.dstack([photo(1), np.full((80, 96), 255, np.uint8)])
    modal = square(10, 10, 20, (80, 96))
    assert visible_error(rgba, photo(1), modal) == 0
    assert visible_kept(square(10, 10, 10, (80, 96)), modal) == 0.25


def test_the_inpaint_baseline_uses_nothing_of_the_occluder() -> None:
    truth = square(10, 10, 40, (80, 96))
    modal = truth & (np.arange(96) < 30)
    red = np.zeros((80, 96, 3), np.uint8)
    red[...] = (0, 0, 255)
    red[modal] = (200, 30, 30)
    rgba = inpainted(red, modal, truth)
    np.testing.assert_array_equal(rgba[..., 3] > 0, truth)
    assert np.abs(rgba[truth][:, :3].astype(int) - (200, 30, 30)).max() < 8  # but for rounding, the object's red


def test_the_bootstrap_draws_images() -> None:
    images = ["a"] * 50 + ["b"] * 50
    values = [0.0] * 50 + [1.0] * 50
    estimate = Bootstrap(images, 500).ratio(values, [1.0] * 100)
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0, 1)  # two images, however many objects
    alone = Bootstrap(["a"] * 3, 100).ratio([1, 2, 3], [1, 0, 1])
    assert alone is not None
    assert (alone.value, alone.low, alone.examples) == (2, None, 2)
    pooled = Bootstrap(["a", "b"], 100).ratio([1, 9], [10, 10])
    assert pooled is not None
    assert pooled.value == 0.5
    assert Bootstrap(["a"], 10).ratio([0], [0]) is None


def test_paired_differences() -> None:
    random = np.random.default_rng(0)
    a = random.random(60)
    better = paired(a, a + 0.05 + 0.01 * random.random(60), [str(i) for i in range(60)], 200)
    assert better is not None
    assert better.p is not None
    assert better.p < 1e-6
    assert 0.05 < (better.low or 0) < better.difference
    assert paired(np.array([np.nan]), np.array([1.0]), ["a"], 10) is None
    assert holm([0.01, None, 0.04, 0.03]) == [0.03, None, 0.06, 0.06]


def test_order_is_read_from_who_reaches_into_whom() -> None:
    def row(key: str, in_front: dict[str, bool], over: dict[str, int]) -> Row:
        answer = Overlap(1, 1, 0, 0, 1.0, over)
        return Row(0, key, "image", (), "", "", 1, 0, in_front, {}, answers=(answer,))

    rows = [
        row("a", {"b": False, "c": False}, {"b": 0, "c": 0}),
        row("b", {"a": True, "c": False}, {"a": 9, "c": 7}),  # behind a: right; behind c: wrong
        row("c", {"a": True, "b": True, "gone": True}, {"a": 0, "b": 3}),  # of a nothing is decided
    ]
    found = order_table(rows, {"first choice": Row.chosen}, 20)["first choice"]
    assert found["accuracy"]["examples"] == 3
    assert found["accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["decided"]["value"] == pytest.approx(2 / 3, abs=1e-6)


def test_distances_of_sets() -> None:
    random = np.random.default_rng(0)
    a = random.normal(0, 1, (900, 3)).astype(np.float32)
    b = random.normal((2, 0, 0), (3, 1, 1), (900, 3)).astype(np.float32)
    assert distances(a, a)["frechet"] == pytest.approx(0, abs=1e-6)
    # Of two Gaussians with diagonal covariance: ‖Δμ‖² + Σ (σ_a − σ_b)² = 4 + 4.
    assert distances(a, b)["frechet"] == pytest.approx(8, rel=0.2)
    halves = distances(a[:450], a[450:])["kernel"]
    assert abs(halves) < 0.2 < distances(a, b)["kernel"]
    assert distances(a[:1], b)["frechet"] is None
    assert distances(a[:3], b)["biased"]


def test_crops_are_square_on_white() -> None:
    rgba = np.zeros((60, 80, 4), np.uint8)
    rgba[20:30, 30:70] = (200, 0, 0, 255)
    rgba[0, 0] = (9, 9, 9, 100)  # below one half: not the object
    found = crop(rgba)
    assert found is not None
    assert found.shape == (299, 299, 3)
    assert tuple(found[149, 149]) == (200, 0, 0)
    assert tuple(found[20, 149]) == (255, 255, 255)
    assert crop(np.zeros_like(rgba)) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript
def test_networks_of_the_users_own(tmp_path: Path) -> None:
    class Distance(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).abs().mean((1, 2, 3))

    script = tmp_path / "lpips.pt"
    torch.jit.trace(Distance(), (torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))).save(str(script))
    network = load_network(script)
    truth, hidden = photo(1), square(20, 20, 20, (80, 96))
    assert hidden_lpips(network, truth, truth, hidden) == 0
    near = hidden_lpips(network, np.where(hidden[..., None], truth // 2, 0).astype(np.uint8), truth, hidden)
    assert 0 < near < hidden_lpips(network, np.full_like(truth, 255), truth, np.ones_like(hidden))
    assert len(network.sha256) == 64
    onnx = tmp_path / "features.onnx"
    torch.onnx.export(
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        (torch.zeros(2, 3, 32, 32),),
        onnx,
        dynamo=False,
    )
    picture = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    np.testing.assert_allclose(load_network(onnx)(picture), picture.mean((2, 3)), rtol=1e-5)
    assert RandomNetwork()(picture).shape == (2, 64)
    assert RandomNetwork().sha256 == RandomNetwork().sha256


def test_priors_are_compared_without_their_place_and_size(tmp_path: Path) -> None:
    def disc(side: int, x: int, y: int, radius: int) -> Image.Image:
        yy, xx = np.mgrid[:side, :side]
        alpha = np.where((xx - x) ** 2 + (yy - y) ** 2 <= radius**2, 255, 0).astype(np.uint8)
        return Image.fromarray(np.dstack([np.full((side, side, 3), 90, np.uint8), alpha]))

    near, far = (normalised(np.array(disc(*one))) for one in ((100, 60, 40, 30), (300, 100, 200, 80)))
    assert near is not None
    assert far is not None
    assert silhouette_iou(near, far) > 0.97
    renders = tmp_path / "gt_assets" / "hash"
    renders.mkdir(parents=True)
    disc(64, 32, 32, 20).save(renders / "view_0000.png")
    Image.new("RGBA", (64, 64), "white").save(renders / "view_0001.png")
    disc(100, 50, 50, 40).save(tmp_path / "prior.png")
    disc(100, 50, 50, 20).getchannel("A").save(tmp_path / "mask.png")
    Image.new("RGB", (100, 100), (90, 90, 100)).save(tmp_path / "image.png")
    entry = {"id": "s/v", "image": "image.png", "mask": "mask.png", "prior_text": "", "obs_object_image": "image.png"}
    entry |= {"gt_render_dir": "gt_assets/hash", "gt_mesh": "gt_assets/hash/mesh.ply"}
    clicked = {key: value for key, value in entry.items() if key != "mask"} | {"id": "c/v", "points": [[50, 50]]}
    entries = [{**one, "prior_images": ["prior.png"]} for one in (entry, clicked)] + [{**entry, "id": "t/v"}]
    (tmp_path / "manifest_with_priors.json").write_text(json.dumps(entries))
    with pytest.raises(SystemExit) as caught:
        main(["eval", "priors", str(tmp_path / "manifest_with_priors.json"), "-q", "-o", str(tmp_path / "out.json")])
    assert caught.value.code == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["summary"]["best_view_iou"]["value"] > 0.97
    assert report["summary"]["best_view_iou"]["examples"] == 2
    assert report["summary"]["observed_kept"]["value"] == 1
    assert report["summary"]["observed_kept"]["examples"] == 1  # without a mask nobody knows what is observed
    assert report["summary"]["observed_error"]["value"] == pytest.approx(10 / 3, abs=1e-3)
    assert report["summary"]["best_view_lpips"] is None
    assert report["left_out"] == {"t/v": "it has no prior images"}
    assert evaluate_priors.__doc__
