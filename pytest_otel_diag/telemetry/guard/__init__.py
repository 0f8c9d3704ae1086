"""Decides which SQL of an analyzer may run; see :mod:`.check`."""

from pytest_otel_diag.telemetry.guard.cache import Parses, used
from pytest_otel_diag.telemetry.guard.check import Parsed, StatementScope, check
from pytest_otel_diag.telemetry.guard.text import check_text

__all__ = ["Parsed", "Parses", "StatementScope", "check", "check_text", "used"]
