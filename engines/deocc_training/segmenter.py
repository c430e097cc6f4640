"""Training of the segmenter as SAM was trained: sampled prompts, corrections, three candidates.

Losses are SAM's (section 3 and appendix A of "Segment Anything"): 20·focal + dice on the mask, squared error on the
predicted IoU; of three candidates only the best one learns. Prompts: a point or a jittered box first, then
corrections drawn from the error, with the last answer's logits as mask prompt.

SAM's encoder learnt from eleven million images; this one starts from a classifier, and a few prompts an image teach it
little. So its `Affinity` also answers, for many places of the image at once, which others belong to the same instance.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F

from deocc_engines.networks.sam import Sam, SamConfig
from deocc_engines.segmenter import CORNER_MAX, CORNER_MIN, EXCLUDE, INCLUDE, MEAN, PADDING, STD
from deocc_engines.window import Window
from deocc_training.autoencoder import signed
from deocc_training.backbone import BLOCKS, CHANNELS, start_from_imagenet
from deocc_training.bank import Picked, SceneBank, open_banks
from deocc_training.loop import Figures, LoopOptions, train
from deocc_training.overlap import dice_loss, hard_iou
from deocc_training.sheets import grid
from deocc_training.views import Warp, nearest, pictures

__all__ = ["MINI", "SegmenterRecipe"]

MINI = SamConfig(
    image_size=320,
    patch=16,
    width=192,
    depth=4,
    heads=6,
    global_attention=(0, 1, 2, 3),
    prompt_width=128,
    decoder_mlp=512,
    affinity=64,
    backbone_channels=CHANNELS,
    backbone_blocks=BLOCKS,
)
PROMPTS = 3  # instances asked for in each image
ROUNDS = 3  # the first prompt and its corrections
SMALLEST = 10  # visible cells, of the mask's, of an instance worth asking for
MOST_INSTANCES = 8  # of a scene, the background included
MASK_PROMPT = 0.1  # share of first prompts that are a spoilt mask
BOX_PROMPT = 0.25  # and a box; the others are points
ZOOMED = 0.4  # share of images seen in part
DEEPEST = 12  # erosions by which the depth of a mask is told
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

    def __init__(self, scenes: SceneBank, held_out: SceneBank, config: SamConfig = MINI) -> None:
        self.module = localised(Sam(config))
        if config.backbone_channels == CHANNELS:
            start_from_imagenet(self.module.backbone)
        self._scenes, self._held_out, self._config = scenes, held_out, config
        self._mean, self._std = (
            torch.from_numpy(values / 255).reshape(1, 3, 1, 1).to(scenes.device) for values in (MEAN, STD)
        )

    def batch(self, rng: Generator, count: int) -> tuple[Tensor, ...]:
        """Images, the instance of each cell of a mask and of each of the affinity's places, the target's label."""
        picked = self._scenes.draw(rng, count)
        return self._seen(picked, rng, Warp.draw(rng, count, picked.labels.device))

    def loss(self, *batch: Tensor) -> tuple[Tensor, Figures]:
        images, cells, places, target = batch
        sam, truths = self.module, _asked(cells, target)
        embedding = sam.encode(images)
        grouping, group_iou = self._grouping(sam.fine(embedding), places)
        total, ious = self._rounds(sam, embedding.repeat_interleave(PROMPTS, dim=0), truths)
        figures = {f"iou_{k + 1}": value for k, value in enumerate(ious)}
        return total + grouping, {**figures, "group_iou": group_iou}

    def sheet(self, module: nn.Module) -> np.ndarray:
        assert isinstance(module, Sam)
        torch.manual_seed(7)
        picked = self._held_out.pick(np.arange(min(8, len(self._held_out))))
        images, cells, _, target = self._seen(picked, np.random.default_rng(7), None)
        truths = _asked(cells, target)
        embedding = module.encode(images).repeat_interleave(PROMPTS, dim=0)
        answers: list[Tensor] = []
        self._rounds(module, embedding, truths, answers)
        size = truths.shape[-1]
        shown = F.interpolate(images.repeat_interleave(PROMPTS, dim=0), (size, size), mode="area") / 2
        columns = [shown, signed(truths[:, None]), *(signed((a[:, None] > 0).float()) for a in answers[::2])]
        return grid([column[i] for i in range(len(truths)) for column in columns], columns=16)

    def _grouping(self, fine: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The affinity's own loss. `labels`: [b, p] instance of each place, 0 background, −1 padding."""
        objects = (labels > 0).float() + 0.25 * (labels == 0).float() + 1e-6  # what most queries are about
        asked = _drawn(objects, QUERIES)
        together = (labels.gather(1, asked)[:, :, None] == labels[:, None]).float()
        logits = self.module.affinity.together(fine, F.one_hot(asked, labels.shape[1]).to(fine.dtype)).float()
        known = (labels >= 0).float()[:, None].expand_as(logits)
        bce = (F.binary_cross_entropy_with_logits(logits, together, reduction="none") * known).sum() / known.sum()
        p, truth = torch.sigmoid(logits) * known, together * known
        iou = hard_iou((logits > 0) & (known > 0), truth > 0, 2)
        return bce + dice_loss(p, truth, 2).mean(), iou.mean()

    def _rounds(
        self, module: Sam, embedding: Tensor, truths: Tensor, answers: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Prompt, answer, correct, answer again. `truths`: [b, l, l] in {0, 1}."""
        count, size, device = len(truths), truths.shape[-1], truths.device
        scale = self._config.image_size / size
        inside = truths > 0.5
        kind = torch.rand(count, device=device)
        spoils, boxed = kind < MASK_PROMPT, (kind >= MASK_PROMPT) & (kind < MASK_PROMPT + BOX_PROMPT)
        pointed = ~spoils & ~boxed
        coordinates = torch.zeros(count, TOKENS, 2, device=device)
        labels = torch.full((count, TOKENS), float(PADDING), device=device)
        coordinates[:, :2] = torch.where(boxed[:, None, None], _jittered_boxes(inside) * scale - 0.5, 0.0)
        labels[:, 0] = torch.where(boxed, float(CORNER_MIN), labels[:, 0])
        labels[:, 1] = torch.where(boxed, float(CORNER_MAX), labels[:, 1])
        coordinates[:, 0] = torch.where(pointed[:, None], _pixels(inside) * scale - 0.5, coordinates[:, 0])
        labels[:, 0] = torch.where(pointed, float(INCLUDE), labels[:, 0])
        mask, has_mask = (_spoilt(inside) * 16 - 8)[:, None], spoils.float()
        total, ious = torch.zeros((), device=device), []
        multiple = pointed
        for turn in range(ROUNDS):
            known = slice(0, 2 + turn)
            logits, scores = module.decode(embedding, coordinates[:, known], labels[:, known], mask, has_mask)
            logits, scores = logits.float(), scores.float()
            loss, best, iou = _mask_loss(logits, scores, truths, multiple)
            total = total + loss / ROUNDS
            ious.append(iou.mean())
            if answers is not None:
                answers.append(best)
            if turn + 1 == ROUNDS:
                break
            # A service sends corrections without the earlier logits: half of them learn to do without.
            mask = best.clamp(-16, 16)[:, None]
            has_mask = (torch.rand(count, device=device) < 0.5).float()
            wrong = (best > 0) != inside
            place = _pixels(wrong)
            x, y = place.long().clamp(0, size - 1).unbind(1)
            belongs = inside.flatten(1).gather(1, (y * size + x)[:, None])[:, 0]
            say = torch.where(belongs, float(INCLUDE), float(EXCLUDE))
            erred = wrong.flatten(1).any(1)
            coordinates[:, 2 + turn] = torch.where(erred[:, None], place * scale - 0.5, 0.0)
            labels[:, 2 + turn] = torch.where(erred, say, float(PADDING))
            multiple = torch.zeros_like(pointed)
        return total, ious

    def _seen(self, picked: Picked, rng: Generator, warp: Warp | None) -> tuple[Tensor, ...]:
        size, count = self._config.image_size, len(picked.labels)
        whole = [Window.whole(*extent, size) for extent in picked.extents]
        if warp is not None:  # nearer and farther, so that objects of all sizes are met
            whole = [zoomed(window, rng) if rng.random() < ZOOMED else window for window in whole]
        image, covered = pictures(picked, whole, warp)
        images = (image - self._mean * covered) / self._std
        grid_size = size // self._config.patch
        places = nearest(picked, whole, warp, 2 * grid_size)
        fine = nearest(picked, whole, warp, 4 * grid_size)
        outside = nearest(picked, whole, warp, 2 * grid_size, of=torch.ones_like(picked.labels)) == 0
        instances = torch.where(outside, -1, places.long()).reshape(count, -1)
        return images, fine, instances, picked.target_label.clamp(max=MOST_INSTANCES - 1)


def _asked(cells: Tensor, target: Tensor) -> Tensor:
    """PROMPTS masks [n, l, l] an image of its instances, the target's first if there is enough of it."""
    visible = F.one_hot(cells.flatten(1).long(), MOST_INSTANCES).sum(1).float()
    visible[:, 0] = 0
    wanted = (visible >= SMALLEST).float() + 1e-4 * (visible > 0).float() + 1e-9
    chosen = torch.cat([_drawn(wanted, 1) for _ in range(PROMPTS)], dim=1)
    seen = visible.gather(1, target[:, None])[:, 0] >= SMALLEST
    chosen[:, 0] = torch.where(seen, target, chosen[:, 0])
    return (cells[:, None] == chosen[:, :, None, None]).float().flatten(0, 1)


def _drawn(weights: Tensor, count: int) -> Tensor:
    """So many different columns of each row [b, n], with probabilities as the weights: torch.multinomial, which waits
    for the device."""
    return (weights / torch.empty_like(weights).exponential_()).topk(count, dim=1).indices


def zoomed(window: Window, rng: Generator) -> Window:
    """A smaller square inside of it."""
    side = round(window.side * rng.uniform(0.5, 1))
    left, top = (int(rng.integers(window.side - side + 1)) for _ in range(2))
    return replace(window, left=window.left + left, top=window.top + top, side=side)


def _depth(masks: Tensor) -> Tensor:
    """How often [b, l, l] masks can be eroded before a pixel is gone; the border does not count as outside."""
    left = masks.float()[:, None]
    total = left.clone()
    for _ in range(DEEPEST):
        left = -F.max_pool2d(-left, 3, 1, 1)
        total += left
    return total[:, 0]


def _pixels(masks: Tensor) -> Tensor:
    """For each of [b, l, l] masks the centre of a pixel inside, xy [b, 2]: at times any, else rather a deep one, as
    people click; anywhere for an empty mask."""
    anywhere = torch.rand(len(masks), 1, 1, device=masks.device) < 0.3
    weights = torch.where(anywhere, masks.float(), _depth(masks) ** 4) + 1e-12
    index = _drawn(weights.flatten(1), 1)[:, 0]
    side = masks.shape[-1]
    return torch.stack([index % side, index // side], dim=1) + 0.5


def _jittered_boxes(masks: Tensor) -> Tensor:
    """Two corners [b, 2, 2] of each of [b, l, l] masks, displaced by some of their sides as people's boxes are."""
    ends = []
    for across in (1, 2):  # x, then y
        along = masks.any(across).float()
        side = along.shape[1]
        ends.append(torch.stack([along.argmax(1), side - along.flip(1).argmax(1)], dim=1))
    corners = torch.stack(ends, dim=2).float()
    sides = (corners[:, 1:] - corners[:, :1]).clamp(min=1)
    return (corners + 0.05 * torch.randn_like(corners) * sides).clamp(0, masks.shape[-1])


def _spoilt(masks: Tensor) -> Tensor:
    """Each shifted, and with a random rectangle filled or emptied."""
    side, count, device = masks.shape[-1], len(masks), masks.device

    def anywhere(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count, 2, 1), device=device)

    places = torch.arange(side, device=device)
    rows, columns = ((places + anywhere(-3, 4)) % side).unbind(1)
    shifted = masks.float().gather(1, rows[:, :, None].expand_as(masks)).gather(2, columns[:, None].expand_as(masks))
    corner = anywhere(0, side)
    rows, columns = ((places >= corner) & (places < corner + anywhere(2, side // 4))).unbind(1)
    filled = (torch.rand(count, 1, 1, device=device) < 0.5).float()
    return torch.where(rows[:, :, None] & columns[:, None], filled, shifted)


def _mask_loss(logits: Tensor, scores: Tensor, truth: Tensor, multiple: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SAM's losses of [b, 4, l, l] answers; also the answer that learnt and its IoU."""
    target = truth[:, None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = torch.sigmoid(logits)
    wrongness = (p * (1 - target) + (1 - p) * target).square()
    # Without SAM's pretrained encoder its weight of .25 on the object teaches to answer with nothing: both count alike.
    focal = (bce * wrongness).mean((2, 3))
    each = 20 * focal + dice_loss(p, target, (2, 3))
    with torch.no_grad():
        iou = hard_iou(logits > 0, target > 0.5, (2, 3))
        first = torch.arange(logits.shape[1], device=logits.device) == 0
        allowed = first ^ multiple[:, None]
        chosen = torch.where(allowed, each, torch.inf).argmin(1)
    chosen = chosen[:, None]
    score_error = ((scores - iou).square() * allowed).sum(1) / allowed.sum(1)
    loss = each.gather(1, chosen).mean() + score_error.mean()
    best = torch.take_along_dim(logits.detach(), chosen[:, :, None, None], 1)[:, 0]
    return loss, best, iou.gather(1, chosen)[:, 0]


def main(
    train_scenes: Annotated[Path, typer.Option()],
    test_scenes: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    steps: int = 12000,
    batch: int = 8,
    learning_rate: float = 4e-4,
    threads: int = 1,
    device: str = "cpu",
    minutes: Annotated[float | None, typer.Option(help="end by the clock instead of by steps")] = None,
) -> None:
    """Trains deocc-mini's segmenter; the same command resumes."""
    recipe = SegmenterRecipe(*open_banks(train_scenes, test_scenes, device, ("image", "labels")))
    options = LoopOptions(out, steps, batch, learning_rate, threads=threads, device=device, minutes=minutes)
    train(recipe, replace(options, pretrained="backbone."))


if __name__ == "__main__":
    typer.run(main)
