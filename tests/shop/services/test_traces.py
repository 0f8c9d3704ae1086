"""Traces without faults: call edges, nesting, names and attributes of key spans."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from pytest_otel_diag.shop.demo.releases import release_of
from pytest_otel_diag.shop.demo.topology import SERVICE_EDGES, edges
from pytest_otel_diag.shop.kernel.resources.hosts import MAX_SKEW_NS
from tests.shop.services.shop_runs import run

DEMOS = ("2.0", "2.2", "3.0", "3.1")
DEMO_TEST_EDGES = {
    ("frontend", "ad"),
    ("frontend", "recommendation"),
    ("frontend", "product-catalog"),
    ("frontend", "cart"),
    ("frontend", "checkout"),
    ("checkout", "cart"),
    ("checkout", "payment"),
    ("checkout", "shipping"),
    ("checkout", "email"),
    ("checkout", "product-catalog"),
    ("checkout", "currency"),
    ("recommendation", "product-catalog"),
    ("shipping", "quote"),
}


def quiet(demo):
    return run(demo, users=15, seconds=180).fault


@pytest.mark.parametrize("demo", DEMOS)
def test_traces_have_exactly_the_documented_edges(demo):
    service = {span.span_id: span.resource.service for span in quiet(demo).batch.spans}
    seen = set()
    for span in quiet(demo).batch.spans:
        caller = service.get(span.parent_id)
        if (
            caller is not None
            and caller != span.resource.service
            and "flagd" not in (caller, span.resource.service)
        ):
            seen.add((caller, span.resource.service))
    assert seen == edges(release_of(demo))


def test_edges_include_those_that_the_demo_tests():
    assert SERVICE_EDGES == DEMO_TEST_EDGES


@pytest.mark.parametrize("demo", ["2.2", "3.0"])
def test_children_lie_within_their_parents(demo):
    spans = {span.span_id: span for span in quiet(demo).batch.spans}
    checked = skewed = 0
    for span in spans.values():
        parent = spans.get(span.parent_id)
        if parent is None or parent.name == "orders receive" or "EventStream" in span.name:
            continue
        checked += 1
        assert span.trace_id == parent.trace_id
        # clocks of two hosts differ by a few milliseconds; a process has one clock
        skew_ns = 0 if span.resource is parent.resource else 2 * MAX_SKEW_NS
        skewed += span.start_ns < parent.start_ns
        assert span.duration_ns <= parent.duration_ns
        assert parent.start_ns <= span.start_ns + skew_ns
        assert span.start_ns + span.duration_ns <= parent.start_ns + parent.duration_ns + skew_ns
    assert checked > 10_000
    assert 0 < skewed < 0.3 * checked


def test_consumers_start_new_traces_that_link_to_the_order():
    phase = quiet("3.0")
    published = {span.span_id: span for span in phase.spans("checkout", "orders publish", "Producer")}
    assert len(published) > 20
    for service, name in (("fraud-detection", "orders process"), ("accounting", "orders receive")):
        spans = [span for span in phase.spans(service, name) if span.links]
        linked = {link.span_id for span in spans for link in span.links}
        assert len(linked & set(published)) >= len(published) - 1
        for span in spans:
            order = published.get(span.links[0].span_id)
            assert order is None or span.trace_id != order.trace_id
        assert all(span.parent_id == "" or service == "fraud-detection" for span in spans)
    consumed = phase.spans("accounting", "order-consumed")
    assert {span.parent_id for span in consumed} <= {
        span.span_id for span in run("3.0", users=15, seconds=180).fault.spans("accounting", "orders receive")
    } | {
        span.span_id
        for span in run("3.0", users=15, seconds=180).before.spans("accounting", "orders receive")
    }


def test_a_checkout_calls_its_services_in_the_sequence_of_the_code():
    phase = quiet("3.0")
    order = next(
        span
        for span in phase.spans("checkout", "oteldemo.CheckoutService/PlaceOrder")
        if span.attributes["demo.order.items.count"] == 2
    )
    prepare = next(
        span
        for span in phase.spans("checkout", "prepareOrderItemsAndShippingQuoteFromCart")
        if span.parent_id == order.span_id
    )
    calls = [
        span.attributes.get("rpc.method") or span.attributes.get("url.full") or span.name
        for span in sorted(phase.of("checkout"), key=lambda span: span.start_ns)
        if span.parent_id in (order.span_id, prepare.span_id) and span is not prepare
    ]
    assert calls == [
        "oteldemo.CartService/GetCart",
        "oteldemo.ProductCatalogService/GetProduct",
        "oteldemo.CurrencyService/Convert",
        "oteldemo.ProductCatalogService/GetProduct",
        "oteldemo.CurrencyService/Convert",
        "http://shipping:50050/get-quote",
        "oteldemo.CurrencyService/Convert",
        "oteldemo.PaymentService/Charge",
        "http://shipping:50050/ship-order",
        "oteldemo.CartService/EmptyCart",
        "http://email:6060/send_order_confirmation",
        "orders publish",
    ]
    assert [event.name for event in order.events if event.name != "feature_flag.evaluation"] == [
        "prepared",
        "charged",
        "shipped",
    ]


SPANS_3 = [
    ("frontend-proxy", "ingress", "Server", "component", "proxy"),
    ("frontend-proxy", "router frontend egress", "Client", "upstream_cluster", "frontend"),
    ("frontend-proxy", "router image-provider egress", "Client", "upstream_cluster", "image-provider"),
    ("frontend", "GET", "Server", "http.response.status_code", 200),
    ("frontend", "GET /api/cart", "Server", "http.response.status_code", 200),
    ("frontend", "GET /api/products/[productId]/index", "Server", "next.rsc", False),
    (
        "frontend",
        "resolve page components",
        "Internal",
        "next.span_type",
        "NextNodeServer.findPageComponents",
    ),
    ("frontend", "executing api route (pages) /api/cart", "Internal", "next.span_type", "Node.runHandler"),
    ("frontend", "oteldemo.AdService/GetAds", "Client", "rpc.grpc.status_code", 0),
    ("ad", "oteldemo.AdService/GetAds", "Server", "demo.ad.request_type", "TARGETED"),
    ("ad", "getAdsByCategory", "Internal", "demo.ad.category", "telescopes"),
    ("recommendation", "get_product_list", "Internal", "demo.product.count", 10),
    (
        "product-catalog",
        "oteldemo.ProductCatalogService/GetProduct",
        "Server",
        "rpc.response.status_code",
        "OK",
    ),
    ("product-catalog", "astronomy-db", "Client", "original_span_name", "sql.conn.query"),
    ("cart", "POST /oteldemo.CartService/GetCart", "Server", "grpc.status_code", "0"),
    ("cart", "HGET", "Client", "db.system", "redis"),
    ("checkout", "POST", "Client", "server.address", "email"),
    ("checkout", "oteldemo.CheckoutService/PlaceOrder", "Server", "user_agent.synthetic.type", "test"),
    ("currency", "Currency/Convert", "Server", "demo.exchange.from", "USD"),
    ("payment", "charge", "Internal", "demo.payment.charged", False),
    (
        "payment",
        "oteldemo.PaymentService/Charge",
        "Server",
        "original_span_name",
        "grpc.oteldemo.PaymentService/Charge",
    ),
    ("shipping", "POST /ship-order", "Server", "http.route", "/ship-order"),
    ("quote", "calculate-quote", "Internal", "demo.shipping.quote.items_count", 1),
    ("email", "send_email", "Internal", "demo.notification.recipient", "bill@example.com"),
    ("image-provider", "GET /", "Server", "http.status_code", 200),
    ("load-generator", "user_checkout_multi", "Client", "item.count", 3),
    ("load-generator", "feature_flag.evaluate", "Client", "feature_flag.key", "loadGeneratorTraffic"),
    ("frontend-web", "HTTP GET", "Client", "http.request.method", "GET"),
    ("frontend-web", "documentLoad", "Internal", "demo.synthetic_request", True),
    ("flagd", "flagd.evaluation.v2.Service/ResolveBoolean", "Server", "rpc.method", "ResolveBoolean"),
    ("flagd", "POST", "Server", "original_span_name", "flagd.ofrep"),
]
SPANS_2 = [
    ("frontend", "GET", "Server", "http.status_code", 200),
    ("frontend", "GET /api/products/{productId}", "Server", "next.route", "/api/products/[productId]"),
    ("frontend", "grpc.oteldemo.AdService/GetAds", "Client", "rpc.method", "GetAds"),
    ("ad", "oteldemo.AdService/GetAds", "Server", "app.ads.ad_request_type", "TARGETED"),
    (
        "product-catalog",
        "oteldemo.ProductCatalogService/GetProduct",
        "Server",
        "app.product.name",
        "Roof Binoculars",
    ),
    ("checkout", "oteldemo.CheckoutService/PlaceOrder", "Server", "app.user.currency", "USD"),
    ("payment", "grpc.oteldemo.PaymentService/Charge", "Server", "rpc.grpc.status_code", 0),
    ("payment", "charge", "Internal", "app.payment.card_type", "visa"),
    ("load-generator", "user_index", "Internal", None, None),
    ("load-generator", "GET", "Client", "http.status_code", 200),
    ("product-reviews", "openai.chat", "Client", "gen_ai.system", "openai"),
    ("llm", "POST /v1/chat/completions", "Server", "http.response.status_code", 200),
]


@pytest.mark.parametrize(
    ("demo", "service", "name", "kind", "key", "value"),
    [("3.0", *row) for row in SPANS_3] + [("2.2", *row) for row in SPANS_2],
)
def test_key_spans_have_the_names_and_attributes_of_the_release(demo, service, name, kind, key, value):
    spans = quiet(demo).spans(service, name, kind)
    assert spans
    assert key is None or any(span.attributes.get(key) == value for span in spans)
    assert {span.status for span in spans} <= {"Unset", "Ok"}


@pytest.mark.parametrize(("demo", "old", "new"), [("2.2", "app.", "demo."), ("3.0", "demo.", "app.")])
def test_no_attribute_or_metric_has_the_other_release_s_prefix(demo, old, new):
    phase = quiet(demo)
    names = {name for span in phase.batch.spans for name in span.attributes}
    names |= {point.instrument.name for point in phase.batch.metrics}
    assert any(name.startswith(old) for name in names)
    assert not [name for name in names if name.startswith(new)]


@pytest.mark.parametrize(
    ("demo", "event", "attributes"),
    [
        (
            "3.0",
            "feature_flag.evaluation",
            {
                "feature_flag.key": "productCatalogFailure",
                "feature_flag.provider.name": "flagd",
                "feature_flag.result.variant": "off",
                "feature_flag.result.reason": "targeting_match",
            },
        ),
        (
            "2.2",
            "feature_flag",
            {
                "feature_flag.key": "productCatalogFailure",
                "feature_flag.provider_name": "flagd",
                "feature_flag.variant": "off",
            },
        ),
    ],
)
def test_hooks_record_the_event_of_their_convention(demo, event, attributes):
    spans = quiet(demo).spans("product-catalog", "oteldemo.ProductCatalogService/GetProduct")
    found = [one for span in spans for one in span.events if one.name == event]
    assert found[0].attributes == attributes


def test_durations_are_finite_and_plausible_for_a_laptop():
    phase = quiet("3.0")
    assert all(0 <= span.duration_ns < 700 * 10**9 for span in phase.batch.spans)
    for service, name, low, high in (
        ("checkout", "oteldemo.CheckoutService/PlaceOrder", 10, 90),
        ("frontend", "GET /api/cart", 3, 60),
        ("quote", "POST /getquote", 0.3, 8),
        ("currency", "Currency/Convert", 0.05, 2),
        ("cart", "POST /oteldemo.CartService/GetCart", 0.5, 10),
    ):
        assert low < phase.quantile_ms(service, name, 0.5) < high
        assert math.isfinite(phase.quantile_ms(service, name, 0.99))
        # service times vary
        assert phase.quantile_ms(service, name, 0.95) > 1.1 * phase.quantile_ms(service, name, 0.5)


LOGS_3 = [
    ("ad", "Targeted ad request received for [telescopes]", "INFO", 9),
    ("cart", "GetCartAsync called with userId={userId}", "Information", 9),
    ("checkout", "[PlaceOrder]", "INFO", 9),
    ("payment", "Transaction complete.", "info", 9),
    ("product-catalog", "Product Found", "INFO", 9),
    ("recommendation", "Receive ListRecommendations for product ids:", "INFO", 9),
    ("shipping", "Tracking ID Created", "INFO", 9),
    ("quote", "Calculated quote", "INFO", 9),
    ("email", "Order confirmation email sent", "INFO", 9),
    ("accounting", "Order details: {@OrderResult}.", "Information", 9),
    ("fraud-detection", "Consumed record with orderId: ", "INFO", 9),
    ("load-generator", "User browsing product: ", "", 9),
    ("frontend-proxy", '"GET /api/products/', "", 0),
]


@pytest.mark.parametrize(("service", "text", "severity", "number"), LOGS_3)
def test_logs_have_the_texts_of_the_demo_and_their_trace(service, text, severity, number):
    logs = quiet("3.0").logs(service, text)
    assert logs
    assert {(log.severity_text, log.severity_number) for log in logs} == {(severity, number)}
    spans = {span.span_id: span for span in quiet("3.0").batch.spans}
    assert spans[logs[len(logs) // 2].span_id].resource.service == service


def test_services_without_otlp_logs_write_none():
    phase = quiet("3.0")
    assert not [log for name in ("frontend", "frontend-web", "image-provider") for log in phase.logs(name)]


@pytest.mark.parametrize(
    ("service", "metric"),
    [
        ("ad", "demo.ad.requests"),
        ("ad", "rpc.server.duration"),
        ("cart", "demo.cart.add_item.latency"),
        ("cart", "http.server.request.duration"),
        ("cart", "feature_flag.evaluation_requests_total"),
        ("checkout", "rpc.server.call.duration"),
        ("currency", "demo.exchange.conversions_counter"),
        ("payment", "demo.payment.transactions"),
        ("recommendation", "demo.recommendation.requests"),
        ("email", "demo.notification.confirmations"),
        ("shipping", "demo.shipping.items_shipped"),
        ("quote", "quotes"),
        ("load-generator", "k6.http_req_waiting"),
        ("product-catalog", "db.client.operation.duration"),
    ],
)
def test_custom_metrics_have_their_real_names(service, metric):
    points = [
        point
        for point in quiet("3.0").batch.metrics
        if point.resource.service == service and point.instrument.name == metric
    ]
    assert points
    times = sorted({point.time_ns for point in points})
    assert all(math.isclose(after - before, 60e9, rel_tol=0.01) for before, after in pairwise(times))
