"""The command: files, JSON, exit statuses."""

from __future__ import annotations

import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from deocc.cli import main
from deocc.v1 import deocclusion_pb2 as v1
from deocc_engines import errors as engine_errors

from .conftest import REQUEST_ID, Script, completion, png


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png("RGB"))
    return path


def stream_of(*seeds: int) -> list[v1.CompleteStreamResponse]:
    result = completion(seeds[0])
    for seed in seeds[1:]:
        result.samples.append(completion(seed).samples[0])
    progress = v1.Progress(stage=v1.STAGE_LOCAL, step=1, steps=2, fraction=0.5)
    return [v1.CompleteStreamResponse(progress=progress), v1.CompleteStreamResponse(result=result)]


def test_complete(script: Script, grpc_target: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.outcomes.append(stream_of(7, 8))
    out = photo.with_name("out.png")
    options = ["--point", "3,4", "--point", "1,1,0", "--samples", "2", "--crop", "--text", "a cup", "--json"]
    options += ["--priority", "high", "--draws", "2"]
    assert run("complete", photo, "--grpc", grpc_target, "-o", out, *options) == 0
    said = json.loads(capsys.readouterr().out)
    assert [sample["seed"] for sample in said["samples"]] == [7, 8]
    assert [sample["file"] for sample in said["samples"]] == [str(out), str(photo.with_name("out-1.png"))]
    assert said["samples"][0]["box"] == [1, 2, 5, 6]
    assert (said["already_whole"], said["engine_id"]) == (False, "fake@1")
    assert out.read_bytes() == png()
    request = script.requests[0]
    assert (request.options.text, request.options.num_samples) == ("a cup", 2)
    assert request.options.priority == v1.PRIORITY_HIGH
    assert request.options.draws == 2
    assert [point.label for point in request.prompt.points] == [1, 2]
    assert request.image.content == png("RGB")


def test_standard_input_and_output(
    script: Script, grpc_target: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    script.outcomes.append(stream_of(7))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(png("RGB"))))
    assert run("complete", "-", "--grpc", grpc_target, "--point", "1,1", "-o", "-") == 0
    captured = capfdbinary.readouterr()
    assert captured.out == png()
    assert b"seed 7" in captured.err
    assert script.requests[0].image.content == png("RGB")


def test_segment_into_a_folder(script: Script, grpc_target: str, photo: Path) -> None:
    modal = completion().modal
    script.outcomes.append(v1.SegmentResponse(candidates=[modal, modal]))
    folder = photo.with_name("masks")
    assert run("segment", photo, "--grpc", grpc_target, "--point", "1,1", "--all", "-q", "-o", f"{folder}/") == 0
    assert sorted(os.listdir(folder)) == ["photo-1.png", "photo.png"]
    assert (folder / "photo.png").read_bytes() == png("L")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (engine_errors.InvalidPrompt("outside", field="prompt.points[0].x"), 3),
        (engine_errors.NotFound("no such engine"), 4),
        (engine_errors.Overloaded("full", retry_after=99), 5),
        (engine_errors.DeadlineExceeded("late"), 6),
        (engine_errors.EngineFailure("broken"), 7),
        (engine_errors.InvalidBundle("altered"), 7),
    ],
)
def test_exit_statuses(
    script: Script,
    grpc_target: str,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    error: engine_errors.DeoccError,
    status: int,
) -> None:
    script.outcomes.append(error)
    out = photo.with_name("out.png")
    assert run("complete", photo, "--grpc", grpc_target, "--point", "1,1", "-o", out, "--json") == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert error.message in captured.err
    assert REQUEST_ID in captured.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["complete", "{photo}", "--point", "1;1", "-o", "{out}"], 2),
        (["complete", "{photo}", "--box", "1,1", "-o", "{out}"], 2),
        (["complete", "{photo}", "--point", "1,1", "-o", "out.jpg"], 2),
        (["complete", "{photo}", "--point", "1,1", "-o", "{photo}"], 2),
        (["complete", "{photo}", "--point", "1,1", "-o", "-", "--samples", "2"], 2),
        (["complete", "{photo}", "--point", "1,1", "-o", "-", "--json"], 2),
        (["complete", "{photo}", "--point", "1,1", "-o", "{out}", "--local"], 2),
        (["complete", "{photo}", "--point", "1,1"], 2),
        (["complete", "{photo}", "-o", "{out}"], 3),
        (["complete", "missing.png", "--point", "1,1", "-o", "{out}"], 4),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_sent(arguments: list[str], status: int, photo: Path) -> None:
    out = photo.with_name("out.png")
    filled = [argument.format(photo=photo, out=out) for argument in arguments]
    assert run(*filled, "--grpc", "127.0.0.1:1") == status


def test_nobody_answers(photo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEOCC_URL", "http://127.0.0.1:1")
    assert run("complete", photo, "--point", "1,1", "-o", photo.with_name("out.png")) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "trying again" in captured.err
    assert "could not be reached" in captured.err


def test_doctor_finds_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run("doctor", "--http-port", str(port), "--json") == 1
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    by_name = {entry["name"]: entry["ok"] for entry in found}
    assert by_name["python"] is True
    assert by_name[f"HTTP port {port}"] is False


def test_doctor_knows_a_port_that_deocc_holds(
    script: Script, grpc_target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = v1.Engine(engine_id="fake@1", is_default=True)
    script.outcomes.append(v1.ListEnginesResponse(engines=[engine]))
    port = grpc_target.rpartition(":")[2]
    run("doctor", "--http-port", "0", "--grpc-port", port, "--json")
    found = {entry["name"]: (entry["ok"], entry["detail"]) for entry in json.loads(capsys.readouterr().out)}
    assert found[f"gRPC port {port}"] == (True, "deocc runs there with fake@1")


def test_help_documents_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 130):
        assert f"{code}: " in text
    assert run("--version") == 0
