"""Tests against the simulated shop, the default target: nothing to set up."""

from tests.support.plugins import NO_HYPOTHESIS

LOOK = """
import pytest

ERRORS = "SELECT count() AS n FROM otel_traces WHERE ServiceName = 'payment' AND StatusCode = 'Error'"


@pytest.mark.otel_flag("paymentServiceFailure", variant="100%")  # the old name of the flag
@pytest.mark.otel_environment(users=10)
@pytest.mark.otel_timing(baseline_s=120, observe_s=90)
def test_fault(diagnosis, otel_telemetry, otel_flags):
    diagnosis.assert_detected()
    diagnosis.assert_root_cause("payment")
    assert otel_telemetry.query(ERRORS).result().column("n")[0] > 0
    assert otel_flags.served("paymentFailure").result().variant == "off"


def test_quiet(otel_telemetry, otel_flags):
    assert otel_telemetry.query("SELECT count() AS n FROM otel_traces").result().column("n")[0] > 0
    otel_flags.set("adFailure", "on").result()
    assert otel_flags.served("adFailure").result().variant == "on"
"""


def test_a_test_queries_the_shop_that_had_the_fault(pytester) -> None:
    pytester.makepyfile(LOOK)
    done = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *NO_HYPOTHESIS)
    done.assert_outcomes(passed=2)
    sessions = next((pytester.path / "reports").glob("*/sessions.jsonl")).read_text(encoding="utf-8")
    assert sessions.count("\n") == 1, "looking is no session"
