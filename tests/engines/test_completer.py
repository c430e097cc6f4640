"""What a completion promises, on a bundle with random weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deocc_engines.bundle import Bundle
from deocc_engines.completion import (
    Completion,
    CompletionOptions,
    Event,
    Preview,
    Progress,
    SampleReady,
    StageDone,
)
from deocc_engines.deoccluder import Deoccluder
from deocc_engines.errors import Cancelled, InvalidOption, InvalidPrompt, TooLarge
from deocc_engines.image import Photo
from deocc_engines.loading import load_deoccluder
from deocc_engines.mask import depth
from deocc_engines.networks.refiner import Refiner
from deocc_engines.prompt import Point, Prompt
from tests.tiny import tiny_mask_refiner, tiny_refiner, write_tiny_bundle


def pixels_of(completion: Completion) -> list[bytes]:
    return [sample.rgba().tobytes() for sample in completion.samples]


def test_output_has_the_photos_size_and_keeps_what_is_visible(
    deoccluder: Deoccluder, photo: Photo, disc: np.ndarray
) -> None:
    completion = deoccluder.complete(photo, Prompt(mask=disc))
    rgba = completion.samples[0].rgba()
    assert rgba.shape == (photo.height, photo.width, 4)
    inner = depth(disc) >= completion.rim
    assert inner.sum() > 500
    np.testing.assert_array_equal(rgba[inner][:, :3], photo.pixels[inner])
    assert (rgba[inner][:, 3] == 255).all()
    assert completion.samples[0].amodal_mask()[inner].all()


def test_far_outside_of_the_object_alpha_is_zero(deoccluder: Deoccluder, photo: Photo) -> None:
    corner = np.zeros((90, 120), bool)
    corner[:12, :12] = True
    sample = deoccluder.complete(photo, Prompt(mask=corner), CompletionOptions(local_strength=0.5)).samples[0]
    outside = np.ones((90, 120), bool)
    outside[sample.top : sample.top + len(sample.patch), sample.left : sample.left + sample.patch.shape[1]] = False
    assert (sample.rgba()[outside] == 0).all()


def test_same_seed_same_bytes_alone_and_beside_others(deoccluder: Deoccluder, photo: Photo, disc: np.ndarray) -> None:
    def run(seed: int) -> list[bytes]:
        return pixels_of(deoccluder.complete(photo, Prompt(mask=disc), CompletionOptions(seed=seed)))

    alone = [run(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == alone
    assert len({pixels[0] for pixels in alone}) == 8


def test_a_sample_may_be_the_mean_of_draws(deoccluder: Deoccluder, photo: Photo, disc: np.ndarray) -> None:
    def run(seed: int, draws: int) -> Completion:
        return deoccluder.complete(photo, Prompt(mask=disc), CompletionOptions(seed=seed, draws=draws))

    plain = deoccluder.complete(photo, Prompt(mask=disc), CompletionOptions(seed=0))
    assert pixels_of(run(0, 1)) == pixels_of(plain)  # one, unless the preset says otherwise
    mean = run(0, 4)
    assert pixels_of(mean) == pixels_of(run(0, 4)) != pixels_of(plain)
    hidden = ~disc

    def spread(draws: int) -> float:
        shades = [run(seed, draws).samples[0].rgba()[hidden].astype(float) for seed in range(6)]
        return float(np.std(shades, axis=0).mean())

    assert spread(8) < 0.8 * spread(1)  # means vary less than what they are means of


def test_a_refiner_mends_and_judges(tmp_path: Path, photo: Photo, disc: np.ndarray) -> None:
    def run(refiner: Refiner | None) -> Completion:
        bundle = write_tiny_bundle(tmp_path / str(len(list(tmp_path.iterdir()))), refiner)
        deoccluder, _ = load_deoccluder(str(bundle.path), runtime="torch")
        return deoccluder.complete(photo, Prompt(mask=disc))

    plain, whole, hidden = run(None), run(tiny_refiner(whole=1.0)), run(tiny_refiner(whole=-2.0, quality=2.0))
    assert pixels_of(hidden) != pixels_of(plain)
    assert (whole.already_whole, hidden.already_whole) == (True, False)
    assert hidden.samples[0].occluded_fraction > 0
    np.testing.assert_array_equal(whole.samples[0].amodal_mask(), disc)  # nothing is added
    p, q = 1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-2.0))
    assert hidden.samples[0].score == pytest.approx(p + (1 - p) * q)


def test_a_refiner_may_carry_the_visible_colours_on(tmp_path: Path, photo: Photo, disc: np.ndarray) -> None:
    refiner = tiny_refiner()
    torch.nn.init.zeros_(refiner.conv_out.weight)
    with torch.no_grad():  # adds nothing, takes all of the window for the object and none of the draft's colours
        refiner.conv_out.bias.view(5, -1).copy_(torch.tensor([0.0, 0.0, 0.0, 30.0, 30.0])[:, None])
    deoccluder, _ = load_deoccluder(str(write_tiny_bundle(tmp_path / "bundle", refiner).path), runtime="torch")
    pixels = np.full_like(photo.pixels, (0, 0, 255))  # shines a little into the object's edge
    pixels[disc] = (200, 60, 0)
    (sample,) = deoccluder.complete(Photo(pixels, "disc"), Prompt(mask=disc)).samples
    hidden = sample.amodal_mask() & ~disc
    assert hidden.sum() > 1000
    assert np.abs(sample.rgba()[hidden][:, :3].astype(int) - (200, 60, 0)).max() < 12


def test_cost_counts_the_draws_of_the_last_stage(deoccluder: Deoccluder) -> None:
    def rows(options: CompletionOptions) -> int:
        return deoccluder.completer.cost(options).rows

    one = CompletionOptions(steps=4, local_strength=1.0, draws=1)
    assert rows(replace(one, draws=3)) == rows(one) * 2  # 4 + 3 x 4
    assert rows(replace(one, draws=3, local_strength=0.0)) == 12
    assert rows(replace(one, draws=3, num_samples=2)) == 2 * rows(replace(one, draws=3))


def test_sample_i_is_the_sample_of_seed_plus_i(deoccluder: Deoccluder, photo: Photo, disc: np.ndarray) -> None:
    options = CompletionOptions(seed=2**32 - 1, num_samples=2)
    several = deoccluder.complete(photo, Prompt(mask=disc), options)
    assert {s.seed for s in several.samples} == {2**32 - 1, 0}
    for sample in several.samples:
        one = deoccluder.complete(photo, Prompt(mask=disc), CompletionOptions(seed=sample.seed))
        assert one.samples[0].rgba().tobytes() == sample.rgba().tobytes()
    assert several.samples[0].score >= several.samples[1].score


def test_odd_seeds_see_the_photo_mirrored(
    bundle: Bundle, deoccluder: Deoccluder, photo: Photo, disc: np.ndarray
) -> None:
    straight, _ = load_deoccluder(str(bundle.path), runtime="torch")
    straight.completer.settings = replace(straight.completer.settings, mirror_odd_seeds=False)

    def run(engine: Deoccluder, seed: int, turn: int = 1) -> np.ndarray:
        shown = Photo(np.ascontiguousarray(photo.pixels[:, ::turn]), f"sha256:{turn}")
        mask = np.ascontiguousarray(disc[:, ::turn])
        options = CompletionOptions(seed=seed, keep_visible=False)
        return engine.complete(shown, Prompt(mask=mask), options).samples[0].rgba()[:, ::turn].astype(int)

    np.testing.assert_array_equal(run(deoccluder, 2), run(straight, 2))
    np.testing.assert_allclose(run(deoccluder, 3), run(straight, 3, turn=-1), atol=2)
    assert np.abs(run(deoccluder, 3) - run(straight, 3)).max() > 50


def test_text_and_guidance_change_the_result(deoccluder: Deoccluder, photo: Photo, disc: np.ndarray) -> None:
    def run(options: CompletionOptions) -> bytes:
        return pixels_of(deoccluder.complete(photo, Prompt(mask=disc), options))[0]

    plain = CompletionOptions(keep_visible=False)
    assert len({run(o) for o in (plain, replace(plain, text="red ball"), replace(plain, guidance_image=3.0))}) == 3


def test_progress_rises_to_one_and_previews_come(deoccluder: Deoccluder, photo: Photo, disc: np.ndarray) -> None:
    events: list[Event] = []
    options = CompletionOptions(num_samples=2, preview_every=2)
    deoccluder.complete(photo, Prompt(mask=disc), options, on_event=events.append)
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert sorted(e.index for e in events if isinstance(e, SampleReady)) == [0, 1]
    assert any(isinstance(e, Preview) and e.rgba.shape == (32, 32, 4) for e in events)
    done = {(e.sample, e.stage.value): e for e in events if isinstance(e, StageDone)}
    assert set(done) == {(sample, stage) for sample in (0, 1) for stage in ("global", "local")}
    assert all(done[i, "global"].began < done[i, "global"].ended == done[i, "local"].began for i in (0, 1))


def test_stop_ends_the_work_before_the_next_step(deoccluder: Deoccluder, photo: Photo, disc: np.ndarray) -> None:
    steps: list[Event] = []

    def stop() -> None:
        if sum(isinstance(e, Progress) and e.step > 0 and e.stage.value == "global" for e in steps) == 3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        deoccluder.complete(photo, Prompt(mask=disc), CompletionOptions(steps=50), on_event=steps.append, stop=stop)
    assert sum(isinstance(e, Progress) and e.stage.value == "global" for e in steps) == 3


def test_a_click_gives_candidates_best_first_and_reuses_the_embedding(deoccluder: Deoccluder, photo: Photo) -> None:
    candidates = deoccluder.segment(photo, Prompt(points=(Point(50, 40),)))
    assert 1 <= len(candidates) <= 3
    assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
    assert all(c.mask.shape == (90, 120) and c.mask.any() for c in candidates)
    again = deoccluder.segment(photo, Prompt(points=(Point(50, 40),)))
    np.testing.assert_array_equal(candidates[0].mask, again[0].mask)


def test_a_mask_refiner_looks_close(tmp_path: Path, deoccluder: Deoccluder, photo: Photo, disc: np.ndarray) -> None:
    def engine(**changes: float) -> Deoccluder:
        bundle = write_tiny_bundle(tmp_path / str(changes), mask_refiner=tiny_mask_refiner(**changes))
        return load_deoccluder(str(bundle.path), runtime="torch")[0]

    prompt, content = Prompt(mask=disc), engine(quality=1.0)
    large = Photo(photo.pixels.repeat(4, 0).repeat(4, 1), "large"), Prompt(mask=disc.repeat(4, 0).repeat(4, 1))
    for asked in ((photo, prompt), large):
        plain, same = (d.segment(*asked)[0] for d in (deoccluder, content))
        assert (plain.mask == same.mask).mean() > 0.98  # what it leaves alone lies where it lay
    assert same.score == pytest.approx((2 * plain.score + 1 / (1 + np.exp(-1.0))) / 3, abs=1e-6)
    greedy = engine(change=30.0)
    everything = greedy.segment(photo, Prompt(points=(Point(110.5, 80.5),)))
    assert all(candidate.mask[80, 110] for candidate in everything)  # the click is always in sight
    pixel = Photo(photo.pixels[:1, :1], "pixel")
    assert greedy.segment(pixel, Prompt(points=(Point(0.5, 0.5),)))[0].mask.all()
    with pytest.raises(InvalidPrompt, match="no object"):
        engine(change=-30.0).segment(photo, prompt)


def test_several_prompts_for_one_photo_are_answered_as_each_alone(
    deoccluder: Deoccluder, photo: Photo, disc: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, batches = deoccluder.segmenter._runtime, list[tuple[int, list[float]]]()

    class Counting:
        encode = runtime.encode
        refine_mask = None

        def decode(self, embedding: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            batches.append((len(embedding), rest[3].tolist()))
            return runtime.decode(embedding, *rest)

    click, other = Prompt(points=(Point(50, 40),)), Prompt(points=(Point(20, 70),))
    two = Prompt(points=(Point(50, 40), Point(20, 70, include=False)))
    prompts = (click, two, other, Prompt(mask=disc))
    alone = [deoccluder.segment(photo, prompt) for prompt in prompts]
    monkeypatch.setattr(deoccluder.segmenter, "_runtime", Counting())
    together = deoccluder.segment_all(photo, prompts)
    # The mask; the two clicks and the first of the two points; the second point, which corrects what the first gave.
    assert batches == [(1, [1]), (3, [0, 0, 0]), (1, [1])]
    for own, expected in zip(together, alone, strict=True):
        assert [c.score for c in own] == pytest.approx([c.score for c in expected], abs=1e-5)
        for a, b in zip(own, expected, strict=True):
            assert (a.mask == b.mask).mean() > 0.999


@pytest.mark.parametrize(
    ("prompt", "options", "error", "field"),
    [
        (Prompt(), CompletionOptions(), InvalidPrompt, "prompt"),
        (Prompt(points=(Point(float("nan"), 1),)), CompletionOptions(), InvalidPrompt, "prompt.points[0].x"),
        (Prompt(points=(Point(120, 1),)), CompletionOptions(), InvalidPrompt, "prompt.points[0].x"),
        (Prompt(mask=np.zeros((90, 120), bool)), CompletionOptions(), InvalidPrompt, "prompt.mask"),
        (Prompt(mask=np.ones((9, 12), bool)), CompletionOptions(), InvalidPrompt, "prompt.mask"),
        (Prompt(points=(Point(1, 1),) * 65), CompletionOptions(), TooLarge, "prompt.points"),
        (Prompt(points=(Point(1, 1),)), CompletionOptions(num_samples=9), TooLarge, "options.num_samples"),
        (Prompt(points=(Point(1, 1),)), CompletionOptions(local_strength=1.5), InvalidOption, "options.local_strength"),
    ],
)
def test_bad_requests_name_the_field(
    deoccluder: Deoccluder, photo: Photo, prompt: Prompt, options: CompletionOptions, error: type, field: str
) -> None:
    with pytest.raises(error) as caught:
        deoccluder.complete(photo, prompt, options)
    assert caught.value.field == field
