"""The log for people; `test_main` reads the one for programs."""

from __future__ import annotations

import pytest
import structlog

from deocc_service.calls import Call, configure_log


def test_the_log_can_be_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_log("text")
    try:
        call = Call("http", "POST /v1/complete", {"x-request-id": "abc-3"})
        call.failed(RuntimeError("boom"))
        call.log(500)
    finally:
        structlog.reset_defaults()
    text = capsys.readouterr().err
    for part in ("request_id=abc-3", "method=Complete", "code=ENGINE_FAILURE", "RuntimeError: boom"):
        assert part in text
