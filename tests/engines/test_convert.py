"""DeoccAnything in its published layouts: what comes out of the bundle is what the source modules say."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTokenizerFast

from benchmarks import published as layouts
from benchmarks.published import SMALL
from deocc_engines.batcher import StepBatcher
from deocc_engines.bundle import Bundle
from deocc_engines.completion import CompletionOptions
from deocc_engines.components import Networks, load_networks
from deocc_engines.convert.assembly import convert_files
from deocc_engines.convert.base import schedule_of
from deocc_engines.convert.recipe import SCHEDULERS, ConvertOptions, recipe_of
from deocc_engines.errors import InvalidBundle
from deocc_engines.guidance import Guidance
from deocc_engines.image import Photo
from deocc_engines.loading import load_deoccluder
from deocc_engines.networks.unet import Unet
from deocc_engines.prompt import Prompt
from deocc_engines.sampler import Schedule, sample
from deocc_engines.text import Tokenizer


@dataclass(frozen=True)
class Published:
    """Files as they are published, and the modules that wrote them."""

    folder: Path
    text: Any
    vae: Any
    unet: Any
    mask_decoder: Any
    sam: Any

    @property
    def paths(self) -> list[Path]:
        return [self.folder / name for name in ("base", "unet.ckpt", "mask.ckpt", "sam.pth")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Published:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    found = Published(
        folder,
        layouts.random_text(SMALL),
        layouts.random_vae(SMALL),
        layouts.random_unet(SMALL),
        layouts.random_mask_decoder(SMALL),
        layouts.random_sam(SMALL),
    )
    layouts.write_base(folder / "base", SMALL, found.text, found.vae)
    layouts.write_checkpoint(folder / "unet.ckpt", found.unet, wrapper="unet.")
    layouts.write_checkpoint(folder / "mask.ckpt", found.mask_decoder)
    torch.save(found.sam.state_dict(), folder / "sam.pth")
    return found


def converted(paths: list[Path], out: Path, **options: Any) -> Bundle:
    chosen = ConvertOptions(out=out, **{"dtype": "float32", **options})
    recipe = recipe_of("deocc-anything", chosen)
    small = dataclasses.replace(recipe.segmenter, config=SMALL.sam)  # type: ignore[type-var]
    recipe = dataclasses.replace(recipe, segmenter=small)
    return convert_files(recipe, paths, chosen, accept=lambda terms: True, say=lambda words: None)


@pytest.fixture(scope="module")
def bundle32(originals: Published, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return converted(originals.paths, tmp_path_factory.mktemp("converted") / "bundle")


@pytest.fixture
def given(originals: Published, tmp_path: Path) -> Published:
    """A copy that may be changed."""
    shutil.copytree(originals.folder, tmp_path / "published")
    modules = {name: copy.deepcopy(getattr(originals, name)) for name in ("text", "vae", "mask_decoder")}
    return dataclasses.replace(originals, folder=tmp_path / "published", **modules)


def check_outputs(networks: Networks, source: Published) -> None:
    """Every network against the module that wrote its weights."""
    z = torch.randn(2, 4, 8, 8)
    image, ids = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randint(0, 500, (2, 12))
    t, condition, text = torch.tensor([3.0, 900.0]), torch.randn(2, 9, 8, 8), torch.randn(2, 12, 32)
    pairs: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        pairs.append((networks.text_encoder(ids), source.text(input_ids=ids).last_hidden_state))
        pairs.append((networks.vae.encode(image), source.vae.encode(image).latent_dist.mode() * 0.18215))
        pairs.append((networks.vae.decode(z), source.vae.decode(z / 0.18215).sample))
        pairs.append((networks.mask_decoder(z), source.mask_decoder.decode(z / 0.18215).sample))
        whole = torch.cat([z, condition], dim=1)
        pairs.append((networks.unet(z, t, condition, text), source.unet(whole, t, text).sample))
        pixels = torch.randn(1, 3, 128, 128)
        pairs.append((networks.sam.encode(pixels), source.sam.encode(pixels)))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)


def test_outputs_are_the_source_modules(originals: Published, bundle32: Bundle) -> None:
    check_outputs(load_networks(bundle32), originals)
    manifest = bundle32.manifest
    assert (manifest["window"], manifest["global_margin"], manifest["mask_resize"]) == (64, None, "nearest")
    assert next(iter(bundle32.presets().values())).steps == 25
    assert (manifest["licence"], manifest["commercial_use"]) == (
        "CC-BY-NC-SA-4.0 AND CreativeML-OpenRAIL++-M AND Apache-2.0",
        False,
    )
    read = {entry["licence"]: [file["name"] for file in entry["files"]] for entry in manifest["sources"]}
    assert read["CC-BY-NC-SA-4.0"] == ["unet.ckpt", "mask.ckpt"]
    assert "vae/diffusion_pytorch_model.safetensors" in read["CreativeML-OpenRAIL++-M"]
    assert "Not for commercial use" in (bundle32.path / "README.md").read_text()


def rename_attention(folder: Path, source: Published) -> None:
    """As diffusers spelled it when Stable Diffusion 2 was published."""
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for file in (folder / "base/vae").glob("*.safetensors"):
        weights = load_file(file)
        for new, old in older.items():
            weights = {name.replace(f".{new}.", f".{old}."): value for name, value in weights.items()}
        save_file(weights, file)


def shard(folder: Path, source: Published) -> None:
    shutil.rmtree(folder / "base")
    layouts.write_base(folder / "base", SMALL, source.text, source.vae, max_shard_size="100KB")
    assert len(list((folder / "base/vae").glob("*-of-*"))) > 1


def halve(folder: Path, source: Published) -> None:
    """Only the variant fp16, with the values that it can hold."""
    shutil.rmtree(folder / "base")
    for module in (source.text, source.vae):
        for parameter in module.parameters():
            parameter.data = parameter.data.half().float()
    layouts.write_base(folder / "base", SMALL, source.text, source.vae, variant="fp16")


def wrap(folder: Path, source: Published) -> None:
    layouts.write_checkpoint(folder / "unet.ckpt", source.unet, wrapper="module.model.unet.")
    layouts.write_checkpoint(folder / "mask.ckpt", source.mask_decoder, wrapper="vae.")


def bare_decoder(folder: Path, source: Published) -> None:
    """The decoder alone: its frozen first convolution is the base's."""
    source.mask_decoder.post_quant_conv.load_state_dict(source.vae.post_quant_conv.state_dict())
    layouts.write_checkpoint(folder / "mask.ckpt", source.mask_decoder.decoder)


@pytest.mark.parametrize("changes", [(shard, rename_attention, wrap), (halve, bare_decoder)])
def test_other_layouts(
    given: Published, tmp_path: Path, changes: tuple[Callable[[Path, Published], None], ...]
) -> None:
    for change in changes:
        change(given.folder, given)
    check_outputs(load_networks(converted(given.paths, tmp_path / "bundle")), given)


def test_prompts_become_the_tokens_of_the_source(originals: Published, bundle32: Bundle) -> None:
    ours = Tokenizer.open(bundle32.path / "tokenizer/tokenizer.json", SMALL.text.length)
    theirs = CLIPTokenizerFast.from_pretrained(originals.folder / "base/tokenizer")
    for prompt in ("", "Red!", "red  red", "a red ball in a long prompt that is cut"):
        expected = theirs(prompt, padding="max_length", truncation=True, max_length=SMALL.text.length)["input_ids"]
        assert ours(prompt).tolist() == expected
    assert ours("")[2:].tolist() == [0] * 10  # "!", not the end token


# diffusers hands a tensor to numpy in a way that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("scheduler", "theirs"),
    [("ddim", DDIMScheduler), ("dpm++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)],
)
def test_schedules_are_those_of_diffusers(originals: Published, scheduler: str, theirs: Any) -> None:
    """Two-scale guidance in one batched call, against a loop over diffusers' scheduler and UNet with three calls."""
    schedule = schedule_of(originals.folder / "base", SCHEDULERS[scheduler])
    unet = Unet(SMALL.unet).eval()
    unet.network.load_state_dict(originals.unet.state_dict())
    noise, condition = torch.randn(1, 4, 8, 8), torch.randn(1, 9, 8, 8)
    text, no_text = torch.randn(1, 12, 32), torch.randn(1, 12, 32)
    with torch.no_grad():
        run = sample(
            Schedule(schedule["name"], schedule["config"]),
            6,
            noise,
            condition,
            text,
            guidance=Guidance(image=2.0, text=3.0),
            no_text=no_text,
            on_step=lambda done, planned, estimate: None,
        )
        (ours,) = StepBatcher(unet).run([run], 18, stop=lambda: None)
        solver = theirs.from_config(json.loads((originals.folder / "base/scheduler/scheduler_config.json").read_text()))
        solver.set_timesteps(6)
        z = noise * solver.init_noise_sigma

        def eps(c: Tensor, y: Tensor) -> Tensor:
            said: Tensor = originals.unet(torch.cat([z, c], dim=1), t, y).sample
            return said

        for t in solver.timesteps:
            nothing = eps(torch.zeros_like(condition), no_text)
            image, both = eps(condition, no_text), eps(condition, text)
            z = solver.step(nothing + 2.0 * (image - nothing) + 3.0 * (both - image), t, z).prev_sample
    torch.testing.assert_close(ours, z, rtol=1e-3, atol=1e-4)


def test_the_engine_completes(originals: Published, tmp_path: Path, disc: np.ndarray, photo: Photo) -> None:
    """In float16, the default, both stages of it."""
    bundle = converted(originals.paths, tmp_path / "bundle", dtype="float16")
    assert load_file(bundle.weights("unet"))["network.conv_in.weight"].dtype == torch.float16
    deoccluder, _ = load_deoccluder(str(bundle.path), runtime="torch")
    completion = deoccluder.complete(photo, Prompt(mask=disc), CompletionOptions(steps=2, text="red"))
    assert completion.samples[0].rgba().shape == (90, 120, 4)


def edit_checkpoint(file: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    content = torch.load(file, weights_only=True)
    edit(content["state_dict"])
    torch.save(content, file)


UNET = "model_ema.models.0.unet."


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda s: s.pop(f"{UNET}conv_in.bias"), "missing: unet.conv_in.bias"),
        (
            lambda s: s.update({f"{UNET}conv_in.base": s.pop(f"{UNET}conv_in.bias")}),
            "renamed: unet.conv_in.bias seems to be unet.conv_in.base",
        ),
        (
            lambda s: s.update({f"{UNET}conv_in.weight": torch.zeros(32, 9, 3, 3)}),
            "reshaped: unet.conv_in.weight has shape [32, 9, 3, 3], not [32, 13, 3, 3]",
        ),
        (lambda s: s.update({f"{UNET}more": torch.zeros(5)}), "unexpected: unet.more"),
        (lambda s: s[f"{UNET}conv_in.bias"].fill_(torch.nan), "conv_in.bias holds numbers that are not finite"),
        (lambda s: s[f"{UNET}conv_in.bias"].fill_(1e6), "conv_in.bias holds numbers too large for float16"),
        (lambda s: [s.pop(name) for name in [*s] if name.startswith(UNET)], "the UNet is not among the EMA weights"),
    ],
)
def test_wrong_tensors_are_named(
    given: Published, tmp_path: Path, edit: Callable[[dict[str, Tensor]], object], named: str
) -> None:
    edit_checkpoint(given.folder / "unet.ckpt", edit)
    with pytest.raises(InvalidBundle) as caught:
        converted(given.paths, tmp_path / "out" / "bundle", dtype="float16")
    assert named in caught.value.message
    assert not list(tmp_path.glob("out/*"))  # nothing half made stays


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: -file.stat().st_size // 3])


def change_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: cut(f / "unet.ckpt"), "unet.ckpt is truncated"),
        (lambda f: cut(f / "base/vae/diffusion_pytorch_model.safetensors"), "it ends within encoder."),
        (lambda f: (f / "base/vae/config.json").unlink(), "vae/config.json is missing"),
        (lambda f: (f / "base/tokenizer/merges.txt").unlink(), "tokenizer/merges.txt"),
        (lambda f: change_json(f / "base/unet/config.json", act_fn="gelu"), "act_fn is 'gelu'"),
        (lambda f: change_json(f / "base/unet/config.json", in_channels=4), "an inpainting model is wanted"),
        (lambda f: change_json(f / "base/text_encoder/config.json", hidden_act="quick_gelu"), "hidden_act"),
        (
            lambda f: change_json(f / "base/scheduler/scheduler_config.json", prediction_type="v_prediction"),
            "it predicts 'v_prediction'",
        ),
        (lambda f: shutil.copy(f / "unet.ckpt", f / "mask.ckpt"), "the UNet is in several checkpoints"),
    ],
)
def test_wrong_files_are_named(given: Published, tmp_path: Path, damage: Callable[[Path], object], named: str) -> None:
    damage(given.folder)
    with pytest.raises(InvalidBundle) as caught:
        converted(given.paths, tmp_path / "bundle")
    assert named in caught.value.message


def test_a_missing_shard_is_named(given: Published, tmp_path: Path) -> None:
    shard(given.folder, given)
    lost = sorted((given.folder / "base/vae").glob("*-of-*"))[0]
    lost.unlink()
    with pytest.raises(InvalidBundle, match=lost.name):
        converted(given.paths, tmp_path / "bundle")


def test_a_mask_decoder_of_three_channels_is_refused(given: Published, tmp_path: Path) -> None:
    image_decoder = layouts.random_vae(SMALL)
    assert isinstance(image_decoder.decoder.conv_out, nn.Conv2d)
    layouts.write_checkpoint(given.folder / "mask.ckpt", image_decoder)
    with pytest.raises(InvalidBundle, match=r"decoder.conv_out.weight has shape \[3, 32, 3, 3\], not \[1, 32, 3, 3\]"):
        converted(given.paths, tmp_path / "bundle")
