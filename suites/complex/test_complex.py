"""Several faults at once, faults beside harmless changes, and faults that are hard to see."""

import pytest

from pytest_otel_diag import DiagnosedSession

pytestmark = [
    pytest.mark.otel_target("shop"),
    pytest.mark.otel_timing(baseline_s=180, impact_poll_s=10, recover_timeout_s=0),
    pytest.mark.otel_environment(seed=11),  # different noise than in the suites of single faults
]


@pytest.mark.otel_flag("adFailure")
@pytest.mark.otel_flag("paymentFailure", variant="100%")
def test_two_independent_faults_are_both_named(diagnosis: DiagnosedSession) -> None:
    """Ads and orders share no path, so neither fault hides the other."""
    diagnosis.assert_detected()
    diagnosis.assert_root_cause("payment", top=2)
    diagnosis.assert_root_cause("ad", top=2)


@pytest.mark.otel_flag("kafkaQueueProblems")
@pytest.mark.otel_flag("productCatalogFailure")
def test_a_loud_fault_does_not_hide_a_silent_one(diagnosis: DiagnosedSession) -> None:
    """One fault fails pages, the other is visible only behind the broker."""
    diagnosis.assert_detected()
    diagnosis.assert_root_cause("product-catalog", top=3)
    assert diagnosis.named("checkout", top=3) or diagnosis.named("fraud-detection", top=3)


@pytest.mark.otel_flag("paymentUnreachable")
@pytest.mark.otel_flag("cartFailure", variant="100%")
@pytest.mark.otel_expect(
    root_cause="checkout",
    mechanism=("unreachable", "configuration", "network"),
    path=("frontend", "checkout"),
    not_blamed=("cart", "payment"),
)
def test_a_dormant_fault_is_not_named(diagnosis: DiagnosedSession) -> None:
    """No order reaches the step that empties the cart, so the second fault has no effect."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("cart", top=3)
    diagnosis.assert_not_blamed("payment")


@pytest.mark.otel_flag("paymentFailure", variant="50%")
@pytest.mark.otel_disturb("load", factor=2)
def test_more_shoppers_do_not_hide_a_fault(diagnosis: DiagnosedSession) -> None:
    """Twice the load raises the rate of every service, but only one fails."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("load-generator", top=3)


@pytest.mark.otel_flag("productCatalogFailure")
@pytest.mark.otel_disturb("gc", "ad")
def test_a_collection_elsewhere_is_a_decoy(diagnosis: DiagnosedSession) -> None:
    """ad has one garbage collection while product-catalog fails."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("ad", top=2)


@pytest.mark.otel_flag("cartFailure", variant="100%")
@pytest.mark.otel_disturb("restart", "recommendation")
def test_a_deployment_elsewhere_is_a_decoy(diagnosis: DiagnosedSession) -> None:
    """recommendation restarts at the moment cart begins to fail."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("recommendation")


@pytest.mark.otel_flag("kafkaQueueProblems")
def test_a_cause_behind_the_broker_is_found(diagnosis: DiagnosedSession) -> None:
    """No request fails: only lag and the linked traces of the consumers show the fault."""
    diagnosis.assert_detected()
    diagnosis.assert_anomaly(service="fraud-detection", signal="queue", direction="up")
    diagnosis.assert_path("checkout", "fraud-detection")


@pytest.mark.otel_flag("paymentFailure", variant="100%", at_s=0, until_s=45, every_s=90)
@pytest.mark.otel_timing(observe_s=270)
def test_a_flapping_fault_is_one_fault(diagnosis: DiagnosedSession) -> None:
    """The fault is on for 45 of every 90 s, so payment fails half of its calls."""
    diagnosis.assert_expected()
    diagnosis.assert_root_cause("payment", operation="Charge")


@pytest.mark.otel_flag("paymentFailure", variant="10%", steps={60: "25%", 120: "50%"})
@pytest.mark.otel_environment(users=10)
def test_a_fault_that_grows_is_found(diagnosis: DiagnosedSession) -> None:
    """A rollout gets worse: 10 %, then 25 %, then half of the calls fail."""
    diagnosis.assert_expected()
    diagnosis.assert_root_cause("payment")
