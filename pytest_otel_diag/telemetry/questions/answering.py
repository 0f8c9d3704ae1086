"""Finds the function that answers a typed question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from pytest_otel_diag.errors import QueryRejected
from pytest_otel_diag.model.questions import (
    CallEdges,
    FlagMentions,
    Latest,
    LogCounts,
    LogKinds,
    MetricLevels,
    OperationHealthOf,
    Question,
    ServiceHealthOf,
)
from pytest_otel_diag.telemetry.questions.health import call_edges, latest, operation_health, service_health
from pytest_otel_diag.telemetry.questions.leaks import flag_mentions
from pytest_otel_diag.telemetry.questions.logs import log_counts, log_kinds
from pytest_otel_diag.telemetry.questions.metrics import metric_levels
from pytest_otel_diag.telemetry.questions.statement_runner import StatementRunner

T = TypeVar("T")

_ANSWERS: Mapping[type[Question[Any]], Callable[[StatementRunner, Any], Awaitable[Any]]] = {
    Latest: latest,
    ServiceHealthOf: service_health,
    CallEdges: call_edges,
    OperationHealthOf: operation_health,
    MetricLevels: metric_levels,
    LogCounts: log_counts,
    LogKinds: log_kinds,
    FlagMentions: flag_mentions,
}


async def answer(telemetry: StatementRunner, question: Question[T]) -> T:
    """Return the answer to *question*; raises QueryRejected for a question that no function answers."""
    function = _ANSWERS.get(type(question))
    if function is None:
        known = ", ".join(kind.__name__ for kind in _ANSWERS)
        raise QueryRejected(f"cannot answer {type(question).__name__}; known questions: {known}")
    return cast("T", await function(telemetry, question))
