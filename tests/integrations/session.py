"""The session that agents are tried on; not collected by default, tests/integrations/run.py names it."""

import pytest

from pytest_otel_diag import DiagnosedSession

pytestmark = [
    pytest.mark.otel_target("shop"),
    pytest.mark.otel_timing(baseline_s=180, impact_poll_s=10, recover_timeout_s=0),
]


@pytest.mark.otel_flag("paymentFailure", "100%")
def test_charging_cards_fails(diagnosis: DiagnosedSession) -> None:
    """The scripted model names the deepest service that fails."""
    diagnosis.assert_root_cause("payment", mechanism="error")
    diagnosis.assert_query_shows("payment")
