"""Converts OTLP spans to rows of ``otel_traces``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_otel_diag.receiver.rows.columns import (
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

if TYPE_CHECKING:
    import pyarrow

_KINDS = {0: "Unspecified", 1: "Internal", 2: "Server", 3: "Client", 4: "Producer", 5: "Consumer"}
_STATUS = {0: "Unset", 1: "Ok", 2: "Error"}
_NOTHING: tuple[Any, ...] = ()  # iterating an empty tuple is cheaper than an empty protobuf list
_GROUP_COLUMNS = ("ServiceName", "ResourceAttributes", "ScopeName", "ScopeVersion")


def trace_tables(messages: Sequence[Any]) -> Mapping[str, pyarrow.Table]:
    """Return the spans of ``ExportTraceServiceRequest`` messages as ``otel_traces``."""
    groups = Groups()
    spans: list[Any] = []
    for message in messages:
        for resource_spans in message.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                spans.extend(scope_spans.spans)
                groups.add(resource_spans, scope_spans, len(scope_spans.spans))
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
        **groups.columns(_GROUP_COLUMNS),
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
