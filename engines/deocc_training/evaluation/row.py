"""What is kept of one example: a line of JSON from which every table can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deocc_training.evaluation.metrics import Overlap

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """One example.

    Attributes:
        image: the bootstrap's unit.
        area, hidden: pixels of the complete shape, and of its hidden part.
        in_front: by neighbour, whether it stands in front.
        baselines: by name.
        failure: why there is no answer; it then counts as an empty one.
        final: asking again would end the same way.
        answers: by sample, in the order of the seeds.
        first: the sample that the service put first.
        modal_iou: of the visible part that was completed and the annotated one; 1 with mask prompts.
        appearance: psnr and ssim of the hidden part, by "first" and "inpaint".
        picture: of the first answer, RGBA cropped to its box; `corner` is its place in the image, xy.
        seconds, timings: of the run, not of the result.
    """

    index: int
    key: str
    image: str
    groups: tuple[str, ...]
    text: str
    digest: str
    area: int
    hidden: int
    in_front: dict[str, bool]
    baselines: dict[str, Overlap]
    failure: str | None = None
    final: bool = True
    answers: tuple[Overlap, ...] = ()
    scores: tuple[float, ...] = ()
    first: int = 0
    modal_iou: float = 0.0
    visible_error: float | None = None
    visible_kept: float = 0.0
    said_whole: bool | None = None
    appearance: dict[str, dict[str, float | None]] = field(default_factory=dict)
    engine_id: str = ""
    picture: str | None = None
    corner: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def occluded(self) -> float:
        """Hidden share of the complete shape."""
        return self.hidden / self.area

    def best_of(self, count: int) -> Overlap:
        """The best of the first `count` samples, chosen by their IoU with the truth: an oracle."""
        return max(self.answers[:count], key=lambda answer: answer.iou) if self.answers else self.nothing()

    def chosen(self) -> Overlap:
        """The service's own first choice."""
        return self.answers[self.first] if self.answers else self.nothing()

    def nothing(self) -> Overlap:
        """An empty answer."""
        return Overlap(0, self.area, 0, self.hidden, 0.0, dict.fromkeys(self.in_front, 0))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Row:
        return cls(
            **{
                **value,
                "groups": tuple(value["groups"]),
                "scores": tuple(value["scores"]),
                "corner": tuple(value["corner"]),
                "answers": tuple(Overlap(**answer) for answer in value["answers"]),
                "baselines": {name: Overlap(**answer) for name, answer in value["baselines"].items()},
            }
        )
