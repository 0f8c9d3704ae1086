"""Controls: nothing is wrong, though load or deployments may change, so no alarm is the right answer."""

import pytest

from pytest_otel_diag import DiagnosedSession

pytestmark = [
    pytest.mark.otel_target("shop"),
    # As long as sessions with a fault, so that the duration does not reveal the answer.
    pytest.mark.otel_timing(baseline_s=180, observe_s=180, recover_timeout_s=0),
]


@pytest.mark.otel_control()
@pytest.mark.parametrize("hour", range(6))
def test_a_quiet_hour(diagnosis: DiagnosedSession, hour: int) -> None:
    """Usual noise, drawn from another seed each time."""
    diagnosis.assert_healthy()


@pytest.mark.otel_control()
@pytest.mark.otel_disturb("load", factor=2)
@pytest.mark.parametrize("hour", range(3))
def test_twice_the_shoppers(diagnosis: DiagnosedSession, hour: int) -> None:
    """Rates double, but every request is served as before."""
    diagnosis.assert_healthy()


@pytest.mark.otel_control()
@pytest.mark.parametrize(
    "service",
    [
        pytest.param(name, marks=pytest.mark.otel_disturb("restart", name, at_s=30))
        for name in ("recommendation", "ad", "payment", "cart", "shipping")
    ],
)
def test_a_deployment(diagnosis: DiagnosedSession, service: str) -> None:
    """A service restarts: caches are cold and code is slow for a moment."""
    diagnosis.assert_healthy()


@pytest.mark.otel_control()
@pytest.mark.parametrize(
    "service",
    [
        pytest.param(name, marks=pytest.mark.otel_disturb("gc", name, at_s=30))
        for name in ("ad", "fraud-detection")
    ],
)
def test_a_garbage_collection(diagnosis: DiagnosedSession, service: str) -> None:
    """A single collection within limits is normal for a runtime."""
    diagnosis.assert_healthy()


@pytest.mark.otel_flag("failedReadinessProbe")
def test_a_probe_that_nobody_asks(diagnosis: DiagnosedSession) -> None:
    """The flag is on, and has no effect."""
    diagnosis.assert_healthy()


@pytest.mark.otel_flag("loadGeneratorVUs", variant="10")
def test_the_load_generator_is_told_to_do_more(diagnosis: DiagnosedSession) -> None:
    """The flag doubles the users, with a short gap while the load generator restarts."""
    diagnosis.assert_healthy()
