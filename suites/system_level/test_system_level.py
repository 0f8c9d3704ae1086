"""Flags that exhaust resources: memory, queues, restarts."""

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
    """Memory rises while traffic does not; product-catalog only gets fewer calls."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="recommendation", signal="memory", direction="up")
    diagnosis.assert_not_blamed("product-catalog")


@pytest.mark.otel_flag("kafkaQueueProblems")
def test_a_queue_fills_up(diagnosis: DiagnosedSession) -> None:
    """checkout publishes too much, fraud-detection is too slow: either is right. accounting only lags."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="fraud-detection")
    diagnosis.assert_not_blamed("accounting")


@each_variant("emailMemoryLeak", "1000x", "10000x")
def test_kept_messages_fill_the_memory(diagnosis: DiagnosedSession, variant: str) -> None:
    """email is killed and restarts repeatedly; no order fails because of it."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="email", signal="memory", direction="up")
    diagnosis.assert_not_blamed("checkout")


@pytest.mark.otel_flag("loadGeneratorTraffic")
def test_nobody_shops(diagnosis: DiagnosedSession) -> None:
    """Shown but not gated: the catalog says why telemetry cannot show it."""
    diagnosis.assert_not_blamed("frontend")
