"""The report of a verification: everything as JSON, what matters as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.gpu.verification import Outcome

__all__ = ["write_report"]

STATES = {True: "done", False: "**failed**"}


def write_report(
    folder: Path, machine: Mapping[str, Any], options: Mapping[str, Any], outcomes: Sequence[Outcome]
) -> None:
    """`report.json` and `report.md`."""
    document = {"machine": machine, "options": options, "stages": [asdict(outcome) for outcome in outcomes]}
    (folder / "report.json").write_text(json.dumps(document, indent=2, default=str) + "\n")
    (folder / "report.md").write_text("\n".join(_lines(machine, options, outcomes)) + "\n")


def _lines(machine: Mapping[str, Any], options: Mapping[str, Any], outcomes: Sequence[Outcome]) -> Iterator[str]:
    card = machine["card"]
    yield "# GPU verification"
    yield ""
    if machine["rehearsal"]:
        yield "**A rehearsal without a GPU. Nothing here says anything of TensorRT's results or of a card's speed.**"
    else:
        sm = card["compute_cap"].replace(".", "")
        yield f"{card['name']} (sm{sm}), driver {card['driver_version']}, {card['memory.total']}"
    yield ""
    engine = next((o.result["engine_id"] for o in outcomes if o.result and "engine_id" in o.result), "none")
    yield f"{machine['host']}, {machine['cores']} cores, Python {machine['python']}; engine {engine}"
    yield ""
    yield "; ".join(f"{name} {version}" for name, version in machine["packages"].items())
    yield ""
    yield "| stage | | s |"
    yield "|---|---|---|"
    for outcome in outcomes:
        state = f"skipped: {outcome.said[-1]}" if outcome.state == "skipped" else STATES[outcome.ok]
        yield f"| {outcome.name} | {state} | {outcome.seconds:.1f} |"
    for outcome in outcomes:
        yield from _section(outcome)


def _section(outcome: Outcome) -> Iterator[str]:
    kind, result = outcome.name.split()[0], outcome.result
    if outcome.state == "skipped":
        return
    if not outcome.ok:
        yield from ("", f"## {outcome.name}: failed", "", f"`{outcome.command}`", "", "```", *outcome.said, "```")
    if result is None:
        return
    table = {"compile": _compiled, "parity": _parity, "bench": _bench, "images": _images, "serve": _load}[kind]
    yield from ("", f"## {outcome.name}", "")
    yield from table(result)


def _compiled(result: dict[str, Any]) -> Iterator[str]:
    yield from ("| call | type | rows | MiB |", "|---|---|---|---|")
    for artefact in result["artefacts"]:
        size = sum(entry["size"] for entry in artefact["files"].values()) / 2**20
        yield f"| {artefact['call']} | {artefact['dtype']} | {artefact['batch'][2]} | {size:.1f} |"


def _parity(result: dict[str, Any]) -> Iterator[str]:
    yield f"{result['identity']}: {'passed' if result['passed'] else '**failed**'}"
    yield from ("", "| of | measure | value | allowed |", "|---|---|---|---|")
    image = [("the image", verdict) for verdict in result["verdicts"]["image"]]
    for name, verdict in (*result["verdicts"]["calls"].items(), *image):
        mark = "" if verdict["passed"] else " **failed**"
        yield f"| {name} | {verdict['measure']} | {verdict['value']:.3g}{mark} | {verdict['threshold']:.3g} |"


def _bench(result: dict[str, Any]) -> Iterator[str]:
    memory = result["memory"]
    yield (
        f"{result['runtime']}: a step {result['speedup']:.2f} times as fast as torch float32 on this machine's CPU; "
        f"{memory['host'] / 2**30:.2f} GiB of the host, {memory['device'] / 2**30:.2f} GiB of the card"
    )
    yield from ("", "| call | runtime | rows | in flight | ms | GFLOP/s | of peak |", "|---|---|---|---|---|---|---|")
    for t in result["timings"]:
        share = "" if t["peak_share"] is None else f"{t['peak_share']:.0%}"
        cells = (t["call"], t["runtime"], t["rows"], t["in_flight"], f"{t['seconds'] * 1e3:.2f}", f"{t['gflops']:.0f}")
        yield f"| {' | '.join(map(str, cells))} | {share} |"


def _images(result: dict[str, Any]) -> Iterator[str]:
    yield f"{result['runtime']}, loaded in {result['loading_seconds']:.1f} s"
    yield from ("", "| samples | steps | s | s each |", "|---|---|---|---|")
    for row in result["images"]:
        each = row["seconds"] / row["samples"]
        yield f"| {row['samples']} | {row['steps']} | {row['seconds']:.3f} | {each:.3f} |"


def _load(result: dict[str, Any]) -> Iterator[str]:
    runtimes = ", ".join(sorted(set(result["runtimes"].values())))
    yield f"{runtimes}, ready after {result['start_seconds']:.1f} s"
    yield from ("", "| in flight | images/s | p50 s | p95 s | refused |", "|---|---|---|---|---|")
    for level in result["levels"]:
        p50, p95 = (f"{level[name]:.3f}" if level[name] is not None else "" for name in ("p50", "p95"))
        refused = ", ".join(f"{count} of {status}" for status, count in level["refused"].items())
        yield f"| {level['in_flight']} | {level['images_a_second']:.2f} | {p50} | {p95} | {refused} |"
