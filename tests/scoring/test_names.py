"""Spellings of names: tolerant for one candidate, strict for several."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.scoring.names import ServiceNames, mentions, same_operation

parts = st.sampled_from(["pay", "cart", "service", "svc", "Service", "-", "_", ".", "ts", "Ad", "1"])
names = st.lists(parts, min_size=1, max_size=4).map("".join)


@given(st.sets(names, max_size=12))
def test_known_services_are_never_merged(known):
    resolver = ServiceNames(known)
    for name in known:
        assert resolver.resolve(name) == name
    for one in known:
        for other in known:
            assert resolver.same(one, other) == (one == other)


@given(st.sets(names, max_size=8), names)
def test_a_spelling_resolves_to_a_known_service_or_to_none(known, spelling):
    found = ServiceNames(known).resolve(spelling)
    assert found is None or found in known


@given(st.lists(names, max_size=8, unique=True), names)
def test_order_of_known_services_does_not_matter(known, spelling):
    assert ServiceNames(known).resolve(spelling) == ServiceNames(reversed(known)).resolve(spelling)


@pytest.mark.parametrize(
    "spelling", ["payment", "Payment", "paymentservice", "payment-service", "payment_svc", "PaymentService"]
)
def test_common_spellings_mean_the_same_service(spelling):
    assert ServiceNames(["payment", "cart"]).resolve(spelling) == "payment"
    assert ServiceNames(["paymentservice", "cart"]).resolve(spelling) == "paymentservice"


def test_an_ambiguous_spelling_resolves_to_none():
    both = ServiceNames(["payment", "payment-service"])
    assert both.resolve("PaymentSvc") is None
    assert both.resolve("paymentservice") == "payment-service"
    assert both.resolve("PAYMENT") == "payment"
    assert ServiceNames(["Cart", "cart"]).resolve("CART") is None


def test_similar_services_stay_distinct():
    train = ServiceNames(["ts-payment-service", "ts-inside-payment-service"])
    assert train.resolve("ts-payment") == "ts-payment-service"
    assert train.resolve("payment") is None


def test_a_service_called_service_keeps_its_name():
    assert ServiceNames(["service", "cart"]).resolve("Service") == "service"
    assert ServiceNames(["cart"]).resolve("service") is None


def test_unknown_names_are_the_same_only_up_to_case():
    resolver = ServiceNames(["cart"])
    assert resolver.same("Ghost", "ghost")
    assert not resolver.same("ghost", "ghost-service")
    assert not resolver.same("ghost", "cart")
    assert resolver.canonical("ghost") == "ghost"


@pytest.mark.parametrize(
    "name",
    [
        "payment-7d9f8b6c5d-x2x1z",
        "payment-0",
        "otel-demo/payment",
        "deployment/payment",
        "payment.otel-demo",
        "payment.otel-demo.svc.cluster.local:8080",
        "payment-7d9f8b6c5d-x2x1z.otel-demo",
        "oteldemo.PaymentService",
        "oteldemo.PaymentService/Charge",
        "payment (Charge)",
        "payment:50051",
        "the payment service",
        "`payment` ",
        "payment pod",
        "payment\u2011service",
    ],
)
def test_a_longer_name_means_the_service_that_it_is_about(name):
    assert ServiceNames(["payment", "cart", "frontend"]).resolve(name) == "payment"


@pytest.mark.parametrize(
    "name", ["frontend/payment", "payment-gateway", "payment-gateway-cache", "prepayment", "x/y"]
)
def test_other_services_and_names_of_two_services_mean_none(name):
    assert ServiceNames(["payment", "cart", "frontend"]).resolve(name) is None


def test_what_telemetry_calls_a_part_means_its_only_service():
    names = ServiceNames(["payment", "cart"], {"10.0.0.7": ["payment"], "node-b": ["cart", "payment"]})
    assert names.resolve("10.0.0.7") == "payment"
    assert names.including(["db"]).canonical("10.0.0.7") == "payment"
    assert names.resolve("node-b") is None
    assert names.explain("node-b") == "node-b (a part of cart, payment; name one of them)"
    assert names.explain("paymnt") == "paymnt (did you mean 'payment'?)"


def test_an_expected_service_is_not_taken_for_a_part_of_another():
    names = ServiceNames(["order"]).including(["order-2"])
    assert names.resolve("order-2") == "order-2"


def test_including_adds_only_what_is_not_spelled_yet():
    wider = ServiceNames(["paymentservice"]).including(["payment", "cart"])
    assert wider.known == ("paymentservice", "cart")


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("Charge", "oteldemo.PaymentService/Charge", True),
        ("charge", "Charge", True),
        ("/cart", "GET /cart", True),
        ("Service/Charge", "oteldemo.PaymentService/Charge", False),
        ("Charge", "Recharge", False),
        ("Charge", None, False),
        ("", "Charge", False),
        ("Charge", "Charge/Refund", False),
        ("Charge", "PaymentService.Charge()", True),
        ("GET /api/cart", "GET /api/cart?sessionId=1", True),
    ],
)
def test_operations_match_whole_or_as_the_last_part(expected, found, same):
    assert same_operation(expected, found) is same


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("calls to payment fail", "payment", True),
        ("PAYMENT: 3 errors", "payment", True),
        ("payment-gateway is fine", "payment", False),
        ("prepayment", "payment", False),
        ("a.b(c)", "b(c)", True),
        ("anything", "", False),
    ],
)
def test_mentions_are_whole_words(text, name, found):
    assert mentions(text, name) is found


def test_an_ambiguous_spelling_is_explained_by_the_services_that_it_may_mean():
    names = ServiceNames(("payment", "payment-service", "cart"))
    assert names.resolve("PaymentSvc") is None
    assert names.explain("PaymentSvc") == "PaymentSvc (may mean payment or payment-service; name one of them)"
