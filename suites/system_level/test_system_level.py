"""Flags whose damage grows, queues up or kills: memory, lag, restarts."""

import pytest

from pytest_otel_diag import DiagnosedSession
from pytest_otel_diag.testing import each_variant

pytestmark = [
    pytest.mark.otel_target("shop"),
    pytest.mark.otel_timing(baseline_s=180, impact_poll_s=10, recover_timeout_s=0),
]


@pytest.mark.slow
@pytest.mark.otel_flag("recommendationCacheFailure")
def test_a_cache_grows_without_end(diagnosis: DiagnosedSession) -> None:
    """Its memory climbs while its traffic does not; the catalog is merely asked less often."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="recommendation", signal="memory", direction="up")
    diagnosis.assert_not_blamed("product-catalog")


@pytest.mark.otel_flag("kafkaQueueProblems")
def test_a_queue_fills_up(diagnosis: DiagnosedSession) -> None:
    """One publishes too much, one is too slow: either is right. The broker and accounting only suffer."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="fraud-detection")
    diagnosis.assert_not_blamed("accounting")


@each_variant("emailMemoryLeak", "1000x", "10000x")
def test_kept_messages_fill_the_memory(diagnosis: DiagnosedSession, variant: str) -> None:
    """email is killed and comes back, again and again; no order fails for it."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="email", signal="memory", direction="up")
    diagnosis.assert_not_blamed("checkout")


@pytest.mark.otel_flag("loadGeneratorTraffic")
def test_nobody_shops(diagnosis: DiagnosedSession) -> None:
    """Shown, not gated: the catalog says why telemetry cannot tell."""
    diagnosis.assert_not_blamed("frontend")
