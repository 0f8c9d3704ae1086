"""Investigations over telemetry without a session: metered as a session does it, windows of two minutes."""

from __future__ import annotations

import time

from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Investigation, Telemetry
from pytest_otel_diag.sessions.investigation.metering import MeteredTelemetry
from pytest_otel_diag.testing.analyzer_contract import BASELINE, INCIDENT, StandingClock


def investigation_over(
    telemetry: Telemetry,
    *,
    incident: Window = INCIDENT,
    baseline: Window | None = BASELINE,
    reference: tuple[Window, ...] = (),
    budget: Budget | None = None,
) -> Investigation:
    """Return an investigation whose telemetry is metered."""
    allowed = budget or Budget()
    return Investigation(
        session_id="0123456789abcdef",
        incident=incident,
        baseline=baseline,
        reference=reference,
        telemetry=MeteredTelemetry(telemetry, allowed, monotonic=time.monotonic),
        clock=StandingClock(),
        budget=allowed,
    )
