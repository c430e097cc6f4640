"""`deocc eval` through its command, with a fake engine behind the real client, hosts and core."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from deocc.cli import main
from deocc_service.inprocess import InProcessTransport
from deocc_service.local import LocalHost
from deocc_service.settings import Settings
from tests.service.fake_engine import CRASH, FakeLoad
from tests.training.evaluation_sets import HEIGHT, WIDTH, decoded, drawn, write_cocoa, write_folder

ROOT = Path(__file__).parents[2]
Report = dict[str, Any]
Evaluate = Callable[..., Report]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """`evaluate(dataset, …, to="a")`: the report of a run that ends well, in process unless told otherwise."""
    load = FakeLoad(tmp_path / "steps")
    settings = Settings.read({})
    monkeypatch.delenv("DEOCC_URL", raising=False)
    monkeypatch.setattr(
        "deocc.connection.provided", lambda _: lambda engine, timeout: InProcessTransport(settings, load, timeout)
    )

    def evaluate(dataset: Path, *options: str | Path, to: str = "report", status: int = 0) -> Report:
        given = options if "--samples" in options else (*options, "--samples", "2")
        assert run("eval", dataset, "-o", tmp_path / to, "--resamples", "50", "-q", *given) == status
        report: Report = json.loads((tmp_path / to / "report.json").read_text())
        return report

    return evaluate


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHost]:
    load = FakeLoad(tmp_path_factory.mktemp("host") / "steps")
    settings = Settings.read({}, http_port=0, grpc_port=0, metrics_port=0, drain_seconds=1)
    ready, hosts = threading.Event(), []
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with LocalHost(settings, load) as running:
            hosts.append(running)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    yield hosts[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def stable(report: Report) -> Report:
    return {key: value for key, value in report.items() if key != "run"}


def test_baselines_equal_a_computation_of_a_few_lines(evaluate: Evaluate, tmp_path: Path) -> None:
    path = write_cocoa(tmp_path / "cocoa")
    report = evaluate(path)

    found: dict[str, list[tuple[int, int, bool]]] = {"modal mask": [], "convex hull": [], "clipped hull": []}
    for annotation in json.loads(path.read_text())["annotations"]:
        nearer = np.zeros((HEIGHT, WIDTH), bool)
        for region in annotation["regions"]:
            truth = drawn(region["segmentation"])
            seen = decoded(region["visible_mask"]) if "visible_mask" in region else truth
            hull = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.fillConvexPoly(hull, cv2.convexHull(np.argwhere(seen)[:, ::-1].astype(np.int32)), 1)
            answers = {"modal mask": seen, "convex hull": hull > 0, "clipped hull": (hull > 0) & (seen | nearer)}
            for name, mask in answers.items():
                found[name].append((int((mask & truth).sum()), int((mask | truth).sum()), "visible_mask" in region))
            nearer |= seen
    for name, counts in found.items():
        for group, chosen in (("all", counts), ("occluded", [count for count in counts if count[2]])):
            row = report["masks"][group][name]
            assert row["miou"]["examples"] == len(chosen)
            assert row["miou"]["value"] == pytest.approx(np.mean([i / u for i, u, _ in chosen]), abs=1e-6)
            pooled = sum(i for i, _, _ in chosen) / sum(u for _, u, _ in chosen)
            assert row["miou_pooled"]["value"] == pytest.approx(pooled, abs=1e-6)
    assert set(report["masks"]) >= {"all", "occluded", "not occluded", "things", "stuff", "10-50 %"}
    assert report["masks"]["all"]["modal mask"]["miou"]["low"] < report["masks"]["all"]["modal mask"]["miou"]["high"]
    assert report["order"]["first choice"]["accuracy"]["examples"] == 9


def test_in_process_over_http_and_over_grpc_the_numbers_are_the_same(
    evaluate: Evaluate, host: LocalHost, tmp_path: Path
) -> None:
    path = write_cocoa(tmp_path / "cocoa")
    options = ("--samples", "9", "--text", "name", "--seed", str(2**32 - 2))  # over the limit of one request
    here = evaluate(path, *options, to="here")
    over_http = evaluate(path, *options, "--url", f"http://127.0.0.1:{host.http_port}", to="http")
    over_grpc = evaluate(path, *options, "--grpc", f"127.0.0.1:{host.grpc_port}", "--clients", "3", to="grpc")
    assert stable(here) == stable(over_http) == stable(over_grpc)
    assert {"best of 1 (oracle)", "best of 8 (oracle)", "best of 9 (oracle)"} < set(here["masks"]["all"])
    best = [here["masks"]["all"][f"best of {k} (oracle)"]["miou"]["value"] for k in (1, 2, 4, 8, 9)]
    assert best == sorted(best)


KILLED = """
import sys
from pathlib import Path
import deocc.connection
from deocc_service.inprocess import InProcessTransport
from deocc_service.settings import Settings
from tests.service.fake_engine import FakeLoad
load = FakeLoad(Path(sys.argv[1]), float(sys.argv[2]))
deocc.connection.provided = lambda _: lambda engine, timeout: InProcessTransport(Settings.read({}), load, timeout)
from deocc.cli import main
main(sys.argv[3:])
"""


def test_killed_at_half_it_goes_on_to_the_same_report(evaluate: Evaluate, tmp_path: Path) -> None:
    path = write_cocoa(tmp_path / "cocoa", images=4)
    straight_through = evaluate(path, to="straight")
    steps, out = tmp_path / "killed-steps", tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(steps), "0.05", "eval", str(path), "-o", str(out)]
    command += ["--resamples", "50", "--samples", "2", "--clients", "1", "-q"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    results = out / "results.jsonl"
    for _ in range(1200):
        if results.exists() and results.read_bytes().count(b"\n") >= 6:
            break
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = results.read_bytes().count(b"\n")
    assert 6 <= done < 12
    with results.open("ab") as file:
        file.write(b'{"index": 11, "ke')  # as a kill in the middle of a line leaves it
    resumed = evaluate(path, to="killed")
    assert stable(resumed) == stable(straight_through)
    # Four steps a sample: the first run's dozen, and then only what the killed one lacked.
    assert (tmp_path / "steps").stat().st_size == 12 * 8 + (12 - done) * 8
    assert run("eval", path, "-o", out, "--samples", "3", "-q") == 3  # a folder belongs to one plan


def test_failures_count_and_what_cannot_be_asked_is_named(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_cocoa(tmp_path / "cocoa", images=2)
    whole = json.loads(path.read_text())
    whole["annotations"][0]["regions"][1]["name"] = CRASH
    whole["images"].append({"id": 7, "file_name": "nowhere.jpg", "width": WIDTH, "height": HEIGHT})
    whole["annotations"].append({**whole["annotations"][0], "id": 107, "image_id": 7})
    path.write_text(json.dumps(whole))
    report = evaluate(path, "--text", "name", status=1)  # a failure of the engine is worth another try
    (failure,) = report["failures"]
    assert failure["key"].endswith("/100-1")
    assert "ServerError" in failure["failure"]
    assert len(report["rows"]) == 6
    (row,) = [row for row in report["rows"] if row["key"] == failure["key"]]
    assert row["answers"] == []
    assert set(report["left_out"]) == {f"nowhere/107-{index}" for index in range(3)}
    without = [row for row in report["rows"] if row["failure"] is None]
    mean = sum(r["answers"][r["first"]]["intersection"] / r["answers"][r["first"]]["union"] for r in without) / 6
    assert report["masks"]["all"]["first choice"]["miou"]["value"] == pytest.approx(mean, abs=1e-6)  # it counts as zero
    monkeypatch.setattr("tests.service.fake_engine.CRASH", "")
    mended = evaluate(path, "--text", "name")
    assert mended["failures"] == []


def test_a_click_by_rule_measures_segmenter_and_completer_together(evaluate: Evaluate, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "plain")
    masks = evaluate(path, to="masks")
    clicks = evaluate(path, "--prompt", "point", "--local-strength", "0", "--steps", "2", to="clicks")
    assert masks["service"]["modal_iou"]["value"] == 1
    assert 0 < clicks["service"]["modal_iou"]["value"] < 1  # the fake segmenter finds a square
    assert clicks["provenance"]["settings"]["local_strength"] == 0
    assert clicks["appearance"]["inpaint (oracle shape)"]["psnr"]["value"] > 5
    assert clicks["appearance"] != masks["appearance"]
    assert clicks["appearance"]["inpaint (oracle shape)"] == masks["appearance"]["inpaint (oracle shape)"]
    assert not masks["distribution"]["is_fid"]
    assert "FID" not in json.dumps(masks["distribution"]["names"])


def test_weights_of_the_users_own_need_no_new_run(evaluate: Evaluate, tmp_path: Path) -> None:
    class Features(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    class Distance(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).abs().mean((1, 2, 3))

    picture = torch.zeros(1, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript
        torch.jit.trace(Features(), (picture,)).save(str(tmp_path / "inception.pt"))
        torch.jit.trace(Distance(), (picture, picture)).save(str(tmp_path / "lpips.pt"))
    path = write_folder(tmp_path / "plain", count=3)
    for number in range(3):  # and some that are whole, to compare with
        example = tmp_path / "plain" / f"whole-{number}"
        shutil.copytree(tmp_path / "plain" / f"example-{number}", example)
        shutil.copyfile(example / "modal.png", example / "amodal.png")
        (example / "rgba.png").unlink()
    without = evaluate(path)
    asked = (tmp_path / "steps").stat().st_size
    found = evaluate(path, "--features", tmp_path / "inception.pt", "--lpips", tmp_path / "lpips.pt")
    assert (tmp_path / "steps").stat().st_size == asked
    assert found["rows"] == without["rows"]
    assert found["distribution"]["names"] == {"frechet": "FID", "kernel": "KID"}
    assert found["distribution"]["network"]["name"] == "inception.pt"
    assert all(one["frechet"] > 0 for one in found["distribution"]["distances"].values())
    assert found["lpips"]["lpips"]["first choice"]["examples"] == 3
    assert ">FID<" in (tmp_path / "report" / "report.html").read_text()


def test_the_page_needs_nothing_but_itself(evaluate: Evaluate, tmp_path: Path) -> None:
    report = evaluate(write_cocoa(tmp_path / "cocoa"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert page.count("data:image/jpeg;base64,") == 9 + 6
    assert "not measured here" in page
    assert page.count("published, best of 8") == 2 * 7
    assert page.count("measured, this report") == 2
    assert page.count("<h3>") == len(report["masks"])
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page
    for outside in ('src="http', 'href="http', "@import", "<script", "url(http"):
        assert outside not in page


def test_two_reports_are_compared_on_the_images_that_both_saw(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_cocoa(tmp_path / "cocoa", images=6)
    evaluate(path, to="a")
    evaluate(path, "--prompt", "point", to="b")
    a, b = tmp_path / "a" / "report.json", tmp_path / "b" / "report.json"
    capsys.readouterr()
    assert run("eval", "compare", a, b, "--json", "-o", tmp_path / "comparison.json") == 0
    found = json.loads(capsys.readouterr().out)
    miou = next(one for one in found["results"] if (one["group"], one["metric"]) == ("all", "miou"))
    assert found["settings"] == {"prompt": ["mask", "point"]}
    assert miou["images"] == 6
    assert miou["low"] <= miou["difference"] <= miou["high"] < 0
    assert 0 < miou["p"] <= miou["p_holm"]
    assert run("eval", "compare", a, a, "--json") == 0
    same = json.loads(capsys.readouterr().out)
    assert {one["difference"] for one in same["results"]} == {0}
    assert {one["p"] for one in same["results"]} == {None}
    assert run("eval", "compare", a, path) == 3
