"""Flags that make calls fail: the service that raises the error is named, those that pass it on are not."""

import pytest

from pytest_otel_diag import DiagnosedSession
from pytest_otel_diag.testing import each_variant

pytestmark = [
    pytest.mark.otel_target("shop"),
    pytest.mark.otel_timing(baseline_s=180, impact_poll_s=10, recover_timeout_s=0),
]


@pytest.mark.otel_flag("adFailure")
def test_a_tenth_of_the_ads_fails(diagnosis: DiagnosedSession) -> None:
    """The errors begin in ad; frontend and proxy pass them on."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="ad", signal="error_rate", direction="up")
    diagnosis.assert_not_blamed("frontend")
    diagnosis.assert_not_blamed("frontend-proxy")


@each_variant("paymentFailure", "10%", "50%", "100%")
def test_charging_cards_fails(diagnosis: DiagnosedSession, variant: str) -> None:
    """Charge fails. Fewer confirmations and parcels are a consequence, not a cause."""
    diagnosis.assert_expected()
    diagnosis.assert_root_cause("payment", operation="Charge", mechanism="error")
    diagnosis.assert_path("frontend", "checkout", "payment")
    diagnosis.assert_not_blamed("email", top=3)
    diagnosis.assert_query_shows("payment")


@pytest.mark.otel_flag("paymentUnreachable")
def test_payment_cannot_be_reached(diagnosis: DiagnosedSession) -> None:
    """The caller uses a wrong address: payment is healthy and idle, and must not be blamed."""
    diagnosis.assert_expected()
    diagnosis.assert_root_cause("checkout")
    diagnosis.assert_not_blamed("payment")


@each_variant("cartFailure", "50%", "100%")
def test_carts_are_not_emptied(diagnosis: DiagnosedSession, variant: str) -> None:
    """checkout swallows the error, so no shopper sees one: only cart's own spans and logs show it."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="cart", signal="error_rate", direction="up")
    diagnosis.assert_not_blamed("checkout")


@pytest.mark.otel_flag("productCatalogFailure")
def test_one_product_fails(diagnosis: DiagnosedSession) -> None:
    """frontend fails more often than product-catalog does, and recommendation not at all."""
    diagnosis.assert_expected()
    diagnosis.assert_root_cause("product-catalog", operation="GetProduct")
    diagnosis.assert_not_blamed("frontend")
    diagnosis.assert_not_blamed("recommendation", top=3)
