"""The workflow of one session, in virtual and in wall time."""

from pytest_otel_diag.sessions.engine import SessionEngine
from pytest_otel_diag.sessions.investigation.loading import as_analyzer
from pytest_otel_diag.sessions.settings import EngineSettings, Judge, SessionPlan, WallTime

__all__ = [
    "EngineSettings",
    "Judge",
    "SessionEngine",
    "SessionPlan",
    "WallTime",
    "as_analyzer",
]
