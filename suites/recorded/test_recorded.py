"""Every incident and every control of recordings: ``--otel-diag-target=replay:PATH``.

Each incident has markers for its fault type and its system, for example ``-m network_delay``.
"""

import pytest

from pytest_otel_diag import DiagnosedSession

pytestmark = pytest.mark.otel_target("replay")


@pytest.mark.otel_recorded("incidents")
def test_incident(diagnosis: DiagnosedSession) -> None:
    """The fault is detected, and its root cause is ranked first."""
    diagnosis.assert_expected()


@pytest.mark.otel_recorded("controls")
def test_control(diagnosis: DiagnosedSession) -> None:
    """Nothing is wrong, so no alarm is the right answer."""
    diagnosis.assert_healthy()
