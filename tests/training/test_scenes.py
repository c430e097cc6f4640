"""The truth a scene carries is the truth: shown on tiny cut-outs drawn here, with nothing downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from deocc_training.captions import emoji_caption, emoji_category, emoji_identity
from deocc_training.cutout import RejectedError, clean
from deocc_training.scenes import Library, Scene, SceneSet, build, scene_at
from deocc_training.splits import merged_identities, split_of, thumbnail
from tests.training.cutouts import drawn

SEED = 5


def _scenes(library: Library, count: int = 25) -> list[Scene]:
    return [scene_at(library, "train", SEED, index) for index in range(count)]


def test_a_scene_depends_only_on_seed_split_and_index(library: Library) -> None:
    forwards = _scenes(library, 4)
    alone = scene_at(library, "train", SEED, 3)
    np.testing.assert_array_equal(alone.image, forwards[3].image)
    np.testing.assert_array_equal(alone.target, forwards[3].target)
    assert alone.instances == forwards[3].instances
    assert not np.array_equal(alone.image, scene_at(library, "test", SEED, 3).image)


def test_the_visible_target_is_the_truth(library: Library) -> None:
    checked = 0
    for scene in _scenes(library):
        visible = scene.labels == scene.target_label
        # Soft rims mix with their neighbours, so the promise is for pixels away from every boundary.
        inner = cv2.erode(visible.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        if scene.degraded or not inner.any():
            continue
        difference = np.abs(scene.image[inner].astype(int) - scene.target[..., :3][inner])
        assert difference.max() <= 1
        assert (scene.target[..., 3][visible] > 127).all()
        checked += 1
    assert checked > 5


def test_occluded_fraction_counts_the_hidden_part(library: Library) -> None:
    scenes = _scenes(library, 40)
    for scene in scenes:
        whole = scene.target[..., 3] > 127
        hidden = whole & (scene.labels != scene.target_label)
        assert scene.occluded_fraction == pytest.approx(hidden.sum() / whole.sum(), abs=0.01)
        nearer = {instance.label for instance in scene.instances if instance.in_front}
        assert set(np.unique(scene.labels[hidden]).tolist()) <= nearer
        assert (scene.labels == scene.target_label).sum() >= 150
    fractions = [scene.occluded_fraction for scene in scenes]
    assert min(fractions) == 0
    assert max(fractions) > 0.5


def test_padding_is_white_and_unlabelled(library: Library) -> None:
    for scene in _scenes(library, 10):
        height, width = scene.size
        assert max(height, width) == 256
        assert min(height, width) >= 160
        outside = np.ones((256, 256), np.bool_)
        outside[:height, :width] = False
        assert (scene.image[outside] == 255).all()
        assert not scene.labels[outside].any()
        assert (scene.target[scene.target[..., 3] == 0] == (255, 255, 255, 0)).all()


def test_no_test_identity_is_seen_in_training(library: Library) -> None:
    for split in ("train", "test"):
        for index in range(15):
            for instance in scene_at(library, split, SEED, index).instances:
                assert instance.kind == "procedural" or split_of(instance.identity) == split


def test_one_identity_in_ten_is_held_out() -> None:
    held_out = sum(split_of(f"thing/{number}") == "test" for number in range(2000))
    assert 150 < held_out < 250


def test_tones_and_genders_share_an_identity() -> None:
    cook, dark_cook = (0x1F468, 0x200D, 0x1F373), (0x1F469, 0x1F3FF, 0x200D, 0x1F373)
    assert emoji_identity(cook) == emoji_identity(dark_cook)
    assert emoji_caption(cook) == "man cook"
    assert emoji_caption(dark_cook) == "woman cook"
    assert emoji_identity((0x1F44B,)) == emoji_identity((0x1F44B, 0x1F3FD)) != emoji_identity((0x1F44D,))
    runner, woman_runner = (0x1F3C3,), (0x1F3C3, 0x1F3FE, 0x200D, 0x2640, 0xFE0F)
    assert emoji_category(runner) == emoji_category(woman_runner) == "person"


def test_look_alikes_share_an_identity() -> None:
    egg, other = drawn(1), drawn(2)
    retouched = egg.copy()
    retouched[40:44, 70:74, :3] = 0
    thumbnails = np.stack([thumbnail(picture) for picture in (egg, other, retouched)])
    assert merged_identities(["egg", "other", "retouched"], thumbnails) == ["egg", "other", "egg"]


def test_clean_trims_objects_and_refuses_what_is_none() -> None:
    whole = clean(drawn(1))
    assert (whole[..., 3] > 0).any(axis=0).all()
    assert (whole[..., 3] > 0).any(axis=1).all()
    parts = drawn(1)
    parts[:, 50:70] = 0
    with pytest.raises(RejectedError, match="several parts"):
        clean(parts)
    ghost = drawn(1)
    ghost[..., 3] = ghost[..., 3] // 255 * 180
    with pytest.raises(RejectedError, match="ghost"):
        clean(ghost)


def test_an_interrupted_build_goes_on_to_identical_files(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deocc_training.scenes._CHUNK", 2)
    straight_through = build(tmp_path / "a", "train", 5, SEED, workers=1, library=library)

    calls = 0

    def failing(*job: object) -> Scene:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return scene_at(*job)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("deocc_training.scenes.scene_at", failing)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "b", "train", 5, SEED, workers=1, library=library)
    assert not (tmp_path / "b").exists()
    with pytest.raises(FileExistsError, match="another set"):
        build(tmp_path / "b", "train", 6, SEED, workers=1, library=library)
    build(tmp_path / "b", "train", 5, SEED, workers=1, library=library)

    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["image.npy", "labels.npy", "meta.jsonl", "target.npy"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(straight_through) == 5


def test_a_set_gives_back_what_was_composed(library: Library, tmp_path: Path) -> None:
    build(tmp_path / "set", "test", 3, SEED, workers=1, library=library)
    opened = SceneSet.open(tmp_path / "set")
    made = scene_at(library, "test", SEED, 2)
    np.testing.assert_array_equal(opened[2].labels, made.labels)
    np.testing.assert_array_equal(opened[2].target, made.target)
    assert opened[2].instances == made.instances
    assert opened[2].size == made.size
    assert json.loads((tmp_path / "set" / "meta.jsonl").read_text().splitlines()[2])["caption"] == made.caption
