"""Every published layout is read as its publisher means it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


Json = dict[str, Any]


def regions_of(whole: Json) -> list[Json]:
    return [region for annotation in whole["annotations"] for region in annotation["regions"]]


def counts_as_list(whole: Json, number: type = int) -> None:
    for region in regions_of(whole):
        for name in {"visible_mask", "invisible_mask"} & set(region):
            flat = decoded(region[name]).ravel(order="F")
            edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]))).tolist()
            runs = np.diff([0, *edges, flat.size]).tolist()
            region[name] = {"size": [number(HEIGHT), number(WIDTH)], "counts": [number(run) for run in runs]}


def only_what_is_hidden(whole: Json) -> None:
    for region in regions_of(whole):
        region.pop("visible_mask", None)


def empty_where_nothing_is_hidden(whole: Json) -> None:
    for number, region in enumerate(regions_of(whole)):
        if "visible_mask" not in region:
            region["visible_mask"] = ([], {}, "", None)[number % 4]
            region["invisible_mask"] = {"size": [HEIGHT, WIDTH], "counts": ("", [])[number % 2]}


def polygons_in_lists(whole: Json) -> None:
    for region in regions_of(whole):
        region["segmentation"] = [region["segmentation"], [3.0, 3.0, 5.0, 5.0]]


def corners_one_by_one(whole: Json) -> None:
    for region in regions_of(whole):
        flat = region["segmentation"]
        region["segmentation"] = [list(corner) for corner in zip(flat[::2], flat[1::2], strict=True)]


def complete_as_run_lengths(whole: Json) -> None:
    for region in regions_of(whole):
        region["segmentation"] = run_lengths(drawn(region["segmentation"]))


def orders(give: Callable[[int], Any]) -> Callable[[Json], None]:
    def change(whole: Json) -> None:
        for region in regions_of(whole):
            region["order"] = give(region["order"])

    return change


def orders_from_0(whole: Json) -> None:
    orders(lambda order: order - 1)(whole)
    for annotation in whole["annotations"]:
        annotation["depth_constraint"] = "0-1,0-2,1-2"


def no_orders(whole: Json) -> None:
    for region in regions_of(whole):
        del region["order"]


def pairs_in_lists(whole: Json) -> None:
    whole["annotations"][0]["depth_constraint"] = ["1-2", "1-3", "2-3"]


def ids_as_text(whole: Json) -> None:
    for annotation in whole["annotations"]:
        annotation |= {"id": str(annotation["id"]), "image_id": str(annotation["image_id"])}


def ids_that_come_again(whole: Json) -> None:
    whole["annotations"].append(whole["annotations"][0])  # a second annotator, under the same id


def an_address_for_a_name(whole: Json) -> None:
    for image in whole["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2014/{image.pop('file_name')}?v=1"


def addresses_of_annotations_alone(whole: Json) -> None:
    for image, annotation in zip(whole["images"], whole["annotations"], strict=True):
        annotation["url"] = f"http://images.cocodataset.org/val2014/{image['file_name']}"
    del whole["images"]


def numbers_for_names(whole: Json) -> None:
    del whole["images"]  # 0 stands for COCO_val2014_000000000000.png


@pytest.mark.parametrize(
    "variant",
    [
        counts_as_list,
        lambda whole: counts_as_list(whole, float),
        only_what_is_hidden,
        empty_where_nothing_is_hidden,
        polygons_in_lists,
        corners_one_by_one,
        complete_as_run_lengths,
        orders(str),
        orders(float),
        orders(lambda _: 0),
        orders_from_0,
        no_orders,
        pairs_in_lists,
        ids_as_text,
        ids_that_come_again,
        an_address_for_a_name,
        addresses_of_annotations_alone,
        numbers_for_names,
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_cocoa_as_it_is_met_in_the_wild(variant: Callable[[Json], None], nested: bool, tmp_path: Path) -> None:
    path = write_cocoa(tmp_path)
    if nested:
        (tmp_path / "val2014").mkdir()
        for picture in tmp_path.glob("*.png"):
            picture.rename(tmp_path / "val2014" / picture.name)
    plain = open_dataset(path).load(1)
    whole = json.loads(path.read_text())
    variant(whole)
    path.write_text(json.dumps(whole))
    dataset = open_dataset(path, tmp_path)
    assert len(dataset.keys) == len(set(dataset.keys)) == len(regions_of(whole))
    wedge, ground = dataset.load(1), dataset.load(2)
    assert wedge.content == plain.content
    for name in ("modal", "amodal", "front"):
        np.testing.assert_array_equal(getattr(wedge, name), getattr(plain, name))
    assert list(wedge.in_front.values()) == [True, False]
    assert set(wedge.in_front) == {dataset.keys[0], dataset.keys[2]}
    assert (wedge.groups, ground.groups) == (("things",), ("stuff",))


def test_a_list_of_annotations_is_enough(tmp_path: Path) -> None:
    path = write_cocoa(tmp_path)
    plain = open_dataset(path).load(1)
    whole = json.loads(path.read_text())
    addresses_of_annotations_alone(whole)
    path.write_text(json.dumps(whole["annotations"]))
    np.testing.assert_array_equal(open_dataset(path).load(1).modal, plain.modal)


def test_of_files_with_the_same_name_the_nearest_is_meant(tmp_path: Path) -> None:
    path = write_cocoa(tmp_path, images=2)
    whole = json.loads(path.read_text())
    for number, image in enumerate(whole["images"]):
        folder = tmp_path / "pictures" / f"camera{number}"
        folder.mkdir(parents=True)
        (tmp_path / image["file_name"]).rename(folder / "0001.png")
        image["file_name"] = f"camera{number}\\0001.png"  # as some tools write paths
    path.write_text(json.dumps(whole))
    for images in (tmp_path, tmp_path / "pictures"):
        np.testing.assert_array_equal(open_dataset(path, images).load(3).pixels, photo(1))
    whole["images"][1]["file_name"] = "0001.png"
    path.write_text(json.dumps(whole))
    with pytest.raises(Unfit, match=r"may be any of pictures/camera0/0001.png, pictures/camera1/0001.png"):
        open_dataset(path, tmp_path).load(3)


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


@pytest.mark.parametrize(
    ("complete", "seen", "hidden"),
    [
        ("segmentation", "visible_mask", None),  # COCOA-cls
        ("segmentation", "visible_mask", "invisible_mask"),  # D2SA
        ("segmentation", "inmodal_seg", None),  # KINS as SSSD has it
        ("segmentation", None, "invisible_mask"),
        ("segmentation", "visible_segmentation", None),
        ("amodal_segm", "visible_segm", None),
        ("a_segm", "i_segm", None),
        ("amodal_segm", "segmentation", None),  # the plain name is the visible part's
    ],
)
def test_coco_files_name_their_masks_as_they_like(
    complete: str, seen: str | None, hidden: str | None, tmp_path: Path
) -> None:
    path = write_kins(tmp_path)
    whole = json.loads(path.read_text())
    for annotation, polygon, mask in zip(whole["annotations"], shapes(0), visible(shapes(0)), strict=False):
        for name in ("a_segm", "i_segm", "segmentation", "oco_id", "ico_id"):
            del annotation[name]
        annotation[complete] = [polygon]
        annotation |= {seen: run_lengths(mask)} if seen else {}
        annotation |= {hidden: run_lengths(drawn(polygon) & ~mask)} if hidden else {}
    whole["annotations"].append({**whole["annotations"][0], "id": 9, "iscrowd": 1})
    path.write_text(json.dumps(whole))
    dataset = open_dataset(path)
    board, wedge = dataset.load(0), dataset.load(1)
    np.testing.assert_array_equal(wedge.modal, visible(shapes(0))[1])
    np.testing.assert_array_equal(wedge.amodal, drawn(shapes(0)[1]))
    np.testing.assert_array_equal(board.modal, board.amodal)
    assert wedge.in_front[board.key]  # it is visible where the wedge is hidden
    with pytest.raises(Unfit, match="crowd"):
        dataset.load(2)


def test_of_what_is_wholly_hidden_kins_gives_no_visible_part(tmp_path: Path) -> None:
    path = write_kins(tmp_path)
    whole = json.loads(path.read_text())
    whole["annotations"][1]["i_segm"] = []
    path.write_text(json.dumps(whole))
    with pytest.raises(Unfit, match="nothing of it is visible"):
        open_dataset(path).load(1)


def test_synergy_as_it_is_published(tmp_path: Path) -> None:
    """Photos and completed objects in folders of their own, under the same names."""
    path = write_synergy(tmp_path)
    rows = json.loads(path.read_text())
    for folder, name in (("images", "entity.png"), ("amodal_rgbs", "entity_amodal.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / name).rename(tmp_path / folder / "entity.png")
    rows[0]["amodal_rgb"] = "entity.png"
    path.write_text(json.dumps(rows))
    for images in (None, tmp_path, tmp_path / "images"):
        wedge = open_dataset(path, images).load(0)
        assert wedge.truth is not None
        np.testing.assert_array_equal(wedge.pixels, photo(0))
        np.testing.assert_array_equal(wedge.truth[wedge.amodal][:, :3], photo(5)[wedge.amodal])


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
    whole["annotations"][2]["regions"][1]["visible_mask"] = run_lengths(np.ones((HEIGHT, WIDTH + 1), bool))
    whole["annotations"][2]["regions"][2] = "a region"
    path.write_text(json.dumps(whole))
    Image.new("RGB", (8, 8)).save(tmp_path / "COCO_val2014_000000000001.png")
    dataset = open_dataset(path)
    faults = ((0, "corners"), (1, "nothing of it is visible"), (3, "8x8"), (7, "run lengths are for"), (8, "object"))
    for index, reason in faults:
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
