"""OTLP requests as rows of the tables of the collector's ClickHouse exporter.

Every value is what the exporter writes, with one exception: a span that ends before it starts has the
duration 0 (the exporter's difference wraps around to centuries).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.receiver import values
from pytest_otel_diag.receiver.columns import (
    Column,
    Groups,
    ids,
    instants,
    integers,
    lists,
    maps,
    table,
    texts,
)
from pytest_otel_diag.receiver.metric_rows import metrics
from pytest_otel_diag.receiver.packages import Signal

if TYPE_CHECKING:
    import pyarrow

_KINDS = {0: "Unspecified", 1: "Internal", 2: "Server", 3: "Client", 4: "Producer", 5: "Consumer"}
_STATUS = {0: "Unset", 1: "Ok", 2: "Error"}
_NOTHING: tuple[Any, ...] = ()
_OF_TRACES = ("ServiceName", "ResourceAttributes", "ScopeName", "ScopeVersion")
_OF_LOGS = (*_OF_TRACES, "ResourceSchemaUrl", "ScopeSchemaUrl", "ScopeAttributes")


def tables(signal: Signal, messages: Sequence[Any]) -> Mapping[str, pyarrow.Table]:
    """Return the records of ``Export…ServiceRequest`` messages by table; tables without rows are left out."""
    makers: Mapping[Signal, Callable[[Sequence[Any]], Mapping[str, pyarrow.Table]]] = {
        "traces": _traces,
        "logs": _logs,
        "metrics": metrics,
    }
    return {name: data for name, data in makers[signal](messages).items() if data.num_rows}


def _traces(messages: Sequence[Any]) -> Mapping[str, pyarrow.Table]:
    groups = Groups()
    spans: list[Any] = []
    for message in messages:
        for of_resource in message.resource_spans:
            for of_scope in of_resource.scope_spans:
                spans.extend(of_scope.spans)
                groups.add(of_resource, of_scope, len(of_scope.spans))
    starts = [span.start_time_unix_nano for span in spans]
    ends = [span.end_time_unix_nano for span in spans]
    statuses = [span.status for span in spans]
    columns = {
        "Timestamp": instants(starts),
        "TraceId": ids(span.trace_id for span in spans),
        "SpanId": ids(span.span_id for span in spans),
        "ParentSpanId": ids(span.parent_span_id for span in spans),
        "TraceState": texts([span.trace_state for span in spans]),
        "SpanName": texts([span.name for span in spans]),
        "SpanKind": texts([_KINDS.get(span.kind, "") for span in spans]),
        "SpanAttributes": maps([span.attributes for span in spans]),
        "Duration": integers([max(end - start, 0) for start, end in zip(starts, ends, strict=True)], "u8"),
        "StatusCode": texts([_STATUS.get(status.code, "") for status in statuses]),
        "StatusMessage": texts([status.message for status in statuses]),
        **_events([span.events or _NOTHING for span in spans]),
        **_links([span.links or _NOTHING for span in spans]),
        **_shared(groups, _OF_TRACES),
    }
    return {"otel_traces": table(columns)}


def _events(events: Sequence[Sequence[Any]]) -> Mapping[str, Column]:
    return {
        "Events.Timestamp": lists(events, lambda flat: instants([event.time_unix_nano for event in flat])),
        "Events.Name": lists(events, lambda flat: texts([event.name for event in flat])),
        "Events.Attributes": lists(events, lambda flat: maps([event.attributes for event in flat])),
    }


def _links(links: Sequence[Sequence[Any]]) -> Mapping[str, Column]:
    return {
        "Links.TraceId": lists(links, lambda flat: ids(link.trace_id for link in flat)),
        "Links.SpanId": lists(links, lambda flat: ids(link.span_id for link in flat)),
        "Links.TraceState": lists(links, lambda flat: texts([link.trace_state for link in flat])),
        "Links.Attributes": lists(links, lambda flat: maps([link.attributes for link in flat])),
    }


def _logs(messages: Sequence[Any]) -> Mapping[str, pyarrow.Table]:
    groups = Groups()
    logs: list[Any] = []
    for message in messages:
        for of_resource in message.resource_logs:
            for of_scope in of_resource.scope_logs:
                logs.extend(of_scope.log_records)
                groups.add(of_resource, of_scope, len(of_scope.log_records))
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
        **_shared(groups, _OF_LOGS),
    }
    return {"otel_logs": table(columns)}


def _shared(groups: Groups, names: Iterable[str]) -> Mapping[str, Column]:
    columns = groups.columns()
    return {name: columns[name] for name in names}
