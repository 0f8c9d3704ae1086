"""Facts for the judge: the services and calls that telemetry shows."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_otel_diag.errors import TelemetryError
from pytest_otel_diag.model.session import SessionWindows
from pytest_otel_diag.model.telemetry import CallEdge
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.statements import load

_TABLES = (
    ("services_traces", "otel_traces", "Timestamp"),
    ("services_logs", "otel_logs", "Timestamp"),
    ("services_gauge", "otel_metrics_gauge", "TimeUnix"),
    ("services_sum", "otel_metrics_sum", "TimeUnix"),
    ("services_histogram", "otel_metrics_histogram", "TimeUnix"),
)

_REFERENCES = 100
"""Reference windows that are searched for services, at most."""


def known_windows(windows: SessionWindows) -> tuple[Window, ...]:
    """Return the windows to search for calls: baseline (or the last reference window) and incident."""
    before = windows.baseline or (windows.reference[-1] if windows.reference else None)
    return tuple(window for window in (before, windows.incident) if window is not None)


def service_windows(windows: SessionWindows) -> tuple[Window, ...]:
    """Return the windows to search for services: baseline to incident, and the latest reference windows.

    Only the reference windows show a service that vanished before the session began.
    """
    quiet = windows.reference[-_REFERENCES:]
    if windows.baseline and windows.incident:
        hull = Window(start_ns=windows.baseline.start_ns, end_ns=windows.incident.end_ns)
        return (*quiet, hull)  # no other incident lies between the two
    return (*quiet, windows.incident) if windows.incident else quiet


async def services_in(telemetry: Telemetry, windows: Sequence[Window]) -> tuple[str, ...]:
    """Return the services that any table names in the windows, sorted.

    Empty where telemetry cannot answer; names are then not checked.
    """
    try:
        return await _services(telemetry, windows)
    except TelemetryError:
        return ()


async def _services(telemetry: Telemetry, windows: Sequence[Window]) -> tuple[str, ...]:
    schema = await telemetry.schema()
    parts = [
        load(__package__, name).sql
        for name, table, time_column in _TABLES
        if schema.has(table, "ServiceName", time_column)
    ]
    wanted = [window for window in windows if not window.empty]
    if not parts or not wanted:
        return ()
    bounds = {"starts": [w.start_ns for w in wanted], "ends": [w.end_ns for w in wanted]}
    table = await telemetry.query("\nUNION ALL\n".join(parts), bounds)
    return tuple(sorted({str(name) for name in table.column("service") if name}))


async def edges_in(
    telemetry: Telemetry, windows: Sequence[Window], known: Sequence[CallEdge] = ()
) -> tuple[CallEdge, ...]:
    """Return calls and messages in the windows and the *known* ones, one edge a pair (of the busier window).

    Windows for which telemetry cannot answer, such as those without traces, add nothing.
    """
    edges = {(edge.caller, edge.callee): edge for edge in known}
    for window in windows:
        for ask in (_calls, _messages):
            try:
                found = await ask(telemetry, window)
            except TelemetryError:
                continue  # paths are then judged without knowing the calls
            for edge in found:
                seen = edges.get((edge.caller, edge.callee))
                if seen is None or seen.calls < edge.calls:
                    edges[edge.caller, edge.callee] = edge
    return tuple(edges[pair] for pair in sorted(edges))


async def _calls(telemetry: Telemetry, window: Window) -> Sequence[CallEdge]:
    return await telemetry.call_edges(window)


async def _messages(telemetry: Telemetry, window: Window) -> Sequence[CallEdge]:
    """Return messages between services whose traces are joined by span links only; they have no latency."""
    if not (await telemetry.schema()).has("otel_traces", "Links.SpanId"):
        return ()
    statement = load(__package__, "linked")
    table = await telemetry.query(statement.sql, {"start": window.start_ns, "end": window.end_ns})
    return [CallEdge(caller=a, callee=b, calls=n, errors=0, p50_ms=0, p99_ms=0) for a, b, n in table.rows()]
