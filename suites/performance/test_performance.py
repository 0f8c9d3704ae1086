"""Flags that cost time or CPU: the service that spends it is named, those that only wait are not."""

import pytest

from pytest_otel_diag import DiagnosedSession
from pytest_otel_diag.testing import each_variant

pytestmark = [
    pytest.mark.otel_target("shop"),
    pytest.mark.otel_timing(baseline_s=180, impact_poll_s=10, recover_timeout_s=0),
]


@pytest.mark.otel_flag("adHighCpu")
def test_threads_compute_without_end(diagnosis: DiagnosedSession) -> None:
    """Requests may be as fast as before: CPU metrics show the fault."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="ad", signal="cpu", direction="up")


@pytest.mark.otel_flag("adManualGc")
def test_every_request_collects_garbage(diagnosis: DiagnosedSession) -> None:
    """ad pauses for garbage collection; its callers wait."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="ad", signal="latency", direction="up")
    diagnosis.assert_not_blamed("frontend")


@each_variant("imageSlowLoad", "5sec", "10sec")
def test_images_are_held_back(diagnosis: DiagnosedSession, variant: str) -> None:
    """The proxy delays the images; image-provider is as fast as before."""
    diagnosis.assert_expected()
    diagnosis.assert_not_blamed("image-provider")


@each_variant("intlShippingSlowdown", "5sec", "10sec")
def test_parcels_abroad_are_slow(diagnosis: DiagnosedSession, variant: str) -> None:
    """One order in nine is slow, in shipping itself and not in its callees."""
    diagnosis.assert_expected()
    diagnosis.assert_anomaly(service="shipping", signal="latency", direction="up")
    diagnosis.assert_not_blamed("quote", top=3)
    diagnosis.assert_path("frontend", "checkout", "shipping")
