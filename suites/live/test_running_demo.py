"""Faults and quiet periods of a running OpenTelemetry Demo: ``--otel-diag-target=live``.

A session takes five to ten minutes of wall time. Metrics arrive once a minute, hence the long baselines.
"""

import pytest

from pytest_otel_diag import DiagnosedSession

pytestmark = [
    pytest.mark.otel_target("live"),
    pytest.mark.otel_timing(baseline_s=180, observe_s=90),
    pytest.mark.slow,
]


@pytest.mark.otel_flag("paymentFailure")
def test_charging_cards_fails(diagnosis: DiagnosedSession) -> None:
    """Charge fails; fewer confirmations and parcels are a consequence."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("email", top=3)


@pytest.mark.otel_flag("paymentUnreachable")
def test_payment_cannot_be_reached(diagnosis: DiagnosedSession) -> None:
    """The caller uses a wrong address: payment is healthy and idle."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("payment")


@pytest.mark.otel_flag("productCatalogFailure")
def test_one_product_fails(diagnosis: DiagnosedSession) -> None:
    """frontend fails more often than product-catalog does."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("frontend")


@pytest.mark.otel_flag("cartFailure")
def test_carts_are_not_emptied(diagnosis: DiagnosedSession) -> None:
    """checkout swallows the error: only cart's own spans and logs show it."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("checkout")


@pytest.mark.otel_flag("adFailure")
def test_a_tenth_of_the_ads_fails(diagnosis: DiagnosedSession) -> None:
    """The errors begin in ad; frontend and proxy pass them on."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("frontend-proxy")


@pytest.mark.otel_flag("adManualGc")
def test_garbage_is_collected_on_every_request(diagnosis: DiagnosedSession) -> None:
    """ad is slow, and its runtime metrics show why."""
    diagnosis.assert_expected()


@pytest.mark.otel_flag("kafkaQueueProblems")
def test_a_queue_grows_behind_the_orders(diagnosis: DiagnosedSession) -> None:
    """No request fails: only lag and linked traces show it."""
    diagnosis.assert_expected()


@pytest.mark.otel_flag("intlShippingSlowdown")
def test_parcels_abroad_take_long(diagnosis: DiagnosedSession) -> None:
    """One order in nine goes abroad, so the plugin drives orders abroad."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("quote")


@pytest.mark.otel_control()
@pytest.mark.parametrize("turn", range(3))
def test_no_false_alarm(diagnosis: DiagnosedSession, turn: int) -> None:
    """Nothing is wrong, so no alarm is the right answer."""
    diagnosis.assert_healthy()
