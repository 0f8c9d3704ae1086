"""Small telemetry for tests, as Arrow tables of the exporter's layout. Times count from START_NS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_otel_diag import arrow
from pytest_otel_diag.model.windows import Window

if TYPE_CHECKING:
    import pyarrow

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000
MINUTE = Window(start_ns=START_NS, end_ns=START_NS + 60 * SECOND_NS)
ODD_NAME = 'pay\'ment "€" `--` ; DROP TABLE otel_traces /* %s {x:String} \\'


def span(  # noqa: PLR0913 - a span has that many independent properties, all but the ids by keyword
    trace: str,
    span_id: str,
    parent: str = "",
    *,
    service: str = "front",
    operation: str = "op",
    kind: str = "Server",
    at_s: float = 0.0,
    ms: float = 1.0,
    error: bool = False,
) -> dict[str, Any]:
    """Return one row of ``otel_traces``; *at_s* counts from START_NS."""
    return {
        "Timestamp": START_NS + round(at_s * SECOND_NS),
        "TraceId": trace,
        "SpanId": span_id,
        "ParentSpanId": parent,
        "ServiceName": service,
        "SpanName": operation,
        "SpanKind": kind,
        "Duration": round(ms * 1_000_000),
        "StatusCode": "Error" if error else "Unset",
        "ResourceAttributes": [("service.name", service), ("k8s.pod.name", f"{service}-0")],
    }


def traces_table(rows: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
    """Return rows of :func:`span` as an Arrow table of ``otel_traces``."""
    pa = arrow.arrow()
    texts = ("TraceId", "SpanId", "ParentSpanId", "ServiceName", "SpanName", "SpanKind", "StatusCode")
    columns = {
        "Timestamp": pa.array([row["Timestamp"] for row in rows], pa.timestamp("ns", "UTC")),
        "Duration": pa.array([row["Duration"] for row in rows], pa.int64()),
        "ResourceAttributes": pa.array(
            [row["ResourceAttributes"] for row in rows], pa.map_(pa.string(), pa.string())
        ),
        "SpanAttributes": pa.array(
            [row.get("SpanAttributes", []) for row in rows], pa.map_(pa.string(), pa.string())
        ),
        **{name: pa.array([row[name] for row in rows], pa.string()) for name in texts},
    }
    return pa.table(columns)


def gauge_table(rows: Sequence[tuple[float, str, str, float]], **attributes: str) -> pyarrow.Table:
    """Return rows (seconds from START_NS, service, metric, value) as an Arrow table of a gauge."""
    pa = arrow.arrow()
    instants = [START_NS + round(at_s * SECOND_NS) for at_s, *_ in rows]
    texts = pa.map_(pa.string(), pa.string())
    return pa.table(
        {
            "TimeUnix": pa.array(instants, pa.timestamp("ns", "UTC")),
            "StartTimeUnix": pa.array([START_NS] * len(rows), pa.timestamp("ns", "UTC")),
            "ServiceName": pa.array([service for _, service, *_ in rows], pa.string()),
            "MetricName": pa.array([metric for _, _, metric, _ in rows], pa.string()),
            "ResourceAttributes": pa.array([[("service.instance.id", s)] for _, s, *_ in rows], texts),
            "Attributes": pa.array([list(attributes.items())] * len(rows), texts),
            "Value": pa.array([value for *_, value in rows], pa.float64()),
        }
    )


def sum_table(
    rows: Sequence[tuple[float, str, str, float]], *, begun_s: float = 0.0, monotonic: bool = True
) -> pyarrow.Table:
    """Return rows as :func:`gauge_table` does, as a cumulative sum that counts since *begun_s*."""
    pa = arrow.arrow()
    table = gauge_table(rows)
    begun = [START_NS + round(begun_s * SECOND_NS)] * len(rows)
    table = table.set_column(
        table.column_names.index("StartTimeUnix"), "StartTimeUnix", pa.array(begun, pa.timestamp("ns", "UTC"))
    )
    table = table.append_column("IsMonotonic", pa.array([monotonic] * len(rows), pa.bool_()))
    return table.append_column("AggregationTemporality", pa.array([2] * len(rows), pa.int32()))


def logs_table(rows: Sequence[tuple[float, str, str, str]]) -> pyarrow.Table:
    """Return rows (seconds from START_NS, service, severity, body) as an Arrow table of ``otel_logs``."""
    pa = arrow.arrow()
    instants = [START_NS + round(at_s * SECOND_NS) for at_s, *_ in rows]
    return pa.table(
        {
            "Timestamp": pa.array(instants, pa.timestamp("ns", "UTC")),
            "ServiceName": pa.array([service for _, service, *_ in rows], pa.string()),
            "SeverityText": pa.array([severity for *_, severity, _ in rows], pa.string()),
            "Body": pa.array([body for *_, body in rows], pa.string()),
        }
    )


def sample_traces() -> pyarrow.Table:
    """Return ten traces, one a second: front → middle (client span between) → back, the last one failing."""
    rows = []
    for number in range(10):
        trace, at_s, failing = f"t{number}", float(number), number == 9
        rows += [
            span(trace, f"{number}a", at_s=at_s, ms=100),
            span(trace, f"{number}b", f"{number}a", kind="Client", at_s=at_s + 0.01, ms=80),
            span(trace, f"{number}c", f"{number}b", service="middle", at_s=at_s + 0.02, ms=60),
            span(trace, f"{number}d", f"{number}c", service=ODD_NAME, at_s=at_s + 0.03, ms=40, error=failing),
        ]
    return traces_table(rows)
