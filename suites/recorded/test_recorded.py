"""Every incident and every control of the recordings named by ``--otel-diag-target=replay:PATH``.

Each incident carries markers for its fault type and its system, so ``-m network_delay`` picks some.
"""

import pytest

from pytest_otel_diag import DiagnosedSession

pytestmark = pytest.mark.otel_target("replay")


@pytest.mark.otel_recorded("incidents")
def test_incident(diagnosis: DiagnosedSession) -> None:
    """The fault is detected and its root cause is named first."""
    diagnosis.assert_expected()


@pytest.mark.otel_recorded("controls")
def test_control(diagnosis: DiagnosedSession) -> None:
    """Nothing is wrong, and the analyzer says so."""
    diagnosis.assert_healthy()
