"""Spans for OpenTelemetry: for a request, its work at an engine, each stage of that, and each stage of each sample.

Off unless an OTLP endpoint is named. The trace context is a plain value, W3C's headers in a dict, so that it passes
alike through HTTP headers, gRPC metadata and arguments of Ray calls. It is never attached to OpenTelemetry's own
context: answers are async generators, which may be closed from another context than they were begun in.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from deocc_service.errors import public

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

    from deocc_engines.completion import StageDone

__all__ = ["Span", "Trace", "check", "close", "configure", "current", "follow"]

Trace = Mapping[str, str]  # "traceparent", perhaps "tracestate"; empty: none

HEADERS = ("traceparent", "tracestate")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
STAGES = ("wait", "decode", "segment", "complete", "encode")  # in their order
# Whose fault it is decides whether a span counts as failed.
OURS = {"ENGINE_FAILURE", "INVALID_BUNDLE", "UNAVAILABLE", "DEADLINE_EXCEEDED"}

_trace: ContextVar[Trace] = ContextVar("deocc_trace", default=MappingProxyType({}))
_provider: list[TracerProvider] = []


def check(endpoint: str | None) -> bool:
    """True if spans are wanted.

    Raises:
        ValueError: they are, but what exports them is not installed.
    """
    if endpoint is None and not any(os.environ.get(name) for name in ENDPOINTS):
        return False
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ImportError as error:
        raise ValueError("tracing needs more packages: pip install 'deocc[otel]'") from error
    return True


def configure(endpoint: str | None) -> bool:
    """From now on this process makes spans, if they are wanted; False if it did already, or they are not.

    Args:
        endpoint: of an OTLP collector over HTTP, e.g. ``http://collector:4318``; None: what the standard ``OTEL_``
            variables say.
    """
    if _provider or not check(endpoint):
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # The operator's own variables win.
    provider = TracerProvider(
        resource=Resource.create({"service.name": "deocc"}).merge(OTELResourceDetector().detect())
    )
    url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url)))
    _provider.append(provider)
    return True


def close() -> None:
    """Sends what is left, and makes no spans any more."""
    if _provider:
        _provider.pop().shutdown()


def follow(headers: Mapping[str, str]) -> None:
    """Spans of this task belong to the trace that `headers` name, from now on."""
    _trace.set({name: headers[name] for name in HEADERS if name in headers})


def current() -> Trace:
    """What a process that works for this task is to follow."""
    return dict(_trace.get())


class Span:
    """From its making to its end, below the span that this task follows.

    Args:
        served: of a request, which this task follows from now on; others are made below such a one only.
    """

    def __init__(self, name: str, *, served: bool = False) -> None:
        self._span: OtelSpan | None = None
        if _provider and (served or current()):
            from opentelemetry.trace import SpanKind
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            propagator = TraceContextTextMapPropagator()
            kind = SpanKind.SERVER if served else SpanKind.INTERNAL
            self._span = _tracer().start_span(name, propagator.extract(current()), kind)
            if served:
                trace: dict[str, str] = {}
                propagator.inject(trace, self._context())
                follow(trace)

    @property
    def trace_id(self) -> str | None:
        """As in ``traceparent``."""
        return None if self._span is None else f"{self._span.get_span_context().trace_id:032x}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A generator is closed when its caller has left.
        gone = isinstance(error, GeneratorExit)
        reason = None if error is None else public(asyncio.CancelledError() if gone else error).reason
        self.end(reason)

    def end(self, reason: str | None = None, **attributes: str) -> None:
        """Now.

        Args:
            reason: of the error that it ended with.
        """
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            for name, value in attributes.items():
                self._span.set_attribute(f"deocc.{name}", value)
            if reason is not None:
                self._span.set_attribute("error.type", reason)
            if reason in OURS:
                self._span.set_status(StatusCode.ERROR, reason)
            self._span.end()

    def stages(self, seconds: Mapping[str, float], of_samples: Iterable[StageDone] = ()) -> None:
        """Spans below this one for stages that followed each other and have just ended.

        Args:
            of_samples: what `complete` consists of; samples run beside each other.
        """
        if self._span is not None:
            now = end = time.time_ns()
            ago = time.perf_counter()
            for stage in reversed([stage for stage in STAGES if stage in seconds]):
                start = end - round(1e9 * seconds[stage])
                span = _tracer().start_span(stage, self._context(), start_time=start)
                for part in of_samples if stage == "complete" else ():
                    began, ended = (now - round(1e9 * (ago - at)) for at in (part.began, part.ended))
                    inner = _tracer().start_span(part.stage.value, _below(span), start_time=began)
                    inner.set_attribute("deocc.sample", part.sample)
                    inner.end(ended)
                span.end(end)
                end = start

    def _context(self) -> Context:
        assert self._span is not None
        return _below(self._span)


def _below(span: OtelSpan) -> Context:
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span)


def _tracer() -> Tracer:
    return _provider[0].get_tracer("deocc")
