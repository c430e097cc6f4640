"""SAM: points, box or mask in, candidate modal masks out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from deocc_engines.closeup import FARTHEST_LOGIT, close_up, extent_of, inside, reduced
from deocc_engines.completion import ModalMask
from deocc_engines.errors import InvalidPrompt
from deocc_engines.mask import clean
from deocc_engines.prompt import Prompt
from deocc_engines.window import Window, resize

__all__ = ["PADDING", "Answer", "Embedding", "SamRuntime", "Segmenter", "normalised", "prompt_tokens"]

# SAM's normalisation; padding is zero after it.
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
PADDING = -1  # label of a token that says nothing
INCLUDE, EXCLUDE, CORNER_MIN, CORNER_MAX = 1, 0, 2, 3
MASK_LOGIT = 8.0  # of the pixels of a mask prompt
SHARPEST = 1024  # pixels along the longer side of the photo that close-ups are taken of
SAME = 0.9  # a closer look at this share of the photo, or more, would show nothing new
REACH = 2  # pixels that a candidate may reach beyond the part that is looked at
CUT = 0.25  # share of an edge of the part from which on an answer along it is cut off by it
TURNS = 4  # decodings of one prompt at most


@dataclass(frozen=True, eq=False)
class Embedding:
    """What the encoder says of one image: a value, good for any number of prompts.

    Attributes:
        tensor: [1, d, g, g].
        size: (width, height) of the image.
    """

    tensor: Float[Tensor, "1 d g g"]
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes


@runtime_checkable
class SamRuntime(Protocol):
    """What runs a SAM: torch or compiled. See `networks.sam.Sam` for the shapes."""

    def encode(self, image: Float[Tensor, "1 3 s s"]) -> Float[Tensor, "1 d g g"]: ...

    def decode(
        self,
        embedding: Float[Tensor, "b d g g"],
        coordinates: Float[Tensor, "b n 2"],
        labels: Float[Tensor, "b n"],
        mask: Float[Tensor, "b 1 l l"],
        has_mask: Float[Tensor, " b"],
    ) -> tuple[Float[Tensor, "b 4 l l"], Float[Tensor, "b 4"]]: ...

    @property
    def refine_mask(self) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """As `networks.refiner.MaskRefiner`; None where the engine has none."""


def normalised(pixels: UInt8[np.ndarray, "h w 3"], size: int) -> Float32[np.ndarray, "3 s s"]:
    """An image fitted into a square (padded at the bottom or right) in SAM's value range."""
    height, width = pixels.shape[:2]
    window = Window.whole(width, height, size)
    scale = size / window.side
    right, bottom = round(width * scale), round(height * scale)
    out = (window.take(pixels, 0.0) - MEAN) / STD
    out[bottom:] = 0.0
    out[:, right:] = 0.0
    return np.ascontiguousarray(out.transpose(2, 0, 1))


def prompt_tokens(prompt: Prompt, scale: float) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
    """Coordinates in the encoder's frame and labels; a prompt without a box ends with a token of padding."""
    tokens = [(p.x, p.y, INCLUDE if p.include else EXCLUDE) for p in prompt.points]
    if prompt.box is not None:
        tokens += [(prompt.box.x_min, prompt.box.y_min, CORNER_MIN), (prompt.box.x_max, prompt.box.y_max, CORNER_MAX)]
    else:
        tokens.append((0.0, 0.0, PADDING))  # segment-anything's own habit for prompts without a box
    table = np.array(tokens, np.float32)
    # SAM adds half a pixel for integer coordinates; ours are continuous.
    coordinates = np.where(table[:, 2:] == PADDING, 0.0, table[:, :2] * scale - 0.5)
    return coordinates.astype(np.float32), table[:, 2].copy()


def _turns(prompt: Prompt) -> list[Prompt]:
    """What is asked in turn: the first points that say where the object is, then one more at a time."""
    count = len(prompt.points)
    first = 0
    if prompt.box is None and prompt.points:
        first = 1 + next((i for i, point in enumerate(prompt.points) if point.include), count - 1)
    return [replace(prompt, points=prompt.points[:known]) for known in range(max(first, count + 1 - TURNS), count + 1)]


def _outputs(prompt: Prompt) -> range:
    """Of SAM's four answers those that count: three to a single point, which may mean a part or the whole."""
    ambiguous = prompt.mask is None and prompt.box is None and len(prompt.points) == 1
    return range(1, 4) if ambiguous else range(1)


@dataclass(frozen=True, eq=False)
class Answer:
    """What SAM says to a prompt, before anything is made of it."""

    logits: Float32[np.ndarray, "l l"]  # of the image, padded at the bottom or right to a square
    score: float  # the IoU that it expects

    def mask(self, height: int, width: int) -> Bool[np.ndarray, "h w"]:
        """At the image's size, uncleaned."""
        side = max(height, width)
        return np.ascontiguousarray(resize(self.logits, side, side)[:height, :width] > 0)


def _placed(
    part: Float32[np.ndarray, "h w"], left: int, top: int, width: int, height: int
) -> Float32[np.ndarray, "l l"]:
    """Logits of a part of an image of this size, as those of the whole, padded to a square; elsewhere surely not."""
    whole = np.full((max(height, width),) * 2, -FARTHEST_LOGIT, np.float32)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


class Segmenter:
    """Holds no state but the model; embeddings are the caller's to keep.

    Args:
        image_size: of SAM's input, pixels along each side.
        mask_size: of its answers.
        window: of the mask refiner's input; None: there is none.
        closer: side of the part of the photo that is looked at once more, over the longer side of the answer; None:
            one look, which is enough for a large SAM.
    """

    def __init__(
        self,
        runtime: SamRuntime,
        image_size: int,
        mask_size: int,
        window: int | None = None,
        closer: float | None = None,
    ) -> None:
        self._runtime, self._image_size, self._mask_size = runtime, image_size, mask_size
        self._window, self._closer = window, closer

    def embed(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Embedding:
        """The embedding of an upright RGB image."""
        image = torch.from_numpy(normalised(pixels, self._image_size))[None]
        return Embedding(self._runtime.encode(image), (pixels.shape[1], pixels.shape[0]))

    def segment_all(
        self, embedding: Embedding, pixels: UInt8[np.ndarray, "h w 3"], prompts: Sequence[Prompt]
    ) -> tuple[tuple[ModalMask, ...], ...]:
        """Candidates of each prompt, best predicted IoU first: up to three for one point, one for any other prompt.

        Args:
            embedding: of these pixels, which are upright RGB.

        Raises:
            InvalidPrompt: the model sees no object at one of them.
        """
        answers = self.answers(embedding, pixels, prompts)
        return tuple(self._candidates(pixels, *each) for each in zip(prompts, answers, strict=True))

    def answers(
        self, embedding: Embedding, pixels: UInt8[np.ndarray, "h w 3"], prompts: Sequence[Prompt]
    ) -> list[list[Answer]]:
        """Those of SAM's answers to each prompt that count, after a closer look if the engine takes one."""
        answers = self._decoded(embedding, prompts)
        if self._closer is None:
            return answers
        return [self._seen_closer(pixels, *each, self._closer) for each in zip(prompts, answers, strict=True)]

    def _seen_closer(
        self, pixels: UInt8[np.ndarray, "h w 3"], prompt: Prompt, answers: list[Answer], margin: float
    ) -> list[Answer]:
        """What SAM says to the same prompt when it sees only the part of the photo around its best answer; answers that
        reach beyond that part, or would be cut off by it, stay."""
        if prompt.mask is not None:
            return answers
        pixels, prompt = reduced(pixels, prompt, SHARPEST)
        height, width = pixels.shape[:2]
        extents = [extent_of(answer.logits, prompt, width, height) for answer in answers]
        best = max(range(len(answers)), key=lambda k: answers[k].score)
        window = Window.around(extents[best], width, height, self._mask_size, margin)
        left, top, right, bottom = window.region(width, height)
        if max(right - left, bottom - top) > SAME * max(height, width):
            return answers
        part = np.ascontiguousarray(pixels[top:bottom, left:right])
        closer = self._decoded(self.embed(part), [inside(prompt, left, top, right, bottom)])[0]
        side = max(right - left, bottom - top)
        for k, (extent, answer) in enumerate(zip(extents, closer, strict=True)):
            if extent.x_min < left - REACH or extent.y_min < top - REACH:
                continue
            if extent.x_max > right + REACH or extent.y_max > bottom + REACH:
                continue
            seen = resize(answer.logits, side, side)[: bottom - top, : right - left]
            edges = (
                (seen[:, 0], left > 0),
                (seen[0], top > 0),
                (seen[:, -1], right < width),
                (seen[-1], bottom < height),
            )
            if any(inner and (edge > 0).mean() > CUT for edge, inner in edges):
                continue
            answers[k] = Answer(_placed(seen, left, top, width, height), answer.score)
        return answers

    def _decoded(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[list[Answer]]:
        """Those of SAM's answers to each prompt that count.

        Points after the first correct what was answered to those before them, as SAM is trained and evaluated: each is
        given with that answer's logits (Kirillov et al., section 3 and appendix A, "Training algorithm"). Prompts of
        as many tokens are decoded in one batch.
        """
        width, height = embedding.size
        scale = self._image_size / Window.whole(width, height, self._image_size).side
        turns = [_turns(prompt) for prompt in prompts]
        masks = [self._mask_prompt(prompt, width, height) for prompt in prompts]
        answers: list[list[Answer]] = [[] for _ in prompts]
        for turn in range(max(map(len, turns))):
            tokens = {i: prompt_tokens(own[turn], scale) for i, own in enumerate(turns) if turn < len(own)}
            for count in sorted({len(labels) for _, labels in tokens.values()}):
                own = [i for i, (_, labels) in tokens.items() if len(labels) == count]
                logits, scores = self._runtime.decode(
                    embedding.tensor.repeat(len(own), 1, 1, 1),
                    torch.from_numpy(np.stack([tokens[i][0] for i in own])),
                    torch.from_numpy(np.stack([tokens[i][1] for i in own])),
                    torch.cat([masks[i][0] for i in own]),
                    torch.cat([masks[i][1] for i in own]),
                )
                for row, i in enumerate(own):
                    answers[i] = [
                        Answer(logits[row, k].float().numpy(), float(scores[row, k])) for k in _outputs(turns[i][turn])
                    ]
                    best = torch.from_numpy(max(answers[i], key=lambda answer: answer.score).logits)
                    masks[i] = best[None, None].clamp(-FARTHEST_LOGIT, FARTHEST_LOGIT), torch.ones(1)
        return answers

    def _candidates(
        self, pixels: UInt8[np.ndarray, "h w 3"], prompt: Prompt, answers: Sequence[Answer]
    ) -> tuple[ModalMask, ...]:
        if self._window is not None:
            answers = self._refined(pixels, prompt, answers, self._window)
        masks = [(answer.mask(*pixels.shape[:2]), answer.score) for answer in answers]
        found = [ModalMask.of(clean(mask), score=min(max(score, 0.0), 1.0)) for mask, score in masks if mask.any()]
        if not found:
            raise InvalidPrompt("no object was found at this prompt", field="prompt")
        return tuple(sorted(found, key=lambda candidate: -candidate.score))

    def _refined(
        self, pixels: UInt8[np.ndarray, "h w 3"], prompt: Prompt, answers: Sequence[Answer], window: int
    ) -> list[Answer]:
        """The answers at the resolution of what was seen of them close up."""
        assert self._runtime.refine_mask is not None
        pixels, prompt = reduced(pixels, prompt, SHARPEST)
        height, width = pixels.shape[:2]
        seen = [close_up(pixels, answer.logits, prompt, window) for answer in answers]
        given = ([getattr(each, name) for each in seen] for name in ("answer", "photo", "clicks"))
        logits, verdicts = self._runtime.refine_mask(*(torch.from_numpy(np.stack(part)) for part in given))
        refined = []
        for answer, each, own, verdict in zip(answers, seen, logits.float(), verdicts.float(), strict=True):
            left, top, *_ = each.window.region(width, height)
            whole = _placed(each.window.put(own[0].numpy(), width, height), left, top, width, height)
            # SAM, which sees all of the image, picks better; the refiner knows what has become of the answer.
            refined.append(Answer(whole, (2 * answer.score + float(torch.sigmoid(verdict))) / 3))
        return refined

    def _mask_prompt(self, prompt: Prompt, width: int, height: int) -> tuple[Tensor, Tensor]:
        low = torch.zeros(1, 1, self._mask_size, self._mask_size)
        if prompt.mask is None:
            return low, torch.zeros(1)
        window = Window.whole(width, height, self._mask_size)
        share = window.take(prompt.mask.astype(np.float32), 0.0)
        return torch.from_numpy((share * 2 - 1) * MASK_LOGIT)[None, None], torch.ones(1)
