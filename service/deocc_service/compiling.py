"""Compiling, comparing and measuring bundles: entry points of the client's group ``deocc.local``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deocc.errors import NotInstalled
from deocc_engines.bundle import Bundle, find
from deocc_engines.errors import DeoccError, InvalidOption
from deocc_service.inprocess import client_error

__all__ = ["bench", "compile_engine", "parity"]

# What each target is served by on the machine that compiles it; None: only a GPU can run it.
RUNNABLE = {"openvino": "openvino", "onnx": "onnx"}


def compile_engine(
    engine: str | None,
    *,
    target: str,
    sms: Sequence[str],
    dtype: str | None,
    batches: Sequence[int],
    calls: Sequence[str],
    into: Path | None,
    say: Callable[[str], None],
) -> dict[str, object]:
    """Builds for one target, and compares what can be run here with the reference.

    Args:
        into: a new folder, for bundles that must stay as they are.
        say: told what was built, in words.

    Raises:
        InvalidOption, InvalidBundle, NotFound, Unavailable, NotInstalled.
    """
    with _client_errors():
        from deocc_engines.compile.build import Built, CompileOptions, compile_bundle
        from deocc_engines.compile.parity import verify_engine

        options = CompileOptions(target, tuple(sms), dtype, tuple(batches), tuple(calls))  # type: ignore[arg-type]
        options.check()
        bundle = _copied(find(engine), into)

        def on_event(built: Built) -> None:
            own, size = built.artefact, f"{built.size / 2**20:.1f} MiB"
            card = f" sm{own.sm} batch {own.batch[2]}" if own.sm else ""
            how = "cached" if built.cached else f"{built.seconds:.1f} s"
            say(f"[{built.index}/{built.count}] {own.call} {own.runtime}{card} {own.dtype}: {size}, {how}")

        say(f"compiling {bundle.engine_id} for {target}")
        listing = compile_bundle(bundle, options, on_event)
        compared = None
        if target in RUNNABLE:
            say("comparing with the reference")
            found = verify_engine(Bundle.open(bundle.path), RUNNABLE[target], image=False)  # type: ignore[arg-type]
            compared = {"passed": found.verdicts.passed, **asdict(found)}
        return {
            "engine_id": bundle.engine_id,
            "path": str(bundle.path),
            "target": target,
            "artefacts": [asdict(artefact) for artefact in listing.artefacts if artefact.target == target],
            "parity": compared,
        }


def parity(engine: str | None, *, runtime: str, image: bool, say: Callable[[str], None]) -> dict[str, object]:
    """Compares what would be served with the reference, and records it.

    Returns:
        The fields of `Verification`, and "passed".

    Raises:
        InvalidBundle, NotFound, Unavailable, NotInstalled.
    """
    with _client_errors():
        from deocc_engines.compile.parity import Compared, verify_engine

        def on_event(compared: Compared) -> None:
            verdict = compared.verdict
            mark = "ok" if verdict.passed else "FAILED"
            words = f"{compared.call or 'image'} {verdict.measure} {verdict.value:.3g} ({verdict.threshold:.3g})"
            say(f"{mark:6} {words}")

        found = verify_engine(find(engine), runtime, image=image, on_event=on_event)  # type: ignore[arg-type]
        return {"passed": found.verdicts.passed, **asdict(found)}


def bench(
    engine: str | None, *, runtime: str, rounds: int, batches: Sequence[int], say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures an engine on this machine.

    Returns:
        The fields of `Bench`, "speedup" and "speedup_in_company" of the denoiser over torch float32, and "gflops" of
        every timing.

    Raises:
        InvalidBundle, NotFound, Unavailable.
    """
    with _client_errors():
        from deocc_engines.compile.bench import bench_engine

        measured = bench_engine(find(engine), runtime, rounds=rounds, batches=tuple(batches), on_event=say)  # type: ignore[arg-type]
        timings = [{**asdict(timing), "gflops": timing.gflops} for timing in measured.timings]
        speedups = {"speedup": measured.speedup(), "speedup_in_company": measured.speedup_in_company()}
        return {**asdict(measured), "timings": timings, **speedups}


def _copied(bundle: Bundle, into: Path | None) -> Bundle:
    if into is None:
        return bundle
    if into.exists():
        raise InvalidOption(f"{into} is there already", field="into")
    shutil.copytree(bundle.path, into)
    return Bundle.open(into)


@contextmanager
def _client_errors() -> Iterator[None]:
    try:
        yield
    except DeoccError as error:
        raise client_error(error) from error
    except ModuleNotFoundError as error:
        raise NotInstalled(f"{error.name} is missing; pip install 'deocc[export]' brings it") from error
