"""Answers the questions about log lines and their templates."""

from __future__ import annotations

from pytest_otel_diag.model.questions import LogCounts, LogKinds
from pytest_otel_diag.model.telemetry import LogCount, LogKind
from pytest_otel_diag.telemetry.questions.statement_runner import StatementRunner, bucket_ns_of, over_windows

MOST_KINDS = 20_000
"""Log templates that one answer holds at most."""


async def log_counts(telemetry: StatementRunner, question: LogCounts) -> tuple[LogCount, ...]:
    """Return log lines per service and bucket."""
    parameters = {"bucket_ns": bucket_ns_of(question.bucket_s), "services": list(question.services)}
    answer = await over_windows(telemetry, "log_counts", [question.window], parameters)
    return tuple(
        LogCount(service=service, bucket_start_ns=bucket, lines=lines, severe=severe)
        for service, bucket, lines, severe in answer.rows()
    )


async def log_kinds(telemetry: StatementRunner, question: LogKinds) -> tuple[LogKind, ...]:
    """Return the log templates, those in most buckets first; at most :data:`MOST_KINDS`."""
    bucket_ns = bucket_ns_of(question.bucket_s)
    parameters = {"bucket_ns": bucket_ns, "services": list(question.services), "rows": MOST_KINDS}
    answer = await over_windows(telemetry, "log_kinds", [question.window], parameters)
    return tuple(
        LogKind(service=service, template=template, severe=bool(severe), lines=lines, buckets=buckets)
        for service, template, severe, lines, buckets in answer.rows()
    )
