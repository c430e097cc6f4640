"""From scenes to a bundle that loads: every training takes a few real steps, at deocc-mini's real sizes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from deocc_engines.bundle import Bundle
from deocc_engines.components import load_networks
from deocc_training import autoencoder, latents, mask_decoder, pack, segmenter, unet
from deocc_training.scenes import Library, build

SCENES = 16


def write_words(folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file({"table": torch.randn(unet.TEXT.vocabulary, unet.TEXT.table_width)}, folder / "table.safetensors")
    Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork:DeprecationWarning")
def test_trainings_end_in_a_bundle(library: Library, tmp_path: Path) -> None:
    train, test, runs = tmp_path / "train", tmp_path / "test", tmp_path / "runs"
    for path, split in ((train, "train"), (test, "test")):
        build(path, split, SCENES, seed=1, workers=1, library=library)
    words = write_words(runs / "words")
    few = {"steps": 2, "batch": 2, "threads": 2}
    autoencoder.main(train, test, runs / "autoencoder", **few)
    autoencoder.main(train, test, runs / "autoencoder-decoder", **few, decoder_of=runs / "autoencoder")
    mask_decoder.main(train, test, runs / "autoencoder", runs / "mask-decoder", **few)
    latents.main(train, test, runs / "autoencoder", runs / "latents")
    unet.main(runs / "latents", runs / "autoencoder", words, runs / "unet", **few)
    mask_decoder.main(
        train, test, runs / "autoencoder", runs / "mask-decoder-predicted",
        start=runs / "mask-decoder", denoiser=runs / "unet", words=words, **few,
    )  # fmt: skip
    segmenter.main(train, test, runs / "segmenter", **few)

    vae, fine = (autoencoder.pretrained(runs / name) for name in ("autoencoder", "autoencoder-decoder"))
    picture = torch.rand(1, 3, autoencoder.SIZE, autoencoder.SIZE)
    assert torch.equal(vae.encode(picture), fine.encode(picture))  # so the latents of the denoiser stay good
    pack.main(runs, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    bundle.check()
    assert load_networks(bundle).unet.config == unet.MINI
    shutil.rmtree(runs)
