"""Every published layout is read as its publisher means it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deocc.coco import decode_segmentation, encode_segmentation
from deocc.errors import InvalidInput
from deocc.exports import Whole
from deocc.exports import coco as export_coco
from deocc_training.evaluation.example import InvalidDataset, Unfit, click
from deocc_training.evaluation.opening import open_dataset
from deocc_training.scenes import Library, build
from tests.training.evaluation_sets import (
    HEIGHT,
    WIDTH,
    decoded,
    drawn,
    photo,
    run_lengths,
    shapes,
    visible,
    write_cocoa,
    write_folder,
    write_kins,
    write_synergy,
)


def test_cocoa(tmp_path: Path) -> None:
    dataset = open_dataset(write_cocoa(tmp_path), tmp_path)
    board, wedge, ground = (dataset.load(index) for index in range(3))
    assert wedge.key == "COCO_val2014_000000000000/100-1"
    np.testing.assert_array_equal(wedge.amodal, drawn(shapes(0)[1]))
    np.testing.assert_array_equal(wedge.modal, visible(shapes(0))[1])
    np.testing.assert_array_equal(wedge.front, board.modal)
    np.testing.assert_array_equal(wedge.pixels, photo(0))
    assert wedge.content == (tmp_path / "COCO_val2014_000000000000.png").read_bytes()
    assert wedge.in_front == {board.key: True, ground.key: False}
    assert (wedge.groups, ground.groups, wedge.text) == (("things",), ("stuff",), "thing 2")
    np.testing.assert_array_equal(board.modal, board.amodal)
    assert len({board.image, wedge.image, dataset.load(3).image}) == 2


def test_a_pickle_holds_data_and_runs_nothing(tmp_path: Path) -> None:
    path = write_cocoa(tmp_path)
    plain = path.with_suffix(".pkl")
    plain.write_bytes(pickle.dumps(json.loads(path.read_text())))
    assert open_dataset(plain, tmp_path).keys == open_dataset(path).keys
    plain.write_bytes(pickle.dumps({"annotations": [Path]}))
    with pytest.raises(InvalidDataset, match="would run"):
        open_dataset(plain, tmp_path)


def test_other_names_of_images_and_no_order_pairs(tmp_path: Path) -> None:
    path = write_cocoa(tmp_path, images=1)
    whole = json.loads(path.read_text())
    del whole["annotations"][0]["depth_constraint"], whole["images"][0]["width"]
    path.write_text(json.dumps(whole))
    (tmp_path / "COCO_val2014_000000000000.png").rename(tmp_path / "000000000000.png")  # COCO 2017's name
    wedge = open_dataset(path).load(1)
    assert sorted(wedge.in_front.values()) == [False, True]  # whose shapes overlap


def test_kins(tmp_path: Path) -> None:
    dataset = open_dataset(write_kins(tmp_path))
    board, wedge = dataset.load(0), dataset.load(1)
    np.testing.assert_array_equal(wedge.modal, visible(shapes(0))[1])
    assert wedge.in_front == {board.key: True}
    assert board.in_front == {wedge.key: False}
    np.testing.assert_array_equal(wedge.front, board.modal)
    assert wedge.text == "car"


def test_synergy(tmp_path: Path) -> None:
    dataset = open_dataset(write_synergy(tmp_path))
    wedge, board = dataset.load(0), dataset.load(1)
    np.testing.assert_array_equal(wedge.amodal, drawn(shapes(0)[1]))
    np.testing.assert_array_equal(wedge.modal, visible(shapes(0))[1])
    assert wedge.truth is not None
    np.testing.assert_array_equal(wedge.truth[wedge.amodal][:, :3], photo(5)[wedge.amodal])
    assert wedge.text == "a wedge"
    np.testing.assert_array_equal(board.modal, board.amodal)


def test_a_plain_folder_either_way_round(tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    for example in (tmp_path / "a").iterdir():
        for picture in example.iterdir():
            target = tmp_path / "b" / picture.stem / f"{example.name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture.read_bytes())
    first, second = open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b")
    assert first.keys == second.keys == ["example-0", "example-1"]
    assert first.load(1).digest() == second.load(1).digest()
    (tmp_path / "b" / "modal" / "example-0.png").unlink()
    with pytest.raises(Unfit, match="modal missing"):
        open_dataset(tmp_path / "b").load(0)


def test_scenes(library: Library, tmp_path: Path) -> None:
    scenes = build(tmp_path / "set", "test", 3, 5, workers=1, library=library)
    example = open_dataset(tmp_path / "set").load(1)
    height, width = scenes[1].size
    assert example.modal.shape == (height, width)
    assert example.truth is not None
    assert (example.amodal | ~example.modal).all()
    assert example.text == scenes[1].caption


def test_our_own_export_is_a_data_set(tmp_path: Path) -> None:
    complete, seen = drawn(shapes(0)[1]), visible(shapes(0))[1]
    rgba = np.dstack([photo(0), np.where(complete, 255, 0).astype(np.uint8)])
    whole = export_coco(Whole(photo(0), rgba, seen, complete, "photo.png"))["annotations.json"]
    Image.fromarray(photo(0)).save(tmp_path / "photo.png")
    (tmp_path / "annotations.json").write_text(json.dumps(whole))
    example = open_dataset(tmp_path / "annotations.json").load(0)
    np.testing.assert_array_equal(example.amodal, complete)
    np.testing.assert_array_equal(example.modal, seen)


def test_what_cannot_be_asked_says_why(tmp_path: Path) -> None:
    path = write_cocoa(tmp_path)
    whole = json.loads(path.read_text())
    regions = whole["annotations"][0]["regions"]
    regions[0]["segmentation"] = [1, 2]
    regions[1]["visible_mask"] = run_lengths(np.zeros((HEIGHT, WIDTH), bool))
    path.write_text(json.dumps(whole))
    Image.new("RGB", (8, 8)).save(tmp_path / "COCO_val2014_000000000001.png")
    dataset = open_dataset(path)
    for index, reason in ((0, "corners"), (1, "nothing of it is visible"), (3, "8x8")):
        with pytest.raises(Unfit, match=reason):
            dataset.load(index)
    assert dataset.load(2).text == "thing 3"  # its neighbours' faults are not its own
    plain = {"images": [], "annotations": [{"image_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1]]}]}
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    with pytest.raises(InvalidDataset, match="no annotation says what is hidden"):
        open_dataset(tmp_path / "plain.json")


def test_a_photo_whose_exif_the_annotator_ignored_is_sent_as_it_was_seen(tmp_path: Path) -> None:
    path = write_cocoa(tmp_path, images=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    file = tmp_path / "COCO_val2014_000000000000.png"
    Image.fromarray(photo(0)).save(file, exif=exif)
    example = open_dataset(path).load(1)
    assert example.content != file.read_bytes()
    np.testing.assert_array_equal(example.pixels, photo(0))


def test_the_click_is_the_deepest_visible_point() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:21, 20:31] = True
    assert click(mask) == (25.5, 15.5)


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_those_of_pycocotools(seed: int) -> None:
    mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) > (0.3, 0.9, 0.001, 2)[seed]
    assert encode_segmentation(mask) == run_lengths(mask)
    np.testing.assert_array_equal(decode_segmentation(run_lengths(mask), WIDTH, HEIGHT), mask)
    np.testing.assert_array_equal(decoded(encode_segmentation(mask)), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 4], "counts": "01"},
        {"size": [4, 4], "counts": [3, 200]},
        {"size": [4, 4], "counts": [16, -1, 1]},
        {"size": [5, 4], "counts": [20]},
        {"size": [4, 4], "counts": "\x7f"},
        {"size": [4, 4], "counts": "P" * 40},
        [[0, 0, 1, float("nan"), 1, 1]],
        "polygon",
        [],
    ],
)
def test_malformed_masks_are_refused(segmentation: object) -> None:
    with pytest.raises(InvalidInput):
        decode_segmentation(segmentation, 4, 4)
