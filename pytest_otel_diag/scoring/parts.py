"""Names that telemetry gives to parts of services: pods, instances, containers, hosts, rpc services."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pytest_otel_diag.model.session import SessionWindows
from pytest_otel_diag.model.telemetry import QueryLimits
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.scoring.names import fold_case
from pytest_otel_diag.statements import load

_LIMITS = QueryLimits(time_s=30.0)
_LATEST_NS = 2**63 - 1


async def services_of_parts(
    names: Collection[str], windows: SessionWindows, telemetry: Telemetry
) -> Mapping[str, tuple[str, ...]]:
    """Return those of *names* that telemetry calls a part of a service in the windows, with the services.

    A name of several services (a host that they share) is ambiguous. Raises TelemetryError.
    """
    schema = await telemetry.schema()
    if not names or not schema.has("otel_traces", "ServiceName", "ResourceAttributes", "SpanAttributes"):
        return {}
    known = [window for window in (windows.baseline, windows.incident) if window is not None]
    bounds = {
        "start_ns": min((window.start_ns for window in known), default=0),
        "end_ns": max((window.end_ns for window in known), default=_LATEST_NS),
    }
    table = await telemetry.query(load(__package__, "parts").sql, bounds, _LIMITS)
    wanted = {fold_case(name): name for name in names}
    found: dict[str, set[str]] = {}
    for service, *parts in table.rows():
        for part in {fold_case(str(part)) for part in parts} & wanted.keys():
            found.setdefault(wanted[part], set()).add(str(service))
    return {name: tuple(sorted(services)) for name, services in found.items()}
