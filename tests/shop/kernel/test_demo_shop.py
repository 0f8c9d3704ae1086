"""Invariants of the kernel over the whole demo: repeatability, conservation, order of time."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.shop.kernel.resources.hosts import MAX_SKEW_NS
from pytest_otel_diag.shop.records import Batch, SpanRecord
from pytest_otel_diag.shop.simulation import Shop, Variation
from tests.shop.kernel.tiny_world import START_NS

SECONDS = 150.0
FAULTS = {
    "paymentFailure": "50%",
    "cartFailure": "50%",
    "emailMemoryLeak": "10000x",
    "kafkaQueueProblems": "on",
}


@cache
def _run(demo: str, seed: int, steps: int, *, faulty: bool) -> tuple[Shop, Batch]:
    document = FlagdDocument(catalog.demo_document(demo))
    for key, variant in FAULTS.items():
        if faulty and variant in document.flags[key].variants:
            document.change(key, variant)
    shop = Shop(Variation(demo=demo, seed=seed, jitter=True), document, START_NS)
    whole = Batch()
    for step in range(1, steps + 1):
        shop.advance(START_NS + round(SECONDS * 1e9 * step / steps))
        part = shop.take(shop.now_ns)
        whole.spans += part.spans
        whole.logs += part.logs
        whole.metrics += part.metrics
    return shop, whole


def _fingerprint(batch: Batch) -> str:
    digest = hashlib.sha256()
    for span in batch.spans:
        digest.update(repr((span[:8], span.resource.attributes, span[10:])).encode())
    for log in batch.logs:
        digest.update(repr((log[:2], log[4:])).encode())
    for point in batch.metrics:
        digest.update(repr((point[:3], point.instrument.name, point[6:])).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("demo", ["2.2", "3.0"])
def test_the_same_seed_gives_the_same_bytes_with_any_step_size(demo: str) -> None:
    (_, one), (_, other) = _run(demo, 1, 1, faulty=True), _run(demo, 1, 17, faulty=True)
    assert len(one.spans) > 1000
    assert _fingerprint(one) == _fingerprint(other)
    assert _fingerprint(one) != _fingerprint(_run(demo, 2, 1, faulty=True)[1])


@pytest.mark.parametrize("faulty", [False, True])
def test_requests_messages_and_records_are_conserved(faulty: bool) -> None:
    shop, _ = _run("3.0", 1, 1, faulty=faulty)
    counters = shop.counters
    in_flight = counters.requests_begun - counters.requests_ended
    assert counters.requests_begun > 1000
    assert 0 <= in_flight < 100
    topic = shop.world.broker.topic("orders")
    assert topic.end(0) == counters.messages_produced > 0
    for group in topic.groups.values():
        assert group.consumed + group.total_lag == counters.messages_produced
    for host in shop.world.hosts.values():
        runnable = sum(
            instance.runnable
            for service in shop.world.services.values()
            for instance in service.instances
            if instance.host is host
        )
        assert host.runnable == runnable


@pytest.mark.parametrize("faulty", [False, True])
def test_timestamps_are_in_order(faulty: bool) -> None:
    _, batch = _run("3.0", 1, 1, faulty=faulty)
    spans: dict[str, SpanRecord] = {span.span_id: span for span in batch.spans}
    assert len(spans) == len(batch.spans)
    links = [link for span in batch.spans for link in span.links]
    assert links
    assert all(link.trace_id == spans[link.span_id].trace_id for link in links if link.span_id in spans)
    for span in batch.spans:
        assert span.duration_ns >= 0
        assert span.start_ns + span.duration_ns - MAX_SKEW_NS < span.exported_ns
        parent = spans.get(span.parent_id)
        if parent is not None:
            assert span.trace_id == parent.trace_id
            assert span.start_ns >= parent.start_ns - 2 * MAX_SKEW_NS
