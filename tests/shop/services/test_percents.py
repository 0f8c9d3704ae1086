"""Shares of failed requests agree with the flag's variant within sampling error."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from tests.shop.services.shop_runs import run

CHARGES = ("payment", "oteldemo.PaymentService/Charge")
EMPTIES = ("cart", "POST /oteldemo.CartService/EmptyCart")
ADS = ("ad", "oteldemo.AdService/GetAds")


# faults that do not interfere share a run
ALSO = {
    "10%": (("cartFailure", "25%"), ("adFailure", "on")),
    "50%": (("cartFailure", "75%"),),
    "90%": (),
}
MIXES = {
    ("paymentFailure", "10%"): "10%",
    ("paymentFailure", "50%"): "50%",
    ("paymentFailure", "90%"): "90%",
    ("cartFailure", "25%"): "10%",
    ("cartFailure", "75%"): "50%",
    ("adFailure", "on"): "10%",
}


@pytest.mark.parametrize(
    ("flag", "variant", "operation", "share"),
    [
        ("paymentFailure", "10%", CHARGES, 0.1),
        ("paymentFailure", "50%", CHARGES, 0.5),
        ("paymentFailure", "90%", CHARGES, 0.95),
        ("cartFailure", "25%", EMPTIES, 0.25),
        ("cartFailure", "75%", EMPTIES, 0.75),
        ("adFailure", "on", ADS, 0.1),
    ],
)
def test_the_share_of_failures_is_that_of_the_variant(flag, variant, operation, share):
    made = run(
        flag="paymentFailure",
        variant=MIXES[flag, variant],
        users=60,
        seconds=90.0,
        also=ALSO[MIXES[flag, variant]],
    )
    phase = made.fault
    spans = phase.spans(*operation, "Server")
    failed = sum(span.status == "Error" for span in spans)
    low, high = binom.interval(0.999, len(spans), share)
    assert len(spans) > 30
    assert low <= failed <= high
    assert failed > 0


@pytest.mark.parametrize(
    ("flag", "variant", "operation"), [("paymentFailure", "100%", CHARGES), ("cartFailure", "100%", EMPTIES)]
)
def test_the_variant_of_100_percent_fails_all_requests(flag, variant, operation):
    spans = run(flag=flag, variant=variant, users=15, seconds=180.0).fault.spans(*operation, "Server")
    assert len(spans) > 20
    assert {span.status for span in spans} == {"Error"}
