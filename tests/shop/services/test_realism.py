"""Telemetry without faults resembles that of real processes: tails, overheads, identifiers, pauses."""

from __future__ import annotations

import re
import statistics
from uuid import UUID

import pytest

from tests.shop.services.shop_runs import Phase, run

UUID_V4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

OPERATIONS = (
    ("ad", "oteldemo.AdService/GetAds"),
    ("cart", "POST /oteldemo.CartService/GetCart"),
    ("flagd", "flagd.evaluation.v2.Service/ResolveBoolean"),
    ("frontend", "GET /api/cart"),
    ("frontend", "GET /api/products/[productId]/index"),
    ("frontend", "GET /api/recommendations"),
    ("frontend-proxy", "ingress"),
    ("image-provider", "GET /"),
    ("product-catalog", "oteldemo.ProductCatalogService/GetProduct"),
    ("recommendation", "oteldemo.RecommendationService/ListRecommendations"),
)

# a parent span and its only child of the same service, in the demo's spans of 3.0
NESTED = (
    ("frontend", "GET /api/cart", "GET /api/cart"),
    ("frontend", "GET /api/cart", "executing api route (pages) /api/cart"),
    ("recommendation", "oteldemo.RecommendationService/ListRecommendations", "get_product_list"),
    ("payment", "oteldemo.PaymentService/Charge", "charge"),
    ("flagd", "flagd.evaluation.v2.Service/ResolveBoolean", "resolveBoolean"),
    ("flagd", "resolveBoolean", "resolveBoolean"),
    ("accounting", "orders receive", "order-consumed"),
    ("quote", "POST /getquote", "{closure}"),
    ("quote", "{closure}", "calculate-quote"),
    ("frontend-web", "documentFetch", "resourceFetch"),
)


def quiet() -> Phase:
    return run("3.0", seconds=900.0).fault


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_slow_requests_are_several_times_slower_than_usual_ones(service, name):
    phase = quiet()
    ratio = phase.quantile_ms(service, name, 0.99) / phase.quantile_ms(service, name, 0.5)
    assert 2.0 < ratio < 14.0
    if name == "ingress":
        return  # images, files and routes together: a wide distribution
    # and rare: the body of the distribution is narrow
    assert phase.quantile_ms(service, name, 0.75) < 3.5 * phase.quantile_ms(service, name, 0.25)


def test_no_span_has_zero_duration():
    phase = quiet()
    assert phase.batch.spans
    assert {
        (span.resource.service, span.name) for span in phase.batch.spans if span.duration_ns <= 0
    } == set()


@pytest.mark.parametrize(("service", "outer", "inner"), NESTED)
def test_a_framework_takes_time_before_and_after_what_it_calls(service, outer, inner):
    phase = quiet()
    parents = {span.span_id: span for span in phase.spans(service, outer)}
    pairs = [
        (parents[span.parent_id], span) for span in phase.spans(service, inner) if span.parent_id in parents
    ]
    assert len(pairs) >= 20
    own_us = []
    for parent, child in pairs:
        before = child.start_ns - parent.start_ns
        after = parent.duration_ns - before - child.duration_ns
        assert before > 0
        assert after >= 0
        own_us.append((before + after) / 1e3)
    assert 10 < statistics.median(own_us) < 5_000


def test_identifiers_are_version_4():
    phase = quiet()
    orders = [
        value
        for span in phase.spans("checkout", "oteldemo.CheckoutService/PlaceOrder")
        for key, value in span.attributes.items()
        if key in ("demo.order.id", "demo.user.id", "user.id", "demo.shipping.tracking.id")
    ]
    users = [
        span.attributes["user.id"] for span in phase.of("load-generator") if "user.id" in span.attributes
    ]
    payments = [log.attributes["transactionId"] for log in phase.logs("payment", "Transaction complete.")]
    sessions = [span.attributes["session.id"] for span in phase.spans("frontend-web", "documentLoad")]
    resources = [span.resource.attributes for span in phase.batch.spans[:2000]]
    instances = [each["service.instance.id"] for each in resources if "service.instance.id" in each]
    for found in (orders, users, payments, sessions, instances):
        assert found
        for value in found:
            assert UUID_V4.fullmatch(str(value)), value
            assert UUID(str(value)).version == 4


def test_the_cart_records_the_client_of_each_caller():
    phase = quiet()
    callers = {span.span_id: span.resource.service for span in phase.batch.spans}
    agents: dict[str, set[object]] = {}
    for name in ("GetCart", "AddItem", "EmptyCart"):
        for span in phase.spans("cart", f"POST /oteldemo.CartService/{name}"):
            if span.parent_id in callers:
                agents.setdefault(callers[span.parent_id], set()).add(span.attributes["user_agent.original"])
    assert agents == {"frontend": {"grpc-node-js/1.14.3"}, "checkout": {"grpc-go/1.77.0"}}


def test_streams_end_slightly_before_their_deadline_and_not_together():
    texts = [
        span.message for span in quiet().of("flagd") if "EventStream" in span.name and span.status == "Error"
    ]
    assert len(texts) >= 4
    assert len(set(texts)) == len(texts)
    assert all(re.fullmatch(r"deadline exceeded after 599\.9\d{8}s", text) for text in texts)


def test_runtimes_that_only_consume_use_their_heaps():
    points = quiet().batch.metrics
    eden = [
        point.value
        for point in points
        if point.resource.service == "fraud-detection"
        and point.instrument.name == "jvm.memory.used"
        and dict(point.attributes).get("jvm.memory.pool.name") == "Eden Space"
    ]
    allocated = [
        point.value
        for point in points
        if point.resource.service == "accounting"
        and point.instrument.name == "dotnet.gc.heap.total_allocated"
    ]
    assert len(eden) >= 10
    assert min(eden) > 0
    assert len(set(eden)) > len(eden) / 2
    assert len(allocated) >= 10
    assert allocated[0] > 0
    assert allocated[-1] > allocated[0]


def test_browser_timing_varies():
    phase = quiet()
    for service, name in (
        ("load-generator", "browser_add_to_cart"),
        ("load-generator", "browser_change_currency"),
        ("frontend-web", "documentLoad"),
    ):
        spans = [span.duration_ns for span in phase.spans(service, name)]
        assert statistics.stdev(spans) > 0.04 * statistics.mean(spans)
        first, _, third = statistics.quantiles(spans, n=4)
        assert third - first > (0.1e9 if name == "documentLoad" else 0.25e9)


def _memory(phase: Phase, name: str, service: str) -> list[tuple[int, float]]:
    """Return (instant, bytes) of a container's memory or of a Python process's resident set."""
    return [
        (point.time_ns, point.value)
        for point in phase.batch.metrics
        if point.instrument.name == name
        and service in (point.resource.service, point.resource.attributes.get("container.name"))
        and dict(point.attributes).get("type", "rss") == "rss"
    ]


@pytest.mark.parametrize(
    "name", ["container.memory.usage.total", "process.runtime.cpython.memory"], ids=["container", "process"]
)
def test_the_memory_of_recommendation_rises_for_minutes_before_it_is_killed(name):
    made = run(flag="recommendationCacheFailure", users=5, seconds=600.0)
    killed_s = made.shop.world.service("recommendation").kills[0][0]
    killed_ns = made.shop.world.start_ns + round(killed_s * 1e9)
    values = [value for at_ns, value in _memory(made.fault, name, "recommendation") if at_ns < killed_ns]
    assert len(values) >= 4
    assert values == sorted(values)  # nothing is released while the flag is on
    assert values[-1] > 1.4 * values[0]
    assert len(set(values)) >= 4
    slow = [
        span.duration_ns / 1e6
        for span in made.fault.spans("recommendation", "get_product_list")
        if span.attributes["demo.product.count"] > 2_000_000
    ]
    assert statistics.median(slow) > 50.0


def test_the_memory_of_email_is_a_sawtooth():
    made = run(flag="emailMemoryLeak", variant="10000x", users=5, seconds=600.0)
    values = [value for _, value in _memory(made.fault, "container.memory.usage.total", "email")]
    low, high = 60e6, 75e6
    teeth = rising = 0
    for value in values:
        if value > high:
            rising = 1
        elif value < low and rising:
            teeth, rising = teeth + 1, 0
    assert teeth >= 3
    assert teeth <= len(made.shop.world.service("email").kills)


def test_locust_s_client_shows_every_request_of_a_flood():
    made = run("2.2", flag="loadGeneratorFloodHomepage", users=3, seconds=120.0)
    requests = {span.span_id: span for span in made.fault.spans("load-generator", "GET", "Client")}
    for flood in made.fault.spans("load-generator", "user_flood_home")[:-1]:
        own = [span for span in requests.values() if span.parent_id == flood.span_id]
        assert len(own) == flood.attributes["flood.count"] == 100
        assert {span.attributes["http.status_code"] for span in own} == {200}
        assert sum(span.duration_ns for span in own) < flood.duration_ns
    served = [span for span in made.fault.spans("frontend-proxy", "ingress") if span.parent_id in requests]
    assert len(served) > 300


@pytest.mark.parametrize("demo", ["2.0", "2.2", "3.1"])
def test_no_parent_lasts_exactly_as_long_as_its_child_in_any_release(demo):
    phase = run(demo, users=5, seconds=120.0).fault
    spans = {span.span_id: span for span in phase.batch.spans}
    equal = {
        (span.resource.service, spans[span.parent_id].name, span.name)
        for span in spans.values()
        if span.parent_id in spans
        and spans[span.parent_id].resource.service == span.resource.service
        and spans[span.parent_id].duration_ns == span.duration_ns
    }
    assert equal == set()
