"""`deocc batch` over a miniature ExtremeOcc-3D in its published layout, with a fake engine behind the real core."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deocc.batch import InvalidManifest, read_manifest
from deocc.batch.check import check_entries
from deocc.cli import main
from deocc_engines.errors import Overloaded
from deocc_service.inprocess import InProcessTransport
from deocc_service.settings import Settings

from .conftest import Script, completion, png

ROOT = Path(__file__).parents[2]
SIZE = (64, 48)
IDS = ("scene_0001/view_00", "scene_0001/view_01", "scene_0002/view_00")
ENTRY = dict[str, Any]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def write_data_set(root: Path) -> list[ENTRY]:
    """ExtremeOcc-3D as published: assets by scene and view, ground truth by the object's hash."""
    entries: list[ENTRY] = []
    for number, name in enumerate(IDS):
        folder, truth = root / "assets" / name, root / "gt_assets" / f"{number:032x}"
        for made in (folder, truth):
            made.mkdir(parents=True, exist_ok=True)
        photo = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
        Image.fromarray(photo).save(folder / "rendered_scene.png")
        Image.fromarray(photo).save(folder / "rendered.png")
        mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        mask[10:30, 20 + number : 40] = 255
        Image.fromarray(mask).save(folder / "occluded_mask.png")
        Image.new("RGBA", (32, 32), "white").save(truth / "view_0000.png")
        entries.append(
            {
                "id": name,
                "image": f"assets/{name}/rendered_scene.png",
                "mask": f"assets/{name}/occluded_mask.png",
                "obs_object_image": f"assets/{name}/rendered.png",
                "prior_text": f"object {number}",
                "gt_render_dir": f"gt_assets/{number:032x}",
                "gt_mesh": f"gt_assets/{number:032x}/mesh.ply",
            }
        )
    return entries


def write_manifest(root: Path, entries: list[ENTRY], form: str = "list") -> Path:
    path = root / "manifest.json"
    if form == "jsonl":
        path.write_text("\n".join(json.dumps(entry) for entry in entries) + "\n")
    else:
        path.write_text(json.dumps(entries if form == "list" else {"version": 1, "samples": entries}))
    return path


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    root = tmp_path / "ExtremeOcc-3D"
    write_manifest(root, write_data_set(root))
    return root


@pytest.fixture
def here(fake_engine: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The fake engine in process; how many steps it took so far."""
    load = fake_engine.FakeLoad(tmp_path / "steps")
    monkeypatch.delenv("DEOCC_URL", raising=False)
    monkeypatch.setattr(
        "deocc.connection.provided",
        lambda _: lambda engine, timeout: InProcessTransport(Settings.read({}), load, timeout),
    )
    return lambda: int(load.steps)


@pytest.mark.parametrize("form", ["list", "samples", "jsonl"])
def test_every_form_of_the_manifest(form: str, data_set: Path, here: Callable[[], int]) -> None:
    manifest = write_manifest(data_set, json.loads((data_set / "manifest.json").read_text()), form)
    before = manifest.read_bytes()
    assert run("batch", manifest, "--samples", "3", "--seed", "7", "--masks", "-q") == 0
    assert manifest.read_bytes() == before
    written = json.loads((data_set / "manifest_with_priors.json").read_text())
    assert isinstance(written, dict) == (form == "samples")
    rows = written["samples"] if form == "samples" else written
    for row, name in zip(rows, IDS, strict=True):
        assert row["prior_images"] == [f"priors/{name}/prior_{index:02}.png" for index in range(3)]
        assert sorted(row["prior_images"]) == row["prior_images"]
        sidecar = json.loads((data_set / "priors" / name / "priors.json").read_text())
        assert [prior["seed"] for prior in sidecar["priors"]] == [7, 8, 9]
        assert sidecar["engine_id"] == "deocc-fake@0123456789abcdef"
        assert all(0 <= prior["score"] <= 1 for prior in sidecar["priors"])
        assert sidecar["options"]["text"] == row["prior_text"]
        for prior, mask in zip(row["prior_images"], row["prior_masks"], strict=True):
            with Image.open(data_set / prior) as picture, Image.open(data_set / mask) as grey:
                assert (picture.mode, picture.size, grey.mode) == ("RGBA", SIZE, "L")
                np.testing.assert_array_equal(np.array(picture)[..., 3] > 0, np.array(grey) > 127)
                assert not np.array(picture)[np.array(grey) == 0].any()
    if form == "samples":
        assert written["version"] == 1
    assert {key: rows[0][key] for key in ("id", "gt_mesh")} == {
        "id": IDS[0],
        "gt_mesh": f"gt_assets/{0:032x}/mesh.ply",
    }


def test_a_finished_run_is_not_repeated_and_a_damaged_sample_is_made_again(
    data_set: Path, here: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = data_set / "manifest.json"
    assert run("batch", manifest, "--samples", "2", "-q") == 0
    steps = here()
    capsys.readouterr()
    assert run("batch", manifest, "--samples", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["found"] == 3
    assert here() == steps
    first = data_set / "priors" / IDS[0] / "prior_01.png"
    whole = first.read_bytes()
    first.write_bytes(whole[:50])
    assert run("batch", manifest, "--samples", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["made"] == 1
    assert first.read_bytes() == whole
    assert run("batch", manifest, "--samples", "2", "--seed", "1", "--json") == 0  # other settings: other priors
    assert json.loads(capsys.readouterr().out)["made"] == 3


KILLED = """
import importlib.util, sys
from pathlib import Path
import deocc.connection
from deocc_service.inprocess import InProcessTransport
from deocc_service.settings import Settings
from tests.service.fake_engine import FakeLoad
load = FakeLoad(Path(sys.argv[1]), 0.05)
deocc.connection.provided = lambda _: lambda engine, timeout: InProcessTransport(Settings.read({}), load, timeout)
from deocc.cli import main
main(sys.argv[2:])
"""


def test_killed_and_resumed_nothing_is_lost_or_repeated(
    data_set: Path, here: Callable[[], int], tmp_path: Path
) -> None:
    manifest = data_set / "manifest.json"
    sidecar = data_set / "priors" / IDS[0] / "priors.json"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed-steps")]
    command += ["batch", str(manifest), "--samples", "2", "--clients", "1", "-q"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    for _ in range(1200):
        if sidecar.exists():
            break
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (data_set / "manifest_with_priors.json").exists()
    finished = len(list((data_set / "priors").rglob("priors.json")))
    assert 1 <= finished < 3
    kept = sidecar.stat().st_mtime_ns
    assert run("batch", manifest, "--samples", "2", "-q") == 0
    assert sidecar.stat().st_mtime_ns == kept
    assert here() == (3 - finished) * 2 * 4  # four steps a sample
    resumed = {path.relative_to(data_set): path.read_bytes() for path in data_set.rglob("prior_*.png")}
    assert len(resumed) == 6
    assert not list(data_set.rglob("*.partial"))


def test_a_failure_leaves_no_manifest_with_holes(
    data_set: Path, here: Callable[[], int], fake_engine: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads((data_set / "manifest.json").read_text())
    entries[1]["prior_text"] = fake_engine.CRASH
    manifest = write_manifest(data_set, entries)
    assert run("batch", manifest, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["made"], list(said["failed"]), said["manifest"]) == (2, [IDS[1]], None)
    assert not (data_set / "manifest_with_priors.json").exists()
    assert run("batch", manifest, "--allow-holes", "-q") == 1
    rows = json.loads((data_set / "manifest_with_priors.json").read_text())
    assert ["prior_images" in row for row in rows] == [True, False, True]


def broken(field: str, value: Any) -> Callable[[ENTRY], None]:
    return lambda entry: entry.update({field: value})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (broken("image", "assets/nowhere.png"), "image is missing"),
        (broken("mask", "../ExtremeOcc-3D/manifest.json"), "mask leads out of the data set"),
        (broken("image", "/etc/passwd"), "image leads out of the data set"),
        (broken("gt_render_dir", "gt_assets/../.."), "gt_render_dir leads out of the data set"),
        (broken("obs_object_image", "assets/nowhere.png"), "obs_object_image is missing"),
        (broken("id", "../../escape"), "cannot be a path"),
        (broken("id", "a//b"), "cannot be a path"),
        (broken("id", "a/prior_00.png"), "cannot be a path"),
        (broken("id", 7), "the field id is missing"),
        (broken("prior_txt", "a typo"), "unknown field 'prior_txt'"),
        (broken("prior_text", ["a"]), "prior_text is not a text"),
        (broken("points", [[1, 2]]), "stands alone"),
        (lambda entry: entry.pop("mask"), "the field mask is missing"),
        (lambda entry: entry.pop("image"), "the field image is missing"),
    ],
)
def test_malformed_entries_are_named_before_any_work(
    spoil: Callable[[ENTRY], Any], reason: str, data_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads((data_set / "manifest.json").read_text())
    spoil(entries[1])
    manifest = write_manifest(data_set, entries)
    with pytest.raises(InvalidManifest) as caught:
        read_manifest(manifest)
    (problem,) = caught.value.problems
    assert reason in problem.message
    assert problem.sample == (entries[1]["id"] if isinstance(entries[1]["id"], str) else "entry 2")
    assert run("batch", manifest, "--url", "http://127.0.0.1:1") == 3  # nobody is asked
    assert reason in capsys.readouterr().err
    assert not (data_set / "priors").exists()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("rendered_scene.png", b"\x89PNG\r\n\x1a\nnothing more", "the image cannot be read"),
        ("occluded_mask.png", b"nothing", "the mask cannot be read"),
        ("occluded_mask.png", png("L", (63, 48)), "the mask is 63x48, the image 64x48"),
    ],
)
def test_unfit_pictures_are_named_before_any_work(file: str, content: bytes, reason: str, data_set: Path) -> None:
    (data_set / "assets" / IDS[2] / file).write_bytes(content)
    with pytest.raises(InvalidManifest) as caught:
        check_entries(read_manifest(data_set / "manifest.json").entries)
    (problem,) = caught.value.problems
    assert problem.sample == IDS[2]
    assert reason in problem.message


@pytest.mark.parametrize("prompt", [{"points": [[64, 3]]}, {"points": [[float("nan"), 3]]}, {"box": [5, 5, 5, 9]}])
def test_prompts_outside_the_picture_are_named_before_any_work(prompt: ENTRY, data_set: Path) -> None:
    entries = json.loads((data_set / "manifest.json").read_text())
    del entries[0]["mask"]
    entries[0] |= prompt
    with pytest.raises(InvalidManifest, match=f"{IDS[0]}: the (point|box)"):
        check_entries(read_manifest(write_manifest(data_set, entries)).entries)


def test_all_problems_are_told_at_once(data_set: Path) -> None:
    entries = json.loads((data_set / "manifest.json").read_text())
    entries[2]["id"] = entries[0]["id"]
    entries[1]["image"] = "../x.png"
    with pytest.raises(InvalidManifest) as caught:
        read_manifest(write_manifest(data_set, entries))
    assert [str(problem) for problem in caught.value.problems] == [
        f"{IDS[1]}: image leads out of the data set: ../x.png",
        f"{IDS[0]}: the id comes 2 times",
    ]
    (data_set / "manifest.json").write_text('{"id": "a"\n{"id": "b"}\n')
    with pytest.raises(InvalidManifest, match="line 1"):
        read_manifest(data_set / "manifest.json")


def test_links_lead_nowhere_else(data_set: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (data_set / "priors").mkdir()
    (data_set / "priors" / "scene_0001").symlink_to(tmp_path / "elsewhere")
    assert run("batch", data_set / "manifest.json", "--url", "http://127.0.0.1:1") == 3
    assert run("batch", data_set / "manifest.json", "--out", "../priors", "--url", "http://127.0.0.1:1") == 3
    assert not list((tmp_path / "elsewhere").iterdir())


def test_tables_of_points_and_coco_annotations(data_set: Path, here: Callable[[], int]) -> None:
    image = f"assets/{IDS[0]}/rendered_scene.png"
    with (data_set / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "points", "box", "text"])
        writer.writerow(["clicked", image, "30,20;5,5,0", "", "a cup"])
        writer.writerow(["boxed", image, "", "20,10,40,30", ""])
    assert run("batch", data_set / "list.csv", "-q") == 0
    rows = json.loads((data_set / "manifest_with_priors.json").read_text())
    assert [row["prior_images"] for row in rows] == [["priors/clicked/prior_00.png"], ["priors/boxed/prior_00.png"]]
    mask = {"size": [48, 64], "counts": [48 * 20, 48 * 10, 48 * 34]}
    annotations = [
        {"id": 5, "image_id": 1, "category_id": 2, "segmentation": [[20.0, 10.0, 40.0, 10.0, 40.0, 30.0]]},
        {"id": 6, "image_id": 1, "category_id": 2, "segmentation": mask},
    ]
    whole = {
        "images": [{"id": 1, "file_name": image, "width": 64, "height": 48}],
        "annotations": annotations,
        "categories": [{"id": 2, "name": "cup"}],
    }
    (data_set / "instances.json").write_text(json.dumps(whole))
    assert run("batch", data_set / "instances.json", "--out", "from-coco", "-q") == 0
    rows = json.loads((data_set / "manifest_with_priors.json").read_text())
    assert [(row["id"], row["prior_text"]) for row in rows] == [
        ("rendered_scene/5", "cup"),
        ("rendered_scene/6", "cup"),
    ]
    assert (data_set / rows[1]["prior_images"][0]).is_file()


def test_of_amodal_annotations_the_visible_part_is_completed(data_set: Path) -> None:
    image = {"id": 1, "file_name": f"assets/{IDS[0]}/rendered_scene.png"}
    mask = {"size": [48, 64], "counts": [48 * 20, 48 * 10, 48 * 34]}
    shape = [[20.0, 10.0, 40.0, 10.0, 40.0, 30.0]]
    named = ("visible_mask", "i_segm", "inmodal_seg", "visible_segmentation")
    rows = [{"id": n, "image_id": "1", "segmentation": shape, name: mask} for n, name in enumerate(named)]
    region = {"segmentation": shape[0], "visible_mask": mask, "invisible_mask": {"size": [48, 64], "counts": ""}}
    rows.append({"id": 9, "image_id": 1, "regions": [region]})
    path = data_set / "amodal.json"
    path.write_text(json.dumps({"images": [image], "annotations": rows, "categories": None}))
    entries = read_manifest(path).entries
    assert [entry.mask for entry in entries] == [mask] * 5
    assert entries[4].id == "rendered_scene/9-0"
    rows[0] = {"id": 0, "image_id": 1, "segmentation": shape, "invisible_mask": mask}
    rows[4]["regions"] = ["a region"]
    path.write_text(json.dumps({"images": [image], "annotations": rows}))
    with pytest.raises(InvalidManifest) as caught:
        read_manifest(path)
    assert [str(problem) for problem in caught.value.problems] == [
        "rendered_scene/0: it says what is hidden, but not what is visible",
        "rendered_scene/9-0: it is not an object",
    ]


def test_a_full_service_is_waited_for(script: Script, grpc_target: str, data_set: Path) -> None:
    from deocc.v1 import deocclusion_pb2 as v1

    manifest = write_manifest(data_set, json.loads((data_set / "manifest.json").read_text())[:1])
    limits = v1.Limits(max_bytes=10**6, max_pixels=10**6, max_points=9, max_samples=1, max_steps=9)
    limits.max_text_characters = 99
    script.outcomes.append(
        v1.ListEnginesResponse(engines=[v1.Engine(engine_id="fake@1", is_default=True, limits=limits)])
    )
    script.outcomes.append(completion(seed=0))
    script.outcomes.extend([Overloaded("full", retry_after=0.05), Overloaded("full", retry_after=0.05)])
    script.outcomes.append(completion(seed=1))  # one sample a request is this service's limit
    assert run("batch", manifest, "--samples", "2", "--grpc", grpc_target, "-q") == 0
    assert [request.options.seed for request in script.requests[1:]] == [0, 1, 1, 1]
    assert {request.options.priority for request in script.requests[1:]} == {v1.PRIORITY_LOW}  # nobody waits
    assert json.loads((data_set / "manifest_with_priors.json").read_text())[0]["prior_images"]


def test_over_the_services_limits_nothing_is_started(
    script: Script, grpc_target: str, data_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from deocc.v1 import deocclusion_pb2 as v1

    limits = v1.Limits(max_bytes=10**6, max_pixels=10**6, max_points=9, max_samples=1, max_steps=9)
    limits.max_text_characters = 3
    script.outcomes.append(
        v1.ListEnginesResponse(engines=[v1.Engine(engine_id="fake@1", is_default=True, limits=limits)])
    )
    assert run("batch", data_set / "manifest.json", "--grpc", grpc_target) == 3
    assert f"{IDS[0]}: 8 characters of text" in capsys.readouterr().err


def test_batch_is_light() -> None:
    heavy = "{'torch', 'ray', 'openvino', 'scipy', 'cv2', 'deocc_engines', 'deocc_service', 'deocc_training'}"
    code = f"import deocc.batch, deocc.exports, deocc.cli, sys; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
