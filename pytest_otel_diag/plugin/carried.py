"""Reads what :mod:`pytest_otel_diag.plugin.results` put on pytest's reports: sessions and failures."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from pytest_otel_diag.model.session import SessionResult

RETRIED = "rerun"
"""Outcome that pytest-rerunfailures gives to the last report of an attempt which it repeats."""


def sessions_on(report: pytest.TestReport) -> list[SessionResult]:
    """Return the sessions that the report carries."""
    texts = getattr(report, "otel_diag_sessions", ())
    return [SessionResult.model_validate(json.loads(text)) for text in texts]


def failed_by(report: pytest.TestReport, sessions: Iterable[SessionResult]) -> list[SessionResult]:
    """Return the sessions of the report's test with the failures that the report carries."""
    failures, unmet = getattr(report, "otel_diag_failures", ()), getattr(report, "otel_diag_unmet", ())
    return [
        session.model_copy(
            update={
                "failures": tuple(dict.fromkeys((*session.failures, *failures))),
                "unmet": tuple(dict.fromkeys((*session.unmet, *unmet))),
            }
        )
        for session in sessions
    ]
