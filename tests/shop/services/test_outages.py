"""What callers report when a service is down or dies during a request."""

from __future__ import annotations

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.flags.document import FlagdDocument
from pytest_otel_diag.shop.simulation import Shop
from pytest_otel_diag.shop.variation import Variation
from tests.shop.services.shop_runs import START_NS, said, second

RPC_REFUSED = (
    "rpc error: code = Unavailable desc = connection error: "
    'desc = "transport: Error while dialing: dial tcp: connect: connection refused"'
)


def without_traffic(demo="3.0"):
    flags = FlagdDocument(catalog.demo_document(demo))
    flags.change("loadGeneratorTraffic", "off")
    shop = Shop(Variation(demo=demo, users=1, browser_users=0, seed=5), flags, START_NS)
    shop.advance(second(5))
    return shop


def stop(shop, service):
    """Stop a service for good."""
    found = shop.world.service(service)
    for instance in list(found.instances):
        instance.kill("stopped")
    found._start = lambda fresh: None


def orders(shop):
    shop.advance(second(60))
    return [
        span
        for span in shop.take(shop.now_ns).spans
        if span.name == "oteldemo.CheckoutService/PlaceOrder" and span.kind == "Server"
    ]


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (
            "cart",
            f"cart failure: failed to get user cart during checkout: {RPC_REFUSED}",
        ),
        ("currency", 'failed to prepare order: failed to convert price of "'),
        (
            "shipping",
            "shipping quote failure: failed POST to shipping service: "
            'Post "http://shipping:50050/get-quote": dial tcp: connect: connection refused',
        ),
        ("quote", "shipping quote failure: failed POST to email service: expected 200, got 500"),
        (
            "payment",
            f"failed to charge card: could not charge the card: {RPC_REFUSED}",
        ),
    ],
)
def test_a_failed_order_has_the_error_message_of_the_service_code(service, message):
    shop = without_traffic()
    stop(shop, service)
    shop.drive(["checkout"], 3)
    failed = orders(shop)
    assert len(failed) == 3
    assert all(span.message.startswith(message) for span in failed)
    assert {span.status for span in failed} == {"Error"}
    assert failed[0].events[-1].name == "exception"


def test_shipping_may_die_between_quote_and_order():
    shop = without_traffic()
    slow = shop.world.service("payment").instances[0]
    slow.stop(10.0)  # the charge waits while shipping goes away
    shop.drive(["checkout"], 1)
    shop.advance(second(7))
    stop(shop, "shipping")
    (failed,) = orders(shop)
    assert failed.message.startswith("shipping error: failed POST to shipping service: Post")


@pytest.mark.parametrize("service", ["email", "accounting", "fraud-detection", "recommendation", "ad"])
def test_orders_succeed_without_optional_services(service):
    shop = without_traffic()
    stop(shop, service)
    shop.drive(["checkout"], 3)
    placed = orders(shop)
    assert len(placed) == 3
    assert {span.status for span in placed} == {"Unset"}


def test_flags_fall_back_to_their_defaults_without_flagd():
    shop = without_traffic()
    stop(shop, "flagd")
    shop.drive(["product-catalog", "checkout"], 3)
    shop.advance(second(60))
    found = shop.take(shop.now_ns).spans
    products = [span for span in found if span.name.endswith("/GetProduct") and span.kind == "Server"]
    assert products
    assert {span.status for span in products} == {"Unset"}
    emptied = [span for span in found if span.name.endswith("EmptyCart") and span.kind == "Server"]
    assert {span.status for span in emptied} == {"Unset"}
    reasons = {
        event.attributes["feature_flag.result.reason"]
        for span in products
        for event in span.events
        if event.name == "feature_flag.evaluation"
    }
    assert reasons == {"error"}


def test_the_proxy_responds_with_503_when_the_frontend_is_down():
    shop = without_traffic()
    stop(shop, "frontend")
    shop.drive(["frontend"], 2)
    shop.advance(second(30))
    batch = shop.take(shop.now_ns)
    routed = [span for span in batch.spans if span.name == "router frontend egress"]
    assert len(routed) >= 2
    assert {(span.attributes["http.status_code"], span.attributes["response_flags"]) for span in routed} == {
        ("503", "UF")
    }
    assert any('" 503 UF ' in log.body for log in batch.logs)


def test_a_process_that_dies_during_a_request_breaks_its_connection():
    shop = without_traffic()
    shop.world.service("ad").instances[0].stop(5.0)
    shop.drive(["ad"], 1)
    shop.advance(second(7))
    shop.world.service("ad").instances[0].kill("stopped")
    shop.advance(second(40))
    spans = shop.take(shop.now_ns).spans
    client = [span for span in spans if span.name.endswith("GetAds") and span.kind == "Client"]
    assert [span.message for span in client] == [""]
    assert client[0].attributes["grpc.error_message"] == "14 UNAVAILABLE: Connection dropped"
    assert not [span for span in spans if span.name.endswith("GetAds") and span.kind == "Server"]


def test_other_currencies_need_conversions():
    shop = Shop(
        Variation(users=1, browser_users=4, seed=5), FlagdDocument(catalog.demo_document("3.0")), START_NS
    )
    shop.advance(second(120))
    spans = shop.take(shop.now_ns).spans
    converted = [span for span in spans if span.name == "Currency/Convert"]
    assert "CHF" in {span.attributes["demo.exchange.to"] for span in converted}


def test_a_catalog_without_its_database_finds_nothing():
    shop = without_traffic()
    stop(shop, "astronomy-db")
    shop.drive(["product-catalog", "recommendation"], 2)
    shop.advance(second(30))
    spans = shop.take(shop.now_ns).spans
    asked = [span for span in spans if span.resource.service == "product-catalog" and span.kind == "Server"]
    assert {(span.status, span.message.split(":")[0]) for span in asked} == {
        ("Error", "Product Not Found"),
        ("Error", "failed to load products"),
    }
    assert {span.status for span in spans if span.name == "astronomy-db" and span.kind == "Client"} == {
        "Error"
    }
    failed = [span for span in spans if span.name == "executing api route (pages) /api/recommendations"]
    assert {said(span).partition(" Exception")[0] for span in failed} == {"2 UNKNOWN:"}


def test_accounting_without_its_database_logs_errors_and_continues():
    shop = without_traffic()
    shop.drive(["checkout"], 2)
    shop.world.service("payment").instances[0].stop(8.0)  # orders are paid after the database has gone down
    shop.advance(second(8))
    stop(shop, "astronomy-db")
    shop.advance(second(60))
    batch = shop.take(shop.now_ns)
    failed = [log for log in batch.logs if log.body == "Order parsing failed:"]
    assert {log.event_name for log in failed} == {"accounting.order.parsing_failed"}
    assert len(failed) == 2
    assert sum(span.name == "order-consumed" for span in batch.spans) == 2
