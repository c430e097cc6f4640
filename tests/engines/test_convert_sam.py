"""SAM's weights in both layouts, and what is refused in pickles."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import SamConfig as TransformersConfig
from transformers import SamModel

from benchmarks.published import SMALL, random_sam
from deocc_engines.bundle import Bundle
from deocc_engines.components import load_networks
from deocc_engines.convert.assembly import convert_files
from deocc_engines.convert.checkpoint import open_checkpoint
from deocc_engines.convert.published import PublishedSam
from deocc_engines.convert.recipe import ConvertOptions, recipe_of
from deocc_engines.errors import InvalidBundle
from deocc_engines.networks.sam import Sam

SIZES = SMALL.sam


def converted(file: Path, out: Path, donor: Bundle) -> Bundle:
    """With the tiny bundle's completer."""
    options = ConvertOptions(completer=str(donor.path), dtype="float32", out=out)
    recipe = recipe_of("sam-vit-b", options)
    assert isinstance(recipe.segmenter, PublishedSam)
    recipe = dataclasses.replace(recipe, segmenter=dataclasses.replace(recipe.segmenter, config=SIZES))
    return convert_files(recipe, [file], options, accept=lambda terms: True, say=lambda words: None)


def random_sam_model() -> SamModel:
    """transformers' SAM with every weight drawn, so that no two can be mistaken for each other."""
    width = SIZES.prompt_width
    model = SamModel(
        TransformersConfig(
            vision_config={
                "hidden_size": SIZES.width,
                "output_channels": width,
                "num_hidden_layers": SIZES.depth,
                "num_attention_heads": SIZES.heads,
                "image_size": SIZES.image_size,
                "patch_size": SIZES.patch,
                "window_size": SIZES.window,
                "global_attn_indexes": list(SIZES.global_attention),
                "num_pos_feats": width // 2,
            },
            prompt_encoder_config={
                "hidden_size": width,
                "image_size": SIZES.image_size,
                "patch_size": SIZES.patch,
            },
            mask_decoder_config={"hidden_size": width, "mlp_dim": SIZES.decoder_mlp},
        )
    )
    for parameter in model.parameters():
        parameter.data.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(0)
    return random_sam(SMALL)


@pytest.fixture
def pth(sam: Sam, tmp_path: Path) -> Path:
    torch.save(sam.state_dict(), tmp_path / "sam_vit_b.pth")
    return tmp_path / "sam_vit_b.pth"


def test_segment_anythings_own_layout(sam: Sam, pth: Path, tmp_path: Path, bundle: Bundle) -> None:
    made = converted(pth, tmp_path / "made", bundle)
    ours = load_networks(made)
    for name, value in sam.state_dict().items():
        assert torch.equal(ours.sam.state_dict()[name], value)
    assert (made.name, made.manifest["licence"], made.manifest["commercial_use"]) == (
        "tiny+sam-vit-b",
        "Apache-2.0",
        True,
    )
    assert made.manifest["presets"] == bundle.manifest["presets"]
    for entry, part in zip(made.manifest["sources"], ("completer", "segmenter"), strict=True):
        assert entry["part"] == part
    unet = load_networks(bundle).unet.state_dict()
    assert all(torch.equal(value, unet[name]) for name, value in ours.unet.state_dict().items())


def test_transformers_layout(tmp_path: Path, bundle: Bundle) -> None:
    torch.manual_seed(0)
    theirs = random_sam_model()
    theirs.save_pretrained(tmp_path / "sam-vit-base")
    ours = load_networks(converted(tmp_path / "sam-vit-base", tmp_path / "made", bundle)).sam
    size = SIZES.image_size
    pixels, low = torch.randn(1, 3, size, size), torch.randn(1, 1, size // 4, size // 4)
    points, labels = torch.tensor([[[10.0, 20.0], [100.0, 80.0]]]), torch.tensor([[1, 0]])
    with torch.no_grad():
        embedding = ours.encode(pixels)
        torch.testing.assert_close(embedding, theirs.get_image_embeddings(pixels), rtol=1e-3, atol=1e-4)
        for given in (None, low):
            expected = theirs(
                image_embeddings=embedding,
                input_points=points[:, None],
                input_labels=labels[:, None],
                input_masks=given,
                multimask_output=True,
            )
            masks, scores = ours.decode(
                embedding,
                torch.cat([points, torch.zeros(1, 1, 2)], dim=1),
                torch.cat([labels, torch.tensor([[-1]])], dim=1).float(),
                low,
                torch.tensor([0.0 if given is None else 1.0]),
            )
            torch.testing.assert_close(masks[:, 1:], expected.pred_masks[:, 0], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(scores[:, 1:], expected.iou_scores[:, 0], rtol=1e-3, atol=1e-3)


def test_either_name_of_the_shared_tensor_will_do(tmp_path: Path, bundle: Bundle) -> None:
    theirs = random_sam_model()
    theirs.save_pretrained(tmp_path / "sam")
    weights = load_file(tmp_path / "sam/model.safetensors")
    shared = weights.pop("shared_image_embedding.positional_embedding")
    save_file(
        {**weights, "prompt_encoder.shared_embedding.positional_embedding": shared}, tmp_path / "other.safetensors"
    )
    made = load_networks(converted(tmp_path / "other.safetensors", tmp_path / "made", bundle)).sam
    assert torch.equal(made.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix, shared)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("mask_decoder.iou_token.weight"), "missing: mask_decoder.iou_token.weight"),
        (
            lambda s: s.update({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 32)}),
            "reshaped: image_encoder.pos_embed has shape [1, 64, 64, 32], not [1, 8, 8, 32]",
        ),
        (lambda s: s.update({"image_encoder.more": torch.zeros(1)}), "unexpected: image_encoder.more"),
    ],
)
def test_wrong_tensors_are_named(
    sam: Sam, tmp_path: Path, bundle: Bundle, change: Callable[[dict[str, Tensor]], object], named: str
) -> None:
    state = dict(sam.state_dict())
    change(state)
    torch.save(state, tmp_path / "sam.pth")
    with pytest.raises(InvalidBundle) as caught:
        converted(tmp_path / "sam.pth", tmp_path / "made", bundle)
    assert named in caught.value.message


def test_a_tensor_cut_short_is_named(pth: Path, tmp_path: Path, sam: Sam) -> None:
    """The archive is whole, one record of it is not: torch itself would map the bytes of the next one."""
    with zipfile.ZipFile(pth) as whole, zipfile.ZipFile(tmp_path / "short.pth", "w") as short:
        for record in whole.infolist():
            content = whole.read(record)
            short.writestr(record.filename, content[: len(content) // 2] if "/data/0" in record.filename else content)
    with pytest.raises(InvalidBundle, match=f"{next(iter(sam.state_dict()))} is truncated"):
        open_checkpoint(tmp_path / "short.pth")


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch ran",))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": Code()}
    torch.save(content, tmp_path / "bad.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InvalidBundle, match="refused"):
        open_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


def test_what_lightning_leaves_beside_the_weights_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OmegaConf's objects are pickled as these are; the package is not there when they are read."""
    package = ModuleType("omegaconf")
    made: list[str] = []

    class DictConfig:
        def __init__(self) -> None:
            made.append("at the writer's")
            self.content = {"lr": 1e-4}
            self.cache = defaultdict(dict, {"a": {}})
            self.kind: Any = dict

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf", "DictConfig"
    package.DictConfig = DictConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", package)
    content = {"state_dict": {"a": torch.arange(3.0)}, "hyper_parameters": DictConfig(), "dir": Path("x")}
    torch.save(content, tmp_path / "l.ckpt")
    monkeypatch.delitem(sys.modules, "omegaconf")
    assert open_checkpoint(tmp_path / "l.ckpt")["a"].read().tolist() == [0, 1, 2]
    assert made == ["at the writer's"]


def test_the_older_container_of_torch_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert open_checkpoint(tmp_path / "old.pth")["a"].read().tolist() == [0, 1, 2]
    shutil.copy(tmp_path / "old.pth", tmp_path / "cut.pth")
    os.truncate(tmp_path / "cut.pth", 60)
    with pytest.raises(InvalidBundle, match=r"cut\.pth"):
        open_checkpoint(tmp_path / "cut.pth")
