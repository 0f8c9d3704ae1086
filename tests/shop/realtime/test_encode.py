from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.shop.realtime import packages
from pytest_otel_diag.shop.realtime.encode import requests
from pytest_otel_diag.shop.records import Batch, MetricPoint, Resource
from tests.support.otlp_decoding import decode
from tests.support.shop_batches import INSTRUMENTS, SCOPES, bag, batches, plain, span


def decoded(batch: Batch, **limits: int) -> Batch:
    merged = Batch()
    for request in requests(batch, **limits):
        wire = request.message.SerializeToString()
        piece = decode(request.signal, type(request.message).FromString(wire))
        assert request.records == len(piece.spans) + len(piece.logs) + len(piece.metrics)
        merged.spans += piece.spans
        merged.logs += piece.logs
        merged.metrics += piece.metrics
    return merged


@settings(max_examples=50)
@given(batches)
def test_every_record_comes_back_from_the_wire_as_it_was(batch: Batch) -> None:
    assert bag(decoded(batch)) == bag(batch)


@settings(max_examples=50)
@given(batches, st.integers(1, 5), st.integers(100, 3_000))
def test_requests_are_bounded_and_complete(batch: Batch, max_records: int, max_bytes: int) -> None:
    limits = {"max_records": max_records, "max_bytes": max_bytes}
    for request in requests(batch, **limits):
        assert 1 <= request.records <= max_records
        assert request.records == 1 or request.message.ByteSize() <= max_bytes
    assert bag(decoded(batch, **limits)) == bag(batch)


def test_spans_of_one_resource_and_scope_share_their_description_and_keep_their_order() -> None:
    batch = Batch(spans=[span(number) for number in range(5)])
    (request,) = requests(batch)
    assert len(request.message.resource_spans) == 1
    assert len(request.message.resource_spans[0].scope_spans) == 1
    assert [plain(s) for s in decoded(batch).spans] == [plain(s) for s in batch.spans]


def test_a_restarted_service_has_another_resource() -> None:
    again = Resource("frontend", {"service.name": "frontend", "host.name": "frontend-1"})
    batch = Batch(spans=[span(0), span(1)._replace(resource=again)])
    (request,) = requests(batch)
    assert len(request.message.resource_spans) == 2


def test_a_resource_without_the_name_of_its_service_gets_it() -> None:
    batch = Batch(spans=[span(0)._replace(resource=Resource("cart", {"host.name": "a"}))])
    assert decoded(batch).spans[0].resource.attributes == {"service.name": "cart", "host.name": "a"}


def test_resources_without_a_service_have_no_service_name() -> None:
    container = Resource("", {"container.name": "cart"})
    batch = Batch(metrics=[MetricPoint(0, 5, 1, container, SCOPES[0], INSTRUMENTS[0], {}, 1.0)])
    assert decoded(batch).metrics[0].resource.attributes == {"container.name": "cart"}
    assert bag(decoded(batch)) == bag(batch)


def test_an_empty_batch_makes_no_requests() -> None:
    assert list(requests(Batch())) == []


def test_points_of_one_instrument_are_one_metric() -> None:
    def point(value: float) -> MetricPoint:
        return MetricPoint(0, 5, 1, span(0).resource, SCOPES[0], INSTRUMENTS[1], {"n": value}, value)

    (request,) = requests(Batch(metrics=[point(1), point(2.5)]))
    (metric,) = request.message.resource_metrics[0].scope_metrics[0].metrics
    assert [p.WhichOneof("value") for p in metric.sum.data_points] == ["as_int", "as_double"]
    assert metric.sum.aggregation_temporality == 2


def test_telemetry_that_the_shop_never_sends_is_rejected() -> None:
    metrics = packages.otlp().metrics_request.ExportMetricsServiceRequest()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="latency")
    with pytest.raises(ValueError, match="neither gauge, sum nor histogram"):
        decode("metrics", metrics)
    metric.sum.aggregation_temporality = 1
    with pytest.raises(ValueError, match="'latency' is not cumulative"):
        decode("metrics", metrics)
    traces = packages.otlp().traces_request.ExportTraceServiceRequest()
    attribute = traces.resource_spans.add().resource.attributes.add(key="list")
    attribute.value.array_value.values.add().int_value = 1
    with pytest.raises(ValueError, match="attribute 'list' is a array_value"):
        decode("traces", traces)
    with pytest.raises(ValueError, match="signal 'profiles' is unknown; choose from traces"):
        decode("profiles", traces)


def test_a_package_that_is_missing_names_the_extra() -> None:
    with pytest.raises(ConfigurationError, match=r"needs no_such_package.*pytest-otel-diag\[otlp\]"):
        packages.load("no_such_package")
