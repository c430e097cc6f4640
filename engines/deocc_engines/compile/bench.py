"""`deocc engines bench`: how fast an engine is on this machine, beside plain torch and the machine's own peak.

All contenders run in turn, round after round: what else the machine does falls on all of them alike, so ratios hold
where seconds do not.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from deocc_engines.bundle import Bundle
from deocc_engines.compile.flops import flops_of
from deocc_engines.compile.memory import Memory, memory_of
from deocc_engines.compile.peak import gemm
from deocc_engines.components import Call, calls_of, load_networks
from deocc_engines.runtimes import Runtime, reference
from deocc_engines.runtimes.selection import RuntimeName, runtime_of

__all__ = ["Bench", "Timing", "bench_engine", "interleaved"]

BATCHES = (1, 2, 4, 8)
LONG = 0.2  # seconds that the parts of a round take at least


@dataclass(frozen=True)
class Timing:
    """One call on one runtime.

    Attributes:
        rows: of each request.
        in_flight: requests at once.
        seconds: of one request, the median; with several in flight, of all of them.
        gflop: of what was done in that time.
        peak_share: of what a product of matrices reached in the same run, as many in flight; None where none was run.
    """

    call: str
    runtime: str
    rows: int
    in_flight: int
    seconds: float
    gflop: float
    peak_share: float | None

    @property
    def gflops(self) -> float:
        """A second."""
        return self.gflop / self.seconds


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes:
        peak: GFLOP/s of a product of matrices, by requests in flight.
        timings: first the plain torch float32 of each call, then the runtime's.
    """

    engine_id: str
    runtime: str
    peak: dict[int, float]
    memory: Memory
    timings: tuple[Timing, ...]

    def speedup(self, call: str = "denoise") -> float:
        """Seconds of torch float32 over seconds of the runtime, one row, one request."""
        own = {t.runtime: t.seconds for t in self.timings if (t.call, t.rows, t.in_flight) == (call, 1, 1)}
        return own[reference.NAME] / own[self.runtime]

    def speedup_in_company(self, call: str = "denoise") -> float:
        """The same by row, in the best company that was measured: of rows in a request, of requests in flight. Torch
        has all cores for one request, a runtime of the CPU one core for each."""
        plain = next(t.seconds for t in self.timings if (t.call, t.runtime) == (call, reference.NAME))
        own = [t for t in self.timings if (t.call, t.runtime) == (call, self.runtime)]
        return plain / min(t.seconds / (t.rows * t.in_flight) for t in own)


def bench_engine(
    bundle: Bundle,
    wanted: RuntimeName = "auto",
    *,
    rounds: int = 5,
    batches: tuple[int, ...] = BATCHES,
    on_event: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measures every call of one row, the denoiser with more, and with as many requests in flight as there are cores.

    Args:
        on_event: told what is being measured.
    """
    bundle.check()
    streams = os.cpu_count() or 1
    on_event("memory")  # first: two engines at once need not fit
    memory = memory_of(bundle.path, wanted, streams)
    on_event("loading")
    calls = calls_of(load_networks(bundle))
    served = runtime_of(bundle, calls, wanted, streams, unverified=True)
    # A runtime of a GPU takes the networks that it is given there; one of the CPU leaves them where they are.
    own = calls if served.by_row else calls_of(load_networks(bundle))
    plain = Runtime.compiled(reference.NAME, own, reference.compile_call)
    product, operations = gemm(served.name, streams)
    contenders: dict[tuple[str, str, int, int], Callable[[], object]] = {("gemm", served.name, 1, 1): product}
    many = streams > 1 and served.name.startswith(("openvino", "onnx"))
    with ThreadPoolExecutor(streams) as pool:

        def at_once(run: Callable[[], object]) -> Callable[[], object]:
            return lambda: [future.result() for future in [pool.submit(run) for _ in range(streams)]]

        for name, call in calls.items():
            for runtime in (plain, served):
                contenders[name, runtime.name, 1, 1] = _request(runtime, name, call, 1)
        if many:
            contenders["gemm", served.name, 1, streams] = at_once(product)
        for rows in sorted({1, *batches}):
            request = _request(served, "denoise", calls["denoise"], rows)
            contenders["denoise", served.name, rows, 1] = request
            if many and rows in served.sizes:
                contenders["denoise", served.name, rows, streams] = at_once(request)
        seconds = interleaved(contenders, rounds, on_event)
    peak = {
        in_flight: in_flight * operations / seconds["gemm", served.name, 1, in_flight] / 1e9
        for in_flight in ((1, streams) if many else (1,))
    }
    timings = _timings(calls, served, seconds, peak)
    return Bench(bundle.engine_id, served.name, peak, memory, timings)


def interleaved(
    contenders: dict[tuple[str, str, int, int], Callable[[], object]], rounds: int, on_event: Callable[[str], None]
) -> dict[tuple[str, str, int, int], float]:
    """The median seconds of each, all of them in turn, after one warm-up.

    What is short is run several times in a row, as steps are: otherwise it would be timed on the others' caches.
    """
    seconds: dict[tuple[str, str, int, int], list[float]] = {key: [] for key in contenders}
    repeats = dict.fromkeys(contenders, 1)
    for turn in range(rounds + 1):
        on_event(f"round {turn} of {rounds}" if turn else "warming up")
        for key, run in contenders.items():
            started = time.perf_counter()
            for _ in range(repeats[key]):
                run()
            took = (time.perf_counter() - started) / repeats[key]
            if turn:
                seconds[key].append(took)
            else:
                repeats[key] = max(1, round(LONG / took))
    return {key: statistics.median(values) for key, values in seconds.items()}


def _request(runtime: Runtime, name: str, call: Call, rows: int) -> Callable[[], object]:
    inputs: tuple[Tensor, ...] = tuple(e.repeat(rows, *(1 for _ in e.shape[1:])) for e in call.example)
    run: Callable[..., object] = getattr(runtime, name)
    return lambda: run(*inputs)


def _timings(
    calls: dict[str, Call],
    served: Runtime,
    seconds: dict[tuple[str, str, int, int], float],
    peak: dict[int, float],
) -> tuple[Timing, ...]:
    work = {name: flops_of(call) / 1e9 for name, call in calls.items()}
    measured: Iterable[tuple[tuple[str, str, int, int], float]] = seconds.items()
    timings = []
    for (name, runtime, rows, in_flight), own in measured:
        if name == "gemm":
            continue
        gflop = work[name] * rows * in_flight
        # Rows that a CPU cannot take as one batch run at once, as many as there are streams.
        at_once = in_flight if rows in served.sizes else min(rows, max(peak))
        # What is exact is computed in float32: the peak of a narrower type says nothing of it.
        comparable = runtime == served.name and not calls[name].exact and at_once in peak
        share = gflop / own / peak[at_once] if comparable else None
        timings.append(Timing(name, runtime, rows, in_flight, own, gflop, share))
    return tuple(timings)
