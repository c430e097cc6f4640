"""Each exporter against what is known of the format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deocc.cli import main
from deocc.coco import decode_segmentation
from deocc.errors import InvalidInput
from deocc.exports import MARGIN, Whole, amodal3r, coco, gena3d, trellis
from deocc.v1 import deocclusion_pb2 as v1

from .conftest import Script, completion, png

WIDTH, HEIGHT = 120, 90


@pytest.fixture
def whole() -> Whole:
    """A box at x 10 to 70, y 20 to 60, of which the left half is visible; it reaches out of its square's frame."""
    amodal = np.zeros((HEIGHT, WIDTH), bool)
    amodal[20:60, 10:70] = True
    modal = amodal & (np.arange(WIDTH) < 40)
    photo = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
    photo[modal] = (200, 0, 0)
    rgba = np.dstack([np.full((HEIGHT, WIDTH, 3), (200, 0, 0), np.uint8), np.where(amodal, 255, 0).astype(np.uint8)])
    return Whole(photo, rgba, modal, amodal, "photo.png", "box")


def picture(image: object) -> np.ndarray:
    assert isinstance(image, Image.Image)
    return np.array(image)


def test_trellis_takes_a_square_of_rgba(whole: Whole) -> None:
    (image,) = trellis(whole, 72).values()
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("RGBA", (72, 72))
    ys, xs = np.nonzero(picture(image)[..., 3] > 127)
    assert (xs.max() + 1 - xs.min()) / 72 == pytest.approx(1 / MARGIN, abs=0.03)  # the longer side
    assert xs.min() + xs.max() == pytest.approx(71, abs=2)  # centred
    assert ys.min() + ys.max() == pytest.approx(71, abs=2)
    edge = picture(image)[picture(image)[..., 3] > 0][:, :3]
    assert np.abs(edge.astype(int) - (200, 0, 0)).max() <= 3  # what is transparent does not colour the edge


def test_amodal3r_takes_a_mask_of_three_levels(whole: Whole) -> None:
    files = amodal3r(whole, 89)  # as many pixels as the square has in the photo, which begins at (-5, -5)
    mask = picture(files["mask.png"])
    levels = np.full((89, 89), 255)
    levels[25:65, 15:75] = 0
    levels[25:65, 15:45] = 188
    np.testing.assert_array_equal(mask, levels)
    assert (mask < 255).any(0).sum() / 89 == pytest.approx(0.68, abs=0.01)
    rgb = picture(files["image.png"])
    assert rgb.shape == (89, 89, 3)
    assert np.abs(rgb[levels == 188].astype(int) - (200, 0, 0)).max() == 0
    assert (rgb[levels == 0] == 50).all()  # the photo, occluder and all


def test_gena3d_takes_four_files(whole: Whole) -> None:
    files = gena3d(whole, 72)  # as many pixels as the square has in the photo, which begins at (4, 4)
    names = {"amodal_completion.png", "occ_mask0.png", "sd_img_cut.png", "visibility_instance_mask.png"}
    assert set(files) == names
    completed, cut = picture(files["amodal_completion.png"]), picture(files["sd_img_cut.png"])
    hidden, seen = picture(files["occ_mask0.png"]), picture(files["visibility_instance_mask.png"])
    assert completed.shape == (72, 72, 4)  # with alpha its reader needs no background remover, and crops all four alike
    assert cut.shape == (72, 72, 3)
    assert hidden.shape == seen.shape == (72, 72)
    levels = np.zeros((72, 72))
    levels[16:56, 6:36] = 255
    np.testing.assert_array_equal(seen, levels)
    np.testing.assert_array_equal(completed[..., 3], np.maximum(hidden, seen))
    np.testing.assert_array_equal(hidden[16:56, 36:66], 255)
    assert not (hidden & seen).any()
    # "Generated through sd_img_cut": what is not black in it is what is visible.
    np.testing.assert_array_equal((cut >= 10).any(2), seen > 0)
    assert tuple(cut[32, 20]) == tuple(completed[32, 50, :3]) == (200, 0, 0)


def test_without_anything_hidden_the_3d_masks_say_so(whole: Whole) -> None:
    bare = Whole(whole.photo, whole.rgba, whole.amodal, whole.amodal)
    assert not picture(gena3d(bare, 64)["occ_mask0.png"]).any()
    assert set(np.unique(picture(amodal3r(bare, 64)["mask.png"]))) == {188, 255}


def test_coco_says_what_is_visible_and_what_is_not(whole: Whole) -> None:
    content = coco(whole)["annotations.json"]
    assert isinstance(content, dict)
    (annotation,) = content["annotations"]
    assert annotation["bbox"] == [10, 20, 60, 40]
    assert annotation["area"] == 60 * 40
    assert annotation["occlude_rate"] == 0.5
    parts = [decode_segmentation(annotation[key], WIDTH, HEIGHT) for key in ("visible_mask", "invisible_mask")]
    np.testing.assert_array_equal(parts[0], whole.modal)
    np.testing.assert_array_equal(parts[0] | parts[1], whole.amodal)
    assert content["images"] == [{"id": 1, "file_name": "photo.png", "width": WIDTH, "height": HEIGHT}]
    assert content["categories"][0]["name"] == "box"


def test_sizes_must_agree(whole: Whole) -> None:
    with pytest.raises(InvalidInput, match="same size"):
        Whole(whole.photo[:-1], whole.rgba, whole.modal, whole.amodal)
    with pytest.raises(InvalidInput, match="empty"):
        Whole(whole.photo, whole.rgba, whole.modal & ~whole.modal, whole.amodal)


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_command_completes_and_exports(
    script: Script, grpc_target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(png("RGB"))
    answer = completion()
    answer.modal.mask.CopyFrom(v1.Mask(png=png("L")))
    script.outcomes.append(answer)
    out = tmp_path / "for-trellis"
    assert (
        run("export", "trellis", photo, "--grpc", grpc_target, "--point", "3,4", "--text", "cup", "--json", "-o", out)
        == 0
    )
    assert json.loads(capsys.readouterr().out)["files"] == [str(out / "image.png")]
    assert script.requests[0].options.text == "cup"
    with Image.open(out / "image.png") as image:
        assert (image.mode, image.size) == ("RGBA", (518, 518))


def test_the_command_exports_what_was_completed_before(tmp_path: Path, whole: Whole) -> None:
    files = {
        "photo.png": whole.photo,
        "out.png": whole.rgba,
        "mask.png": np.where(whole.modal, 255, 0).astype(np.uint8),
    }
    for name, array in files.items():
        Image.fromarray(array).save(tmp_path / name)
    base = (tmp_path / "photo.png", "--completed", tmp_path / "out.png", "-q", "-o", tmp_path / "made")
    assert run("export", "coco", *base, "--mask", tmp_path / "mask.png") == 0
    made = json.loads((tmp_path / "made" / "annotations.json").read_text())
    assert made["annotations"][0]["occlude_rate"] == 0.5
    assert run("export", "coco", *base) == 2
    assert run("export", "obj", *base, "--mask", tmp_path / "mask.png") == 2
