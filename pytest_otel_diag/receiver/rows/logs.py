"""Converts OTLP log records to rows of ``otel_logs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.receiver.rows import values
from pytest_otel_diag.receiver.rows.columns import Groups, ids, instants, integers, maps, table, texts

if TYPE_CHECKING:
    import pyarrow

_GROUP_COLUMNS = (
    "ServiceName",
    "ResourceAttributes",
    "ResourceSchemaUrl",
    "ScopeName",
    "ScopeVersion",
    "ScopeSchemaUrl",
    "ScopeAttributes",
)


def log_tables(messages: Sequence[Any]) -> Mapping[str, pyarrow.Table]:
    """Return the log records of ``ExportLogsServiceRequest`` messages as ``otel_logs``."""
    groups = Groups()
    logs: list[Any] = []
    for message in messages:
        for resource_logs in message.resource_logs:
            for scope_logs in resource_logs.scope_logs:
                logs.extend(scope_logs.log_records)
                groups.add(resource_logs, scope_logs, len(scope_logs.log_records))
    columns = {
        "Timestamp": instants([log.time_unix_nano or log.observed_time_unix_nano for log in logs]),
        "TraceId": ids(log.trace_id for log in logs),
        "SpanId": ids(log.span_id for log in logs),
        "TraceFlags": integers([log.flags & 0xFF for log in logs], "u1"),
        "SeverityText": texts([log.severity_text for log in logs]),
        "SeverityNumber": integers([log.severity_number & 0xFF for log in logs], "u1"),
        "Body": texts([values.text(log.body) for log in logs]),
        "LogAttributes": maps([log.attributes for log in logs]),
        "EventName": texts([log.event_name for log in logs]),
        **groups.columns(_GROUP_COLUMNS),
    }
    return {"otel_logs": table(columns)}
