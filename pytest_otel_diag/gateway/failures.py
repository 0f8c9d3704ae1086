"""Errors of calls as HTTP responses, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pytest_otel_diag.errors import (
    AnalyzerError,
    BudgetExceeded,
    OtelDiagError,
    QueryFailed,
    QueryLimitExceeded,
    QueryRejected,
    SchemaError,
    TelemetryError,
    TelemetryUnavailable,
)
from pytest_otel_diag.gateway.exchange import Refused
from pytest_otel_diag.tools import ToolError

KINDS: Mapping[str, tuple[type[OtelDiagError], int]] = {
    "query_limit_exceeded": (QueryLimitExceeded, 422),
    "query_failed": (QueryFailed, 422),
    "query_rejected": (QueryRejected, 400),
    "schema": (SchemaError, 422),
    "telemetry_unavailable": (TelemetryUnavailable, 503),
    "telemetry": (TelemetryError, 503),
    "budget_exceeded": (BudgetExceeded, 429),
    "analyzer": (AnalyzerError, 400),
}
"""Kind of an error → its class and HTTP status; subclasses before their bases."""

_BAD_ARGUMENTS = "bad_arguments"


def refused(error: Exception) -> Refused:
    """Return the response to a call that raised *error*."""
    if isinstance(error, Refused):
        return error
    message = _readable(error) if isinstance(error, ValidationError) else str(error)
    cause = error.__cause__ if isinstance(error, ToolError) else error
    for kind, (class_, status) in KINDS.items():
        if isinstance(cause, class_):
            details = {"code": cause.code} if isinstance(cause, QueryFailed) else {}
            return Refused(status, kind, message, details=details)
    if isinstance(error, OtelDiagError | ValidationError | ValueError | OverflowError):
        return Refused(400, _BAD_ARGUMENTS, message)
    if isinstance(error, RecursionError):
        return Refused(400, _BAD_ARGUMENTS, "the arguments are nested too deep")
    return Refused(500, "internal", f"{type(error).__name__}: {message}")


def _readable(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in found[:5])


def raised(error: Mapping[str, Any]) -> Exception:
    """Return the exception that ``error`` of a response means, for clients in Python."""
    message = str(error.get("message", ""))
    class_, _ = KINDS.get(str(error.get("kind")), (OtelDiagError, 500))
    if issubclass(class_, QueryFailed):
        code = error.get("code")
        return class_(message, code if isinstance(code, int) else None)
    return class_(message)
