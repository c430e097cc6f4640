"""The TensorRT runtime's own logic, on a recorded fake of its API: what is chosen, padded, shared, refused."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deocc_engines.bundle import sha256_of
from deocc_engines.compile.listing import Artefact, Listing, Verdict
from deocc_engines.components import Call
from deocc_engines.errors import EngineFailure, InvalidBundle, Unavailable
from deocc_engines.runtimes import selection
from deocc_engines.runtimes.card import Card, card_here
from deocc_engines.runtimes.profiles import choose_plans, split
from deocc_engines.runtimes.tensorrt import EngineSet
from tests.engines.fake_tensorrt import FakeTensorrt

CARD = Card("tensorrt_rtx", "1.7.1", "89")
IDENTITY = "tensorrt_rtx-f16@1.7.1-sm89"
PASSED = {IDENTITY: Verdict("relative_l2", 1e-3, 6e-2, True)}
CALLS = {
    "denoise": Call("unet", nn.Identity(), (torch.zeros(1, 4, 8, 8), torch.ones(1))),
    "sam_decode": Call("sam", nn.Identity(), (torch.zeros(1, 2, 2), torch.ones(1, 2)), dynamic=(0, 1), exact=True),
}


def port(name: str, profile: list[list[int]], dtype: str = "FLOAT") -> dict[str, Any]:
    return {"name": name, "profile": profile, "dtype": dtype}


def write_plan(
    folder: Path, call: str, rows: int, *, sm: str = "89", built_for: str = "89", dtype: str = "FLOAT", memory: int = 0
) -> Artefact:
    """A plan that the fake understands, and its entry in a listing."""
    if call == "denoise":
        inputs = [port("z", [[rows, 4, 8, 8]] * 3, dtype), port("t", [[rows]] * 3)]
        outputs = [port("out", [[rows, 4, 8, 8]] * 3)]
    else:
        inputs = [
            port("points", [[rows, 1, 2], [rows, 2, 2], [rows, 6, 2]]),
            port("labels", [[rows, 1], [rows, 2], [rows, 6]]),
        ]
        outputs = [port("masks", []), port("scores", [])]
    own = "f32" if CALLS[call].exact else "f16"
    artefact = Artefact(call, "trt-rtx", CARD.runtime, own, sm, (rows,) * 3, f"{call}{rows}{sm}", {}, dict(PASSED))
    plan = folder / str(artefact.plan)
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_text(json.dumps({"sm": built_for, "memory": memory, "inputs": inputs, "outputs": outputs}))
    ends = {"inputs": [p["name"] for p in inputs], "outputs": [p["name"] for p in outputs]}
    plan.with_suffix(".json").write_text(json.dumps(ends))
    artefact.files[str(artefact.plan)] = {"sha256": sha256_of(plan), "size": plan.stat().st_size}
    return artefact


@pytest.fixture
def plans(tmp_path: Path) -> list[Artefact]:
    return [
        write_plan(tmp_path, "denoise", 4, memory=4096),
        write_plan(tmp_path, "denoise", 1, memory=1024),
        write_plan(tmp_path, "sam_decode", 1, memory=512),
    ]


def opened(trt: FakeTensorrt, folder: Path, plans: list[Artefact]) -> EngineSet:
    chosen = choose_plans(Listing("tiny@0", tuple(plans)), CALLS, CARD).plans
    return EngineSet(trt, trt.device, folder, CALLS, chosen)


@pytest.mark.parametrize(
    ("rows", "runs"),
    [
        (1, [(1, 1)]),
        (2, [(2, 2)]),
        (3, [(3, 4)]),
        (4, [(4, 4)]),
        (5, [(4, 4), (1, 1)]),
        (11, [(4, 4), (4, 4), (3, 4)]),
    ],
)
def test_rows_go_to_the_smallest_profile_that_holds_them(rows: int, runs: list[tuple[int, int]]) -> None:
    assert list(split(rows, (1, 2, 4))) == runs


def test_everything_is_ready_before_the_first_request(tmp_path: Path, plans: list[Artefact]) -> None:
    trt = FakeTensorrt()
    engines = opened(trt, tmp_path, plans)
    assert engines.batches("denoise") == (1, 4)
    # Hashes and validity first, then all plans, then one activation buffer of the largest for all contexts.
    assert trt.names()[:6] == ["validity", "deserialize"] * 3
    assert trt.record[6] == ("empty", (4096,), torch.uint8)
    memory = {entry[1:] for entry in trt.record if entry[0] == "memory"}
    assert len(memory) == 1
    assert next(iter(memory))[1] == 4096
    assert trt.names().count("capture") == 2  # a graph each for denoise at 1 and 4
    contexts = [entry for entry in trt.record if entry[0] in ("context", "memory", "profile", "shape")]
    assert contexts[:4] == [("context", "user-managed"), contexts[1], ("profile", 0, 77), ("shape", "z", (1, 4, 8, 8))]
    # One buffer a tensor for both profiles.
    addresses = {name: {a for _, n, a in trt.record_of("address") if n == name} for name in ("z", "t", "out")}
    assert all(len(own) == 1 for own in addresses.values())


def test_a_batch_is_padded_up_and_cut_again(tmp_path: Path, plans: list[Artefact]) -> None:
    trt = FakeTensorrt()
    run = opened(trt, tmp_path, plans).call("denoise")
    z, t = torch.randn(7, 4, 8, 8), torch.arange(7.0)
    trt.record.clear()
    assert torch.equal(run(z, t), z * 2)
    # Seven rows: four, then three that are padded to four; a graph's replay each.
    once = [("put", (4, 4, 8, 8)), ("put", (4,)), ("execute", (4, 4, 8, 8)), ("replay",)]
    assert trt.record == [*once, ("take", (4, 4, 8, 8)), *once, ("take", (3, 4, 8, 8))]


def test_a_prompt_of_any_length_runs_without_a_graph(tmp_path: Path, plans: list[Artefact]) -> None:
    trt = FakeTensorrt()
    run = opened(trt, tmp_path, plans).call("sam_decode")
    for tokens in (1, 5):
        trt.record.clear()
        points = torch.randn(1, tokens, 2)
        masks, scores = run(points, torch.ones(1, tokens))
        assert torch.equal(masks, points * 2)
        assert masks.shape == scores.shape
        assert ("shape", "points", (1, tokens, 2)) in trt.record
        assert "replay" not in trt.names()


@pytest.mark.parametrize(
    ("z", "t"),
    [
        (torch.zeros(1, 4, 8, 9), torch.ones(1)),
        (torch.zeros(1, 4, 4, 8), torch.ones(1)),
        (torch.zeros(1, 4, 8, 8, dtype=torch.float16), torch.ones(1)),
    ],
)
def test_what_is_off_the_profile_is_refused_not_run(
    tmp_path: Path, plans: list[Artefact], z: torch.Tensor, t: torch.Tensor
) -> None:
    trt = FakeTensorrt()
    run = opened(trt, tmp_path, plans).call("denoise")
    trt.record.clear()
    with pytest.raises(EngineFailure, match="denoise: z"):
        run(z, t)
    assert not trt.record


def test_too_many_points_are_refused(tmp_path: Path, plans: list[Artefact]) -> None:
    run = opened(FakeTensorrt(), tmp_path, plans).call("sam_decode")
    with pytest.raises(EngineFailure, match="points"):
        run(torch.zeros(1, 7, 2), torch.ones(1, 7))


def test_an_altered_plan_never_reaches_the_runtime(tmp_path: Path, plans: list[Artefact]) -> None:
    plan = tmp_path / str(plans[1].plan)
    plan.write_text(plan.read_text() + " ")
    trt = FakeTensorrt()
    with pytest.raises(InvalidBundle, match="was altered"):
        opened(trt, tmp_path, plans)
    assert "deserialize" not in trt.names()
    assert "validity" not in trt.names()


def test_a_plan_for_another_card_is_not_deserialised(tmp_path: Path, plans: list[Artefact]) -> None:
    plans[1] = write_plan(tmp_path, "denoise", 1, built_for="86")
    trt = FakeTensorrt()
    with pytest.raises(InvalidBundle, match="not for this card"):
        opened(trt, tmp_path, plans)
    assert "deserialize" not in trt.names()


def test_a_plan_of_another_type_is_refused(tmp_path: Path, plans: list[Artefact]) -> None:
    plans[1] = write_plan(tmp_path, "denoise", 1, dtype="HALF")
    with pytest.raises(InvalidBundle, match=r"z is DataType\.HALF"):
        opened(FakeTensorrt(), tmp_path, plans)


def _changed(plans: list[Artefact], **changes: Any) -> list[Artefact]:
    return [dataclasses.replace(artefact, **changes) for artefact in plans]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sm": "86"}, r"plans for sm86 with tensorrt_rtx-1.7.1, none for sm89"),
        ({"runtime": "tensorrt_rtx-1.6.0"}, r"none for sm89 with tensorrt_rtx-1.7.1"),
        ({"parity": {}}, "never compared"),
        ({"parity": {"tensorrt_rtx-f16@1.7.1-sm86": PASSED[IDENTITY]}}, "never compared"),
        ({"parity": {IDENTITY: Verdict("relative_l2", 0.5, 0.06, False)}}, "failed parity"),
        ({"call": "denoise"}, "sam_decode is not compiled"),
    ],
)
def test_plans_are_refused_with_a_reason(plans: list[Artefact], changes: dict[str, Any], reason: str) -> None:
    choice = choose_plans(Listing("tiny@0", tuple(_changed(plans, **changes))), CALLS, CARD)
    assert not choice.plans
    assert reason in choice.refusal


def test_for_the_comparison_itself_unverified_plans_are_taken(plans: list[Artefact]) -> None:
    listing = Listing("tiny@0", tuple(_changed(plans, parity={})))
    choice = choose_plans(listing, CALLS, CARD, unverified=True)
    assert choice.identity == IDENTITY
    assert [a.batch[2] for a in choice.plans["denoise"]] == [1, 4]


def test_without_a_card_there_is_a_reason() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(Unavailable, match="no CUDA device"):
        card_here("tensorrt_rtx")


def test_falling_back_to_torch_is_loud(bundle: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(selection, "card_here", lambda module: CARD)
    monkeypatch.setattr(selection.cuda, "compile_call", lambda name, call, **_: call.module)
    monkeypatch.setattr(selection.cuda, "version_here", lambda: "2.13-sm89")
    with caplog.at_level(logging.WARNING):
        runtime = selection.runtime_of(bundle, {**CALLS, **_others()}, "auto", 1)
    assert runtime.name == "torch-cuda-f16"
    assert "NOT running on TensorRT" in caplog.text
    assert "the bundle holds no plans" in caplog.text
    with pytest.raises(InvalidBundle, match="the bundle holds no plans"):
        selection.runtime_of(bundle, CALLS, "tensorrt", 1)


def _others() -> dict[str, Call]:
    names = ("encode_text", "encode_image", "decode_image", "decode_mask", "sam_encode")
    return {name: Call("vae", nn.Identity(), (torch.zeros(1),)) for name in names}
