"""What the columns of the exporter's tables mean, in a few words for a model."""

from __future__ import annotations

from collections.abc import Mapping

_RESOURCE: Mapping[str, str] = {
    "ResourceAttributes": "of the process, such as host.name or k8s.pod.name",
    "ScopeName": "instrumentation library",
    "ServiceName": "service that sent it",
}
_POINT: Mapping[str, str] = {
    **_RESOURCE,
    "MetricName": "name of the metric",
    "MetricUnit": "unit (UCUM), such as By, ms or 1",
    "MetricDescription": "what it measures",
    "Attributes": "of the series",
    "StartTimeUnix": "when the series began; a later value means a restart",
    "TimeUnix": "time of the point (UTC)",
    "AggregationTemporality": "1 delta, 2 cumulative (take differences)",
    "IsMonotonic": "true: a counter that only grows",
    "Flags": "1: no value recorded",
}
_DISTRIBUTION: Mapping[str, str] = {
    **_POINT,
    "Count": "number of observations",
    "Sum": "their sum, in MetricUnit",
    "BucketCounts": "observations per bucket, one more than ExplicitBounds",
    "ExplicitBounds": "upper bounds of the buckets",
    "Min": "smallest observation",
    "Max": "largest observation",
}

MEANINGS: Mapping[str, Mapping[str, str]] = {
    "otel_traces": {
        **_RESOURCE,
        "Timestamp": "start of the span (UTC)",
        "TraceId": "32 hex digits",
        "SpanId": "16 hex digits",
        "ParentSpanId": "SpanId of the caller, '' for roots",
        "SpanName": "operation",
        "SpanKind": "Server, Client, Internal, Producer or Consumer",
        "SpanAttributes": "such as http.response.status_code or rpc.method",
        "Duration": "nanoseconds",
        "StatusCode": "Unset, Ok or Error",
        "StatusMessage": "reason of an Error",
        "Events.Name": "events of the span, such as exception",
        "Events.Attributes": "one map an event, such as exception.message",
        "Links.TraceId": "traces that it continues",
    },
    "otel_traces_slim": {
        "trace": "cityHash64(TraceId)",
        "span": "cityHash64(SpanId)",
        "parent": "cityHash64(ParentSpanId), 0 for roots",
        "start_ns": "UTC nanoseconds",
        "duration_ns": "nanoseconds",
        "operation": "SpanName",
        "kind": "SpanKind",
        "error": "1: status Error",
        "instance": "pod, instance or host",
    },
    "otel_logs": {
        **_RESOURCE,
        "Timestamp": "time of the line (UTC)",
        "TraceId": "trace it belongs to, or ''",
        "SpanId": "span it belongs to, or ''",
        "SeverityText": "such as INFO, WARN or ERROR",
        "SeverityNumber": "1-4 trace, 5-8 debug, 9-12 info, 13-16 warn, 17-20 error, 21-24 fatal",
        "Body": "text",
        "LogAttributes": "fields of the line",
    },
    "otel_metrics_gauge": {**_POINT, "Value": "value at TimeUnix"},
    "otel_metrics_sum": {
        **_POINT,
        "Value": "total since StartTimeUnix (cumulative), or since the last point",
    },
    "otel_metrics_histogram": _DISTRIBUTION,
    "otel_metrics_exponential_histogram": _DISTRIBUTION,
    "otel_metrics_summary": {
        **_POINT,
        "Count": "number of observations",
        "Sum": "their sum",
        "ValueAtQuantiles.Quantile": "quantiles",
        "ValueAtQuantiles.Value": "their values",
    },
}
"""Table → column → meaning; columns that explain themselves, or that no analysis needs, have none."""
