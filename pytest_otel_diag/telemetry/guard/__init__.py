"""Decides which SQL of an analyzer may run; see :mod:`.check`."""

from pytest_otel_diag.telemetry.guard.cache import Parses, used
from pytest_otel_diag.telemetry.guard.check import StatementScope, check, check_text

__all__ = ["Parses", "StatementScope", "check", "check_text", "used"]
