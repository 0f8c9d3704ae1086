"""The workflow's own questions: newest telemetry, service health, call edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pytest_otel_diag import statements
from pytest_otel_diag.errors import QueryRejected
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import (
    SPANS_TABLE,
    CallEdge,
    QueryLimits,
    ServiceHealth,
    Table,
    TelemetrySchema,
)
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.telemetry.relations import missing, named
from pytest_otel_diag.telemetry.schema import signal_of

LAST_NS = 2**63 - 1
"""The last instant there is, in nanoseconds."""


class Asks(Protocol):
    """What the questions need of a session's telemetry."""

    async def schema(self) -> TelemetrySchema:
        """Return the tables and columns that are there."""
        ...

    async def ask(
        self,
        statement: Statement,
        parameters: Mapping[str, Any] | None = None,
        limits: QueryLimits | None = None,
    ) -> Table:
        """Run a statement of this package."""
        ...


async def over_windows(
    telemetry: Asks, name: str, windows: Sequence[Window], parameters: Mapping[str, Any] | None = None
) -> Table:
    """Run the named statement over telemetry of the windows; no answer when all windows are empty."""
    statement = named(name, await telemetry.schema())
    if all(window.empty for window in windows):
        return Table((), ())
    whole = next(statements.key_slices(1))
    return await telemetry.ask(
        statement, {**statements.window_parameters(windows), **whole, **(parameters or {})}
    )


async def latest(telemetry: Asks, *, until_ns: Nanos | None = None) -> Nanos | None:
    """Return the end of the newest span, log line or metric point visible, None when there is none.

    What ended after *until_ns* does not count (settled windows may lie in a session's future).
    Raises SchemaError when none of the exporter's tables is there.
    """
    schema = await telemetry.schema()
    if not schema.signals():
        raise missing(schema, "otel_traces")
    newest: list[Nanos] = []
    until = until_ns if until_ns is not None else LAST_NS
    for table in schema.tables:
        name = _latest_statement(table, schema)
        if name is None:
            continue
        answer = await telemetry.ask(statements.load(__package__, name), {"table": table, "until_ns": until})
        if answer.column("rows")[0]:
            newest.append(int(answer.column("newest_ns")[0]))
    return max(newest, default=None)


async def service_health(telemetry: Asks, window: Window, bucket_s: float) -> tuple[ServiceHealth, ...]:
    """Return requests, errors and latency per service and bucket of *bucket_s* seconds.

    Counted over server, consumer and root spans that start in the window; a bucket without any has
    no row. Quantiles are exact. Raises QueryRejected for a bucket that is not positive.
    """
    bucket_ns = seconds_to_ns(bucket_s)
    if bucket_ns <= 0:
        raise QueryRejected(f"a bucket of {bucket_s} s cannot be counted; use a positive number of seconds")
    answer = await over_windows(telemetry, "service_health", [window], {"bucket_ns": bucket_ns})
    return tuple(
        ServiceHealth(
            service=service,
            bucket_start_ns=bucket,
            requests=requests,
            errors=errors,
            p50_ms=latency[0],
            p95_ms=latency[1],
            p99_ms=latency[2],
        )
        for service, bucket, requests, errors, latency in answer.rows()
    )


async def call_edges(telemetry: Asks, window: Window) -> tuple[CallEdge, ...]:
    """Return the calls between services whose both spans start in the window."""
    answer = await over_windows(telemetry, "call_edges", [window])
    return tuple(CallEdge(**row) for row in answer.dicts())


def _latest_statement(table: str, schema: TelemetrySchema) -> str | None:
    if table == SPANS_TABLE:
        return "latest_traces_slim"
    signal = signal_of(table)
    if signal == "traces" and schema.has(SPANS_TABLE):
        return None  # the companion answers the same from one eighth of the bytes
    return f"latest_{signal}" if signal else None
