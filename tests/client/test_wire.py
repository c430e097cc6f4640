"""The same answers and the same errors, whichever way they come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import deocc
from deocc.v1 import deocclusion_pb2 as v1
from deocc_engines import errors as engine_errors

from .conftest import REQUEST_ID, Ask, Script, completion, png

POINT = [(3, 4)]


def progress(fraction: float) -> v1.CompleteStreamResponse:
    return v1.CompleteStreamResponse(
        progress=v1.Progress(stage=v1.STAGE_GLOBAL, step=1, steps=2, fraction=fraction),
    )


def test_complete(ask: Ask, script: Script) -> None:
    script.outcomes.append(completion())
    result = ask(
        "complete", png("RGB"), points=[(3, 4), (5.5, 1, 0)], seed=0, keep_visible=False, output="crop", priority="low"
    )
    assert result.seed == 7
    assert result.png == result.best.png == png()
    assert result.image.size == (8, 6)
    assert result.mask.shape == (6, 8)
    assert result.mask.all()
    assert result.box == deocc.Box(1, 2, 5, 6)
    assert (result.score, result.occluded_fraction, result.rim) == (0.75, 0.5, 2)
    assert (result.engine_id, result.image_id, dict(result.timings)) == ("fake@1", "sha256:00", {"complete": 0.25})
    assert not result.already_whole
    (request,) = script.requests
    assert request.image.content == png("RGB")
    assert [(p.x, p.y, p.label) for p in request.prompt.points] == [(3, 4, 1), (5.5, 1, 2)]
    options = request.options
    assert (options.seed, options.keep_visible, options.output) == (0, False, v1.OUTPUT_CROP)
    assert options.priority == v1.PRIORITY_LOW
    assert options.HasField("seed")
    assert not options.HasField("steps")  # the engine's default, not ours


def test_segment_upload_engines(ask: Ask, script: Script) -> None:
    modal = completion().modal
    script.outcomes += [
        v1.UploadImageResponse(image_id="sha256:11", size=v1.ImageSize(width=8, height=6), expires_in_seconds=60),
        v1.SegmentResponse(candidates=[modal, modal], image_id="sha256:11", engine_id="fake@1"),
        v1.ListEnginesResponse(engines=[v1.Engine(engine_id="fake@1", limits=v1.Limits(max_bytes=2**40))]),
    ]
    uploaded = ask("upload", png("RGB"))
    assert uploaded == deocc.UploadedImage("sha256:11", 8, 6, 60)
    assert script.requests[0] == png("RGB")
    found = ask("segment", uploaded, box=(0, 0, 4, 4))
    assert script.requests[1].image.image_id == "sha256:11"
    assert len(found.candidates) == 2
    assert found.best.score == 0.5
    (engine,) = ask("engines")
    assert engine.limits.max_bytes == 2**40


def test_stream(ask: Ask, script: Script) -> None:
    result = completion()
    script.outcomes.append(
        [
            v1.CompleteStreamResponse(modal=result.modal),
            progress(0.0),  # proto3 leaves zeros out: the event must not get lost
            v1.CompleteStreamResponse(preview=v1.Preview(rgba_png=png(), box=result.samples[0].box)),
            v1.CompleteStreamResponse(sample=result.samples[0]),
            v1.CompleteStreamResponse(result=result),
        ]
    )
    events = ask("stream", png("RGB"), points=POINT, preview_every=2)
    kinds = [deocc.ModalMask, deocc.Progress, deocc.Preview, deocc.Sample, deocc.Completion]
    assert [type(event) for event in events] == kinds
    assert events[1] == deocc.Progress(deocc.Stage.GLOBAL, 0, 1, 2, 0.0)
    assert script.requests[0].preview_every == 2


ERRORS = [
    (engine_errors.InvalidPrompt("no", field="prompt.points[0].x"), deocc.InvalidPrompt),
    (engine_errors.InvalidImage("no", field="image.content"), deocc.InvalidImage),
    (engine_errors.InvalidOption("no"), deocc.InvalidOption),
    (engine_errors.TooLarge("no"), deocc.TooLarge),
    (engine_errors.UnsupportedMedia("no"), deocc.UnsupportedMedia),
    (engine_errors.NotFound("no", field="image.image_id"), deocc.NotFound),
    (engine_errors.DeadlineExceeded("no"), deocc.DeadlineExceeded),
    (engine_errors.Cancelled("no"), deocc.Cancelled),
    (engine_errors.InvalidBundle("no"), deocc.InvalidBundle),
    (engine_errors.EngineFailure("no"), deocc.ServerError),
    (engine_errors.Overloaded("no", retry_after=90), deocc.Overloaded),  # longer than anyone waits
]


@pytest.mark.parametrize(("sent", "kind"), ERRORS, ids=lambda value: getattr(value, "reason", ""))
def test_errors_keep_their_meaning_and_are_not_retried(
    ask: Ask, script: Script, sent: engine_errors.DeoccError, kind: type[deocc.DeoccError]
) -> None:
    script.outcomes += [sent, completion()]
    with pytest.raises(deocc.DeoccError) as caught:
        ask("complete", png("RGB"), points=POINT)
    error = caught.value
    assert type(error) is kind
    assert (error.message, error.field, error.reason) == (sent.message, sent.field, sent.reason)
    assert error.request_id == REQUEST_ID
    assert getattr(error, "retry_after", None) == getattr(sent, "retry_after", None)
    assert len(script.requests) == 1


def test_every_error_of_the_engines_has_a_counterpart() -> None:
    reasons = {getattr(engine_errors, name).reason for name in engine_errors.__all__}
    assert reasons <= {getattr(deocc, name).reason for name in deocc.__all__ if hasattr(getattr(deocc, name), "reason")}


@pytest.mark.parametrize("method", ["complete", "stream"])
def test_unavailable_is_tried_again(ask: Ask, script: Script, method: str) -> None:
    result: Any = completion()
    script.outcomes += [
        engine_errors.Unavailable("loading"),
        [v1.CompleteStreamResponse(result=result)] if method == "stream" else result,
    ]
    ask(method, png("RGB"), points=POINT)
    assert len(script.requests) == 2


def test_a_failure_inside_a_stream_is_not_tried_again(ask: Ask, script: Script) -> None:
    script.outcomes += [[progress(0.5), engine_errors.Unavailable("lost", field="x")], [progress(0.5)]]
    with pytest.raises(deocc.Unavailable) as caught:
        ask("stream", png("RGB"), points=POINT)
    assert caught.value.request_id == REQUEST_ID
    assert len(script.requests) == 1


def test_a_cut_stream_is_no_end(ask: Ask, script: Script) -> None:
    script.outcomes.append([progress(0.5)])
    with pytest.raises(deocc.ServerError, match="ended before its result"):
        ask("stream", png("RGB"), points=POINT)


def test_results_write_the_bytes_that_were_sent(ask: Ask, script: Script, tmp_path: Any) -> None:
    script.outcomes.append(completion())
    result = ask("complete", np.zeros((6, 8, 3), np.uint8), mask=np.eye(6, 8, dtype=bool))
    result.save(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == result.png == result._repr_png_()
    result.save(tmp_path / "out.webp")
    assert (tmp_path / "out.webp").read_bytes()[8:12] == b"WEBP"
