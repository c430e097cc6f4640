"""`deocc engines pull` and `convert`: hub, licences, where bundles lie. The hub is a folder; nothing is downloaded."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import filter_repo_objects

from benchmarks import published as layouts
from benchmarks.published import SMALL
from deocc.cli import main
from deocc_engines import bundle as bundles
from deocc_engines.bundle import Bundle
from deocc_engines.convert import published
from tests.tiny import tiny_mask_refiner, tiny_refiner, write_tiny_bundle

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ANYTHING, BASE, SAM = "cloudyfall/DeoccAnything", "sd2-community/stable-diffusion-2-inpainting", "facebook/sam-vit-base"


@dataclasses.dataclass
class Hub:
    """Repositories as folders; what is asked for of one is copied into a snapshot of its own."""

    folder: Path
    cache: Path
    asked: list[tuple[str, str | None]] = dataclasses.field(default_factory=list)

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((repo_id, revision))
        response: Any = None
        if not (self.folder / repo_id).is_dir():
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError, response)
        if revision not in (None, "main", COMMIT):
            raise RevisionNotFoundError.__new__(RevisionNotFoundError, response)
        snapshot = self.cache / repo_id / COMMIT
        names = [f.relative_to(self.folder / repo_id) for f in (self.folder / repo_id).rglob("*") if f.is_file()]
        for name in filter_repo_objects([n.as_posix() for n in names], allow_patterns=allow_patterns):
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / repo_id / name, snapshot / name)
        return str(snapshot)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As they are on the hub, with files that nobody needs."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub")
    vae = layouts.random_vae(SMALL)
    layouts.write_base(folder / BASE, SMALL, layouts.random_text(SMALL), vae)
    vae.half().save_pretrained(folder / BASE / "vae", variant="fp16")
    (folder / BASE / "512-inpainting-ema.ckpt").write_bytes(b"5 GB")
    (folder / BASE / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"3 GB")
    (folder / ANYTHING).mkdir(parents=True)
    layouts.write_checkpoint(folder / ANYTHING / "f.ckpt", layouts.random_unet(SMALL))
    layouts.write_checkpoint(folder / ANYTHING / "m.ckpt", layouts.random_mask_decoder(SMALL))
    from safetensors.torch import save_file

    (folder / SAM).mkdir(parents=True)
    sam = {name: value.contiguous() for name, value in layouts.random_sam(SMALL).state_dict().items()}
    save_file(sam, folder / SAM / "model.safetensors")
    return folder


@pytest.fixture
def hub(repositories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(repositories, tmp_path / "hub-cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    monkeypatch.setenv("DEOCC_CACHE", str(tmp_path / "cache"))
    small = dataclasses.replace(published.SEGMENTERS["sam-vit-b"], config=SMALL.sam)
    monkeypatch.setitem(published.SEGMENTERS, "sam-vit-b", small)
    return found


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["engines", *map(str, arguments)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_pull_gives_an_engine_that_is_found_by_its_name(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pull", "deocc-anything", "--revision", COMMIT, "--accept-licence", "--json") == 0
    said, words = capsys.readouterr()
    assert hub.asked[0] == (ANYTHING, COMMIT)
    assert "not for commercial use" in words
    assert (json.loads(said)["name"], json.loads(said)["commercial_use"]) == ("deocc-anything", False)
    found = bundles.find("deocc-anything")
    assert found.path == tmp_path / "cache/engines/deocc-anything"
    assert found.engine_id in [info.engine_id for info in bundles.available()]
    sources = found.manifest["sources"]
    assert [(entry["repository"], entry["revision"]) for entry in sources] == [
        (ANYTHING, COMMIT),
        (BASE, COMMIT),
        (SAM, COMMIT),
    ]
    assert all(len(entry["licence_accepted"]) == len("2026-01-31") for entry in sources)
    read = [file["name"] for entry in sources for file in entry["files"]]
    assert {"f.ckpt", "m.ckpt", "vae/diffusion_pytorch_model.fp16.safetensors"} <= set(read)
    fetched = [file.name for file in hub.cache.rglob("*.*")]
    assert "512-inpainting-ema.ckpt" not in fetched
    assert run("list", "--json") == 0
    assert "deocc-anything" in [engine["name"] for engine in json.loads(capsys.readouterr().out)]
    bundles.verify("deocc-anything")
    assert run("pull", "deocc-anything", "--accept-licence") == 3  # it is there
    assert "--replace" in capsys.readouterr().err


def test_nothing_is_fetched_before_the_licence_is_accepted(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pull", "deocc-anything") == 3
    words = capsys.readouterr().err
    for said in ("CC-BY-NC-SA-4.0", "CreativeML-OpenRAIL++-M", "Apache-2.0", "--accept-licence"):
        assert said in words
    assert not hub.asked


def test_a_terminal_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", lambda words, err: False)
    assert run("pull", "sam-vit-b") == 3
    assert not hub.asked


def test_a_sam_comes_with_a_bundles_completer(hub: Hub, tmp_path: Path) -> None:
    tiny = write_tiny_bundle(tmp_path / "tiny", tiny_refiner(), tiny_mask_refiner())
    assert run("pull", "sam-vit-b", "--completer", tiny.path, "--accept-licence") == 0
    made = bundles.find("tiny+sam-vit-b")
    assert (made.holds("refiner"), made.holds("mask_refiner")) == (True, False)  # each belongs to one part
    assert [entry["part"] for entry in made.manifest["sources"]] == ["completer", "segmenter"]
    assert made.manifest["sources"][0]["bundle"] == tiny.engine_id
    # and gives its segmenter to others, without a hub and without asking again
    out = tmp_path / "whole"
    files = ["--from", hub.folder / BASE, "--from", hub.folder / ANYTHING]
    wanted = ["--segmenter", "tiny+sam-vit-b", "--accept-licence", "--out", out]
    assert run("convert", "deocc-anything", *files, *wanted) == 0
    whole = Bundle.open(out)
    assert whole.manifest["sources"][2] == made.manifest["sources"][1]
    assert whole.manifest["licence"] == "CC-BY-NC-SA-4.0 AND CreativeML-OpenRAIL++-M AND Apache-2.0"
    assert len(hub.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["pull", "sam-vit-x"], 4, "deocc-anything, sam-vit-b"),
        (["pull", "sam-vit-b", "--revision", "nowhere"], 4, "no revision 'nowhere'"),
        (["pull", "sam-vit-l"], 4, "facebook/sam-vit-large is not on the hub"),
        (["pull", "sam-vit-b", "--revision", "someone/else=main"], 3, "someone/else is not fetched"),
        (["pull", "sam-vit-b", "--segmenter", "sam-vit-h"], 3, "is a segmenter itself"),
        (["pull", "sam-vit-b", "--dtype", "int8"], 3, "float16, float32"),
        (["convert", "sam-vit-b", "--from", "nowhere.pth"], 4, "there is no nowhere.pth"),
        (["convert", "sam-vit-b", "--from", __file__], 3, "no weights of SAM"),
        (["convert", "deocc-anything", "--from", __file__], 3, "no base in diffusers' layout"),
    ],
)
def test_what_cannot_be_is_said(
    hub: Hub, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    assert run(*arguments, "--accept-licence") == status
    assert words in capsys.readouterr().err


def test_offline_with_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface-hub's own offline mode, not the fake."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("DEOCC_CACHE", str(tmp_path / "cache"))
    assert run("pull", "sam-vit-b", "--accept-licence") == 5
