"""Training of the segmenter as SAM was trained: sampled prompts, corrections, three candidates.

Losses are SAM's (section 3 and appendix A of "Segment Anything"): 20·focal + dice on the mask, squared error on the
predicted IoU; of three candidates only the best one learns. Prompts: a point or a jittered box first, then
corrections drawn from the error, with the last answer's logits as mask prompt.

SAM's encoder came pretrained; this one starts from nothing, and a few prompts an image teach it little. So its
`Affinity` also answers, for many places of the image at once, which other places belong to the same instance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from deocc_engines.mask import bounding_box, depth
from deocc_engines.networks.sam import Sam, SamConfig
from deocc_engines.segmenter import CORNER_MAX, CORNER_MIN, EXCLUDE, INCLUDE, PADDING, normalised
from deocc_engines.window import Window, to_uint8
from deocc_training.loop import LoopOptions, train
from deocc_training.scenes import Scene, SceneSet
from deocc_training.sheets import grid

__all__ = ["MINI", "SegmenterRecipe"]

MINI = SamConfig(
    image_size=192,
    patch=8,
    width=192,
    depth=8,
    heads=6,
    global_attention=(1, 3, 5, 7),
    window=8,
    prompt_width=128,
    decoder_mlp=512,
    affinity=64,
)
PROMPTS = 3  # instances asked for in each image
ROUNDS = 3  # the first prompt and its corrections
SMALLEST = 60  # visible pixels of an instance worth asking for
MASK_PROMPT = 0.1  # share of first prompts that are a spoilt mask instead
QUERIES = 64  # places of an image that are asked what belongs to them
SHARPNESS = 2.5  # gain of the projections of `localised`: attention within about three tokens
TOKENS = ROUNDS + 1  # a box or a point and padding, then the corrections


@torch.no_grad()
def localised(sam: Sam) -> Sam:
    """Starts the decoder with prompts that look at the place that they name.

    Its attention between prompts and image adds positional encodings to both sides. With unrelated projections of
    queries and keys, a decoder that starts from nothing takes very long to notice that they match; here both
    projections are the same orthogonal one, so that a point attends to its neighbourhood from the first step on.
    """
    transformer = sam.mask_decoder.transformer
    crossings = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crossings += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in crossings:
        nn.init.orthogonal_(attention.q_proj.weight, gain=SHARPNESS)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        nn.init.zeros_(attention.q_proj.bias)
        nn.init.zeros_(attention.k_proj.bias)
    return sam


class SegmenterRecipe:
    """Prompted masks of the visible parts of all instances of a scene."""

    def __init__(self, scenes: SceneSet, held_out: SceneSet, config: SamConfig = MINI) -> None:
        self.module = localised(Sam(config))
        self._scenes, self._held_out, self._config = scenes, held_out, config

    def loss(self, rng: Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        images, truths, labels = self._batch(self._scenes, rng, batch)
        sam = self.module
        embedding = sam.encode(images)
        grouping, group_iou = self._grouping(sam.fine(embedding), labels, rng)
        total, ious = self._rounds(sam, embedding.repeat_interleave(PROMPTS, dim=0), truths, rng)
        figures = {f"iou_{k + 1}": value for k, value in enumerate(ious)}
        return total + grouping, {**figures, "group_iou": group_iou}

    def sheet(self, module: nn.Module) -> np.ndarray:
        assert isinstance(module, Sam)
        rng = np.random.default_rng(7)
        images, truths, _ = self._batch(self._held_out, rng, 8)
        embedding = module.encode(images).repeat_interleave(PROMPTS, dim=0)
        answers: list[Tensor] = []
        self._rounds(module, embedding, truths, rng, answers)
        size = truths.shape[-1]
        pictures = []
        for i in range(len(truths)):
            picture = F.interpolate(images[i // PROMPTS][None], (size, size), mode="area")[0]
            pictures += [
                picture / 2,
                truths[i][None] * 2 - 1,
                *((a[i] > 0).float()[None] * 2 - 1 for a in answers[::2]),
            ]
        return grid(pictures, columns=16)

    def _grouping(self, fine: Tensor, labels: Tensor, rng: Generator) -> tuple[Tensor, float]:
        """The affinity's own loss. `labels`: [b, p] instance of each place, 0 background, −1 padding."""
        objects = (labels > 0).float() + 0.25 * (labels == 0).float() + 1e-6  # what most queries are about
        noise = torch.from_numpy(rng.random(labels.shape, np.float32)).clamp(min=1e-6)
        asked = (noise.log() / objects).topk(QUERIES, dim=1).indices  # without replacement, by weight
        together = (labels.gather(1, asked)[:, :, None] == labels[:, None]).float()
        logits = self.module.affinity.together(fine, F.one_hot(asked, labels.shape[1]).float()).float()
        known = (labels >= 0).float()[:, None].expand_as(logits)
        bce = (F.binary_cross_entropy_with_logits(logits, together, reduction="none") * known).sum() / known.sum()
        p, truth = torch.sigmoid(logits) * known, together * known
        dice = 1 - (2 * (p * truth).sum(2) + 1) / (p.sum(2) + truth.sum(2) + 1)
        said, right = (logits > 0) & (known > 0), truth > 0
        iou = (said & right).sum(2) / (said | right).sum(2).clamp(min=1)
        return bce + dice.mean(), iou.mean().item()

    def _rounds(
        self, module: Sam, embedding: Tensor, truths: Tensor, rng: Generator, answers: list[Tensor] | None = None
    ) -> tuple[Tensor, list[float]]:
        """Prompt, answer, correct, answer again. `truths`: [b, l, l] in {0, 1}."""
        count, size = len(truths), truths.shape[-1]
        scale = self._config.image_size / size
        coordinates = torch.zeros(count, TOKENS, 2)
        labels = torch.full((count, TOKENS), float(PADDING))
        mask, has_mask = torch.zeros(count, 1, size, size), torch.zeros(count)
        flat = truths.numpy() > 0.5
        multiple = np.zeros(count, bool)
        for i in range(count):
            kind = rng.random()
            if kind < MASK_PROMPT:
                mask[i, 0], has_mask[i] = torch.from_numpy(_spoilt(flat[i], rng)) * 16 - 8, 1.0
            elif kind < 0.4:
                corners = _jittered_box(flat[i], rng)
                coordinates[i, :2] = torch.from_numpy(corners * scale - 0.5)
                labels[i, 0], labels[i, 1] = CORNER_MIN, CORNER_MAX
            else:
                coordinates[i, 0] = torch.from_numpy(_pixel(flat[i], rng) * scale - 0.5)
                labels[i, 0] = INCLUDE
                multiple[i] = True
        total, ious = torch.zeros(()), []
        for turn in range(ROUNDS):
            known = slice(0, 2 + turn)
            logits, scores = module.decode(embedding, coordinates[:, known], labels[:, known], mask, has_mask)
            logits, scores = logits.float(), scores.float()
            loss, best, iou = _mask_loss(logits, scores, truths, torch.from_numpy(multiple))
            total = total + loss / ROUNDS
            ious.append(iou.mean().item())
            if answers is not None:
                answers.append(best.detach())
            if turn + 1 == ROUNDS:
                break
            # A service sends corrections without the earlier logits: half of them learn to do without.
            mask = best.detach().clamp(-16, 16)[:, None]
            has_mask = torch.from_numpy((rng.random(count) < 0.5).astype(np.float32))
            wrong = (best.detach() > 0).numpy() != flat
            for i in range(count):
                if wrong[i].any():
                    place = _pixel(wrong[i], rng)
                    coordinates[i, 2 + turn] = torch.from_numpy(place * scale - 0.5)
                    labels[i, 2 + turn] = INCLUDE if flat[i][int(place[1]), int(place[0])] else EXCLUDE
            multiple[:] = False
        return total, ious

    def _batch(self, scenes: SceneSet, rng: Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images, the masks asked for (PROMPTS an image) and the instance of each of the affinity's places."""
        images: list[np.ndarray] = []
        truths: list[np.ndarray] = []
        instances: list[np.ndarray] = []
        while len(images) < batch:
            scene = scenes[int(rng.integers(len(scenes)))]
            visible = np.bincount(scene.labels.ravel(), minlength=2)
            visible[0] = 0
            labels = np.flatnonzero(visible >= SMALLEST)
            if not len(labels):
                continue
            flip = rng.random() < 0.5
            chosen = rng.choice(labels, PROMPTS)
            if scene.target_label in labels:
                chosen[0] = scene.target_label
            height, width = scene.size
            pixels = scene.image[:height, :width]
            pixels = _lit(pixels[:, ::-1] if flip else pixels, rng)
            images.append(normalised(np.ascontiguousarray(pixels), self._config.image_size))
            truths += [self._truth(scene, int(label), flip) for label in chosen]
            instances.append(self._instances(scene, flip))
        stacked = [torch.from_numpy(np.stack(values)) for values in (images, truths, instances)]
        return stacked[0], stacked[1], stacked[2]

    def _instances(self, scene: Scene, flip: bool) -> np.ndarray:
        """[p] label at the centre of each of the affinity's places; −1 in the padding."""
        height, width = scene.size
        grid = self._config.image_size // self._config.patch * 2
        places = ((np.arange(grid) + 0.5) * max(height, width) / grid).astype(int)
        labels = np.full((max(height, width),) * 2, -1, np.int64)
        labels[:height, :width] = np.flip(scene.labels[:height, :width], 1) if flip else scene.labels[:height, :width]
        return np.asarray(labels[np.ix_(places, places)].ravel())

    def _truth(self, scene: Scene, label: int, flip: bool) -> np.ndarray:
        height, width = scene.size
        mask = (scene.labels[:height, :width] == label).astype(np.float32)
        size = self._config.image_size // self._config.patch * 4
        share = Window.whole(width, height, size).take(mask[:, ::-1] if flip else mask, 0.0)
        # A thin instance keeps at least a pixel.
        return np.asarray(share >= min(0.5, share.max()), np.float32)


def _lit(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    gain, shift = rng.uniform(0.8, 1.25, 3) * rng.uniform(0.8, 1.2), rng.uniform(-15, 15)
    return to_uint8(pixels * gain + shift)


def _pixel(mask: np.ndarray, rng: Generator) -> np.ndarray:
    """The centre of a pixel inside, xy: half of the time any, else rather a deep one, as people click."""
    weights = depth(np.ascontiguousarray(mask)) ** 2 if rng.random() < 0.5 else mask
    cumulative = np.cumsum(weights, dtype=np.float64)
    i = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    y, x = divmod(min(i, mask.size - 1), mask.shape[1])
    return np.array([x + 0.5, y + 0.5], np.float32)


def _jittered_box(mask: np.ndarray, rng: Generator) -> np.ndarray:
    """Two corners, displaced by up to a tenth of the sides as people's boxes are."""
    box = bounding_box(np.ascontiguousarray(mask))
    sides = np.array([box.x_max - box.x_min, box.y_max - box.y_min])
    corners = np.array([[box.x_min, box.y_min], [box.x_max, box.y_max]])
    displaced = corners + rng.normal(0, 0.05, (2, 2)) * sides
    return np.asarray(np.clip(displaced, 0, mask.shape[0]), np.float32)


def _spoilt(mask: np.ndarray, rng: Generator) -> np.ndarray:
    """Shifted and with a random rectangle flipped."""
    shifted = np.roll(mask, rng.integers(-3, 4, 2), axis=(0, 1)).copy()
    y, x = rng.integers(0, mask.shape[0], 2)
    h, w = rng.integers(2, mask.shape[0] // 4, 2)
    shifted[y : y + h, x : x + w] ^= bool(rng.random() < 0.5)
    return shifted.astype(np.float32)


def _mask_loss(logits: Tensor, scores: Tensor, truth: Tensor, multiple: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SAM's losses of [b, 4, l, l] answers; also the answer that learnt and its IoU."""
    target = truth[:, None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = torch.sigmoid(logits)
    wrongness = (p * (1 - target) + (1 - p) * target).square()
    # Without SAM's pretrained encoder its weight of .25 on the object teaches to answer with nothing: both count alike.
    focal = (bce * wrongness).mean((2, 3))
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + target.sum((2, 3)) + 1)
    each = 20 * focal + dice
    with torch.no_grad():
        hard = logits > 0
        union = (hard | (target > 0.5)).sum((2, 3))
        iou = (hard & (target > 0.5)).sum((2, 3)) / union.clamp(min=1)
        allowed = torch.where(
            multiple[:, None], torch.tensor([False, True, True, True]), torch.tensor([True] + [False] * 3)
        )
        chosen = torch.where(allowed, each, torch.inf).argmin(1)
    rows = torch.arange(len(logits))
    score_error = ((scores - iou).square() * allowed).sum(1) / allowed.sum(1)
    loss = each[rows, chosen].mean() + score_error.mean()
    return loss, logits[rows, chosen], iou[rows, chosen]


def main(
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    steps: int = 12000,
    batch: int = 8,
    learning_rate: float = 4e-4,
    threads: int = 1,
) -> None:
    """Trains deocc-mini's segmenter; the same command resumes."""
    recipe = SegmenterRecipe(SceneSet.open(train_scenes), SceneSet.open(test_scenes))
    train(recipe, LoopOptions(out, steps, batch, learning_rate, threads=threads))


if __name__ == "__main__":
    typer.run(main)
