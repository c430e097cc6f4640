"""One trace from the caller through all processes to the stages, the same on both protocols and both hosts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from deocc_service import tracing
from tests.service.asking import as_json, complete
from tests.service.collector import Collector
from tests.service.fake_engine import CRASH
from tests.service.hosts import Host

STAGES = {"wait", "decode", "segment", "complete", "encode"}


def new_trace(sampled: bool = True) -> tuple[str, str, dict[str, str]]:
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, caller, {"traceparent": f"00-{trace_id}-{caller}-{int(sampled):02d}"}


def attributes(span: Span) -> Mapping[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


def sample_of(span: Span) -> int:
    return next(attribute.value.int_value for attribute in span.attributes if attribute.key == "deocc.sample")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_stage_is_a_span_of_the_callers_trace(host: Host, collector: Collector, protocol: str) -> None:
    trace_id, caller, headers = new_trace()
    request = complete(text="sleep .02", num_samples=2)
    if protocol == "http":
        assert host.http.post("/v1/complete", json=as_json(request), headers=headers).status_code == 200
    else:
        host.rpc.Complete(request, timeout=10, metadata=tuple(headers.items()))
    spans = collector.of(trace_id, {"Complete", "engine.complete", *STAGES, "global", "local"})
    (served,) = (span for span in spans if span.name == "Complete")
    assert served.parent_span_id.hex() == caller
    assert served.kind == Span.SPAN_KIND_SERVER
    told = attributes(served)
    assert (told["deocc.protocol"], told["deocc.code"]) == (protocol, "OK")
    assert told["deocc.engine"].startswith("deocc-fake@")
    # The click's mask is the work of another replica on Ray.
    engines = {span.name: span for span in spans if span.parent_span_id == served.span_id}
    assert "engine.complete" in engines
    assert set(engines) <= {"engine.segment", "engine.complete"}
    stages = {span.name: span for span in spans if span.parent_span_id == engines["engine.complete"].span_id}
    segmenter = engines.get("engine.segment", engines["engine.complete"])
    assert [span.parent_span_id for span in spans if span.name == "segment"] == [segmenter.span_id]
    assert set(stages) | {"segment"} == STAGES
    assert stages["decode"].end_time_unix_nano <= stages["complete"].start_time_unix_nano
    assert served.start_time_unix_nano <= stages["wait"].start_time_unix_nano
    assert stages["encode"].end_time_unix_nano <= served.end_time_unix_nano
    inner = [span for span in spans if span.parent_span_id == stages["complete"].span_id]
    assert sorted((span.name, sample_of(span)) for span in inner) == [
        (stage, sample) for stage in ("global", "local") for sample in (0, 1)
    ]
    for sample in (0, 1):
        wide, near = sorted((s for s in inner if sample_of(s) == sample), key=lambda s: s.start_time_unix_nano)
        assert (wide.name, near.name) == ("global", "local")
        assert wide.end_time_unix_nano - wide.start_time_unix_nano > 0.03e9  # two steps
        assert wide.end_time_unix_nano <= near.start_time_unix_nano + 1000


def test_spans_say_how_requests_ended(host: Host, collector: Collector) -> None:
    cases = {"ENGINE_FAILURE": complete(text=CRASH), "TOO_LARGE": complete(steps=1000)}
    for reason, request in cases.items():
        trace_id, _, headers = new_trace()
        with pytest.raises(grpc.RpcError):
            host.rpc.Complete(request, timeout=10, metadata=tuple(headers.items()))
        (served, *_) = (span for span in collector.of(trace_id, {"Complete"}) if span.name == "Complete")
        assert attributes(served)["error.type"] == reason
        failed = served.status.code == Status.STATUS_CODE_ERROR
        assert failed == (reason == "ENGINE_FAILURE")
        assert "secret" not in str(served)
    trace_id, _, headers = new_trace()
    call = host.rpc.Complete.future(complete(text="sleep .1", steps=60), metadata=tuple(headers.items()))
    time.sleep(0.5)
    call.cancel()
    names = {"Complete", "engine.complete"}
    ended = [span for span in collector.of(trace_id, names) if span.name in names]
    assert [attributes(span)["error.type"] for span in ended] == ["CANCELLED"] * 2


def test_what_the_caller_does_not_sample_is_not_traced(host: Host, collector: Collector) -> None:
    silent, _, headers = new_trace(sampled=False)
    assert host.http.post("/v1/complete", json=as_json(complete()), headers=headers).status_code == 200
    heard, _, headers = new_trace()
    assert host.http.get("/v1/engines", headers=headers).status_code == 200
    assert host.http.post("/v1/complete", json=as_json(complete()), headers=headers).status_code == 200
    collector.of(heard, {"ListEngines", *STAGES})
    assert not collector.of(silent, set())


def test_without_an_endpoint_there_are_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert not tracing.check(None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert tracing.check(None)
