"""Diagnostic queries that show the evidence; all values are literals, so they run unchanged."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.analyzers.builtin.evidence.deviations import Finding
from pytest_otel_diag.analyzers.builtin.evidence.observations import SeriesKey
from pytest_otel_diag.analyzers.builtin.templates import MASK
from pytest_otel_diag.model.diagnosis import DiagnosticQuery
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.statements import load
from pytest_otel_diag.statements.spellings import FAILED

WINDOWS_SHOWN = 12
"""Number of quiet windows in a query, limited for readability."""

OWNER = load(__package__, "owner").sql
"""Expression of the service that a metric describes."""

_PERIOD = "if({incident}, 'incident', 'quiet') AS period"


def literal(text: str) -> str:
    r"""Return a ClickHouse string literal: backslashes and quotes escaped, control characters as \\xNN."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + "".join(f"\\x{ord(c):02x}" if ord(c) < 32 else c for c in escaped) + "'"


def inside(column: str, windows: Sequence[Window]) -> str:
    """Return the condition that *column* lies in one of the windows."""
    ranges = (
        f"({column} >= fromUnixTimestamp64Nano(toInt64({w.start_ns})) "
        f"AND {column} < fromUnixTimestamp64Nano(toInt64({w.end_ns})))"
        for w in windows
    )
    return f"({' OR '.join(ranges)})"


def spans_query(service: str, incident: Window, quiet: Sequence[Window]) -> DiagnosticQuery:
    """Compare the service's operations inside and outside the incident."""
    sql = f"""SELECT ServiceName AS service, SpanName AS operation,
    {_period("Timestamp", incident)},
    count() AS spans, countIf({FAILED}) AS errors,
    round(errors / spans, 4) AS error_rate,
    round(quantileExact(0.5)(Duration) / 1e6, 3) AS p50_ms,
    round(quantileExact(0.99)(Duration) / 1e6, 3) AS p99_ms
FROM otel_traces
WHERE ServiceName = {literal(service)} AND {inside("Timestamp", [incident, *quiet[-WINDOWS_SHOWN:]])}
GROUP BY service, operation, period
ORDER BY operation, period
LIMIT 200"""  # noqa: S608 - values are quoted by literal(), instants are integers
    return DiagnosticQuery(sql=sql, description=f"operations of {service} in the incident and in quiet time")


def logs_query(service: str, incident: Window, quiet: Sequence[Window]) -> DiagnosticQuery:
    """Compare the service's log lines inside and outside the incident."""
    sql = f"""SELECT ServiceName AS service, SeverityText AS severity,
    substring(replaceRegexpAll(Body, {literal(MASK)}, '<*>'), 1, 200) AS line,
    {_period("Timestamp", incident)},
    count() AS lines
FROM otel_logs
WHERE ServiceName = {literal(service)} AND {inside("Timestamp", [incident, *quiet[-WINDOWS_SHOWN:]])}
GROUP BY service, severity, line, period
ORDER BY line, period
LIMIT 500"""  # noqa: S608 - as above
    return DiagnosticQuery(sql=sql, description=f"log lines of {service} in the incident and in quiet time")


def metric_query(key: SeriesKey, incident: Window, quiet: Sequence[Window]) -> DiagnosticQuery:
    """Compare one metric inside and outside the incident."""
    value = "Value" if key.table in {"otel_metrics_gauge", "otel_metrics_sum"} else "Sum / Count"
    sql = f"""SELECT {OWNER} AS service, MetricName AS metric, toString(Attributes) AS attributes,
    {_period("TimeUnix", incident)},
    count() AS points, avg({value}) AS mean, min({value}) AS lowest, max({value}) AS highest
FROM {key.table}
WHERE service = {literal(key.service)} AND MetricName = {literal(key.metric)}
    AND {inside("TimeUnix", [incident, *quiet[-WINDOWS_SHOWN:]])}
GROUP BY service, metric, attributes, period
ORDER BY attributes, period
LIMIT 200"""  # noqa: S608 - as above; the table is one of the exporter's
    return DiagnosticQuery(
        sql=sql, description=f"{key.metric} of {key.owner} in the incident and in quiet time"
    )


def query_for(
    finding: Finding, series: Sequence[SeriesKey], incident: Window, quiet: Sequence[Window]
) -> DiagnosticQuery:
    """Return the query over the signal with the strongest evidence."""
    if finding.source == "metrics":
        for key in series:
            if key.owner == finding.service and finding.text.startswith(key.metric):
                return metric_query(key, incident, quiet)
    if finding.source == "logs":
        return logs_query(finding.service, incident, quiet)
    return spans_query(finding.service, incident, quiet)


def _period(column: str, incident: Window) -> str:
    return _PERIOD.format(incident=inside(column, [incident]))
