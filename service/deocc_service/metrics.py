"""What the service counts and measures: one table, for Prometheus.

In one process prometheus-client keeps the values; in Ray's processes Ray does, and its agents export them. The names
are the same, but for the prefix ``ray_`` that Ray puts before each. Every label has few values, whatever is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import prometheus_client

__all__ = ["METRICS", "Metric", "expose", "measure_memory", "on_ray"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
ROWS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 24.0)
PAGE = 4096  # bytes


class Kind(Enum):
    """As Prometheus has them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One line of the table.

    Attributes:
        name: as it is exported; counters end with ``_total``.
        help: what it means.
    """

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def add(self, value: float = 1.0, /, **labels: str) -> None:
        """Of a counter."""
        _backend().add(self, value, labels)

    def set(self, value: float, /, **labels: str) -> None:
        """Of a gauge."""
        _backend().set(self, value, labels)

    def observe(self, value: float, /, **labels: str) -> None:
        """Of a histogram."""
        _backend().observe(self, value, labels)


REQUESTS = Metric(Kind.COUNTER, "deocc_requests_total", "Requests that were answered.", ("protocol", "method", "code"))
REQUEST_SECONDS = Metric(
    Kind.HISTOGRAM,
    "deocc_request_seconds",
    "From the request to the end of its answer.",
    ("protocol", "method"),
    SECONDS,
)
STAGE_SECONDS = Metric(
    Kind.HISTOGRAM, "deocc_stage_seconds", "Parts of a request at the models, waiting included.", ("stage",), SECONDS
)
QUEUE_DEPTH = Metric(Kind.GAUGE, "deocc_queue_depth", "Requests accepted and not yet answered.", ("kind",))
BACKLOG_SECONDS = Metric(
    Kind.GAUGE, "deocc_backlog_seconds", "What denoising all accepted completions still takes, as measured lately."
)
STEP_SECONDS = Metric(Kind.HISTOGRAM, "deocc_step_seconds", "One denoising step of one batch.", (), SECONDS)
BATCH_ROWS = Metric(Kind.HISTOGRAM, "deocc_batch_rows", "Rows that were denoised together.", (), ROWS)
CACHE_HITS = Metric(Kind.COUNTER, "deocc_embedding_cache_hits_total", "Clicks on an image that was embedded before.")
CACHE_MISSES = Metric(Kind.COUNTER, "deocc_embedding_cache_misses_total", "Images that had to be embedded.")
CACHE_BYTES = Metric(Kind.GAUGE, "deocc_embedding_cache_bytes", "Of the embeddings that are kept.")
CANCELLATIONS = Metric(
    Kind.COUNTER, "deocc_cancellations_total", "Requests whose callers went away before the answer.", ("method",)
)
REFUSALS = Metric(
    Kind.COUNTER, "deocc_refusals_total", "Requests refused for lack of room, time, rate or a key.", ("reason",)
)
RETRIES = Metric(Kind.COUNTER, "deocc_retries_total", "Requests begun again because a replica was lost.")
ENGINE_INFO = Metric(
    Kind.GAUGE, "deocc_engine_info", "Always 1: which engine is served, by which runtime.", ("engine", "runtime")
)
MODEL_MEMORY = Metric(Kind.GAUGE, "deocc_model_memory_bytes", "Resident memory of the process that holds the models.")
IMAGE_STORE = Metric(Kind.GAUGE, "deocc_image_store_bytes", "Of the uploaded images that are kept.")

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


class Backend(Protocol):
    """Where values go."""

    def add(self, metric: Metric, value: float, labels: dict[str, str]) -> None: ...
    def set(self, metric: Metric, value: float, labels: dict[str, str]) -> None: ...
    def observe(self, metric: Metric, value: float, labels: dict[str, str]) -> None: ...


class _Prometheus:
    """In prometheus-client's registry of this process."""

    def add(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        self._of(metric, labels).inc(value)

    def set(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        self._of(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        self._of(metric, labels).observe(value)

    def _of(self, metric: Metric, labels: dict[str, str]) -> Any:
        own = self._made(metric)
        return own.labels(**labels) if labels else own

    @staticmethod
    @cache
    def _made(metric: Metric) -> Any:
        match metric.kind:
            case Kind.COUNTER:
                return prometheus_client.Counter(metric.name, metric.help, metric.labels)
            case Kind.GAUGE:
                return prometheus_client.Gauge(metric.name, metric.help, metric.labels)
        return prometheus_client.Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets)


class _Ray:
    """At Ray's agent of this node."""

    def __init__(self, classes: Any) -> None:
        self._classes = classes
        self._made: dict[str, Any] = {}

    def add(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        self._of(metric).inc(value, tags=labels)

    def set(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        self._of(metric).set(value, tags=labels)

    def observe(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        self._of(metric).observe(value, tags=labels)

    def _of(self, metric: Metric) -> Any:
        if metric.name not in self._made:
            made: dict[Kind, Callable[[], Any]] = {
                Kind.COUNTER: lambda: self._classes.Counter(metric.name, metric.help, metric.labels),
                Kind.GAUGE: lambda: self._classes.Gauge(metric.name, metric.help, metric.labels),
                Kind.HISTOGRAM: lambda: self._classes.Histogram(
                    metric.name, metric.help, list(metric.buckets), metric.labels
                ),
            }
            self._made[metric.name] = made[metric.kind]()
        return self._made[metric.name]


_chosen: list[Backend] = []


def _backend() -> Backend:
    if not _chosen:
        _chosen.append(_Prometheus())
    return _chosen[0]


def on_ray(*, replica: bool) -> None:
    """From now on this process counts at Ray.

    Args:
        replica: it is one of a deployment, which Serve's own labels name.
    """
    if replica:
        from ray.serve import metrics as classes
    else:
        from ray.util import metrics as classes
    _chosen[:] = [_Ray(classes)]


def expose(host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serves the values of this process by HTTP; the port that was bound, and what ends it."""
    server, thread = prometheus_client.start_http_server(port, host)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, end


def measure_memory() -> None:
    """Of this process, now."""
    MODEL_MEMORY.set(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)
