"""A photo and a prompt in, the whole object out: both models behind one face."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from deocc_engines.completer import Completer
from deocc_engines.completion import Completion, CompletionOptions, Event, ModalMask, Progress, Stage
from deocc_engines.embeddings import EmbeddingCache
from deocc_engines.image import Photo
from deocc_engines.limits import Limits
from deocc_engines.mask import clean
from deocc_engines.prompt import Prompt
from deocc_engines.segmenter import Segmenter

__all__ = ["Deoccluder"]


def _ignore(event: Event) -> None:
    pass


def _proceed() -> None:
    pass


@dataclass(frozen=True)
class Deoccluder:
    """Segmenter and completer of one bundle. Safe to call from several threads at once."""

    segmenter: Segmenter
    completer: Completer
    embeddings: EmbeddingCache
    limits: Limits = Limits()

    def segment(self, photo: Photo, prompt: Prompt) -> tuple[ModalMask, ...]:
        """Candidate modal masks, best first.

        Raises:
            InvalidPrompt, TooLarge: the prompt does not fit the image.
        """
        return self.segment_all(photo, (prompt,))[0]

    def segment_all(self, photo: Photo, prompts: Sequence[Prompt]) -> tuple[tuple[ModalMask, ...], ...]:
        """Candidates of several prompts, decoded together; the photo is encoded once, or was before.

        Raises:
            InvalidPrompt, TooLarge: a prompt does not fit the image.
        """
        for prompt in prompts:
            prompt.check(photo.width, photo.height, self.limits)
        embedding = self.embeddings.get(photo.image_id, lambda: self.segmenter.embed(photo.pixels))
        return self.segmenter.segment_all(embedding, photo.pixels, prompts)

    def complete(
        self,
        photo: Photo,
        prompt: Prompt,
        options: CompletionOptions = CompletionOptions(),
        *,
        on_event: Callable[[Event], None] = _ignore,
        stop: Callable[[], None] = _proceed,
    ) -> Completion:
        """The whole object, `options.num_samples` times.

        Args:
            on_event: called at every step, preview and finished sample, one call at a time, from any thread.
            stop: asked before every step; it raises (Cancelled, DeadlineExceeded) to end the work.

        Raises:
            InvalidInput: the prompt or an option is wrong.
        """
        options.check(self.limits)
        self.completer.preset(options.preset)
        started = time.perf_counter()
        modal = self.modal_mask(photo, prompt)
        on_event(modal)
        on_event(Progress(Stage.SEGMENT, 0, 1, 1, 0.0))
        segmented = time.perf_counter()
        completion = self.completer.complete(photo.pixels, modal, options, on_event=on_event, stop=stop)
        return replace(completion, seconds={"segment": segmented - started, **completion.seconds})

    def modal_mask(self, photo: Photo, prompt: Prompt) -> ModalMask:
        """The mask that the caller gave, without its specks, or the segmenter's best."""
        prompt.check(photo.width, photo.height, self.limits)
        if prompt.mask is not None:
            return ModalMask.of(clean(prompt.mask), score=1.0)
        return self.segment(photo, prompt)[0]
