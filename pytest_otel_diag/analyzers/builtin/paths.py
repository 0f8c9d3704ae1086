"""Critical paths: service paths on which requests of the incident spend their time or fail."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_otel_diag.analyzers.builtin.gather import Gatherer
from pytest_otel_diag.model.diagnosis import CriticalPath, PathEdge, PathMetrics
from pytest_otel_diag.statements import load

PATHS_READ, PATHS_SHOWN = 200, 10
SPANS_READ = 60_000
"""Approximate number of spans of the sampled traces."""

Priority = Literal["critical", "high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class IncidentPath:
    """A row of ``paths.sql``."""

    services: tuple[str, ...]
    requests: int
    mean_ms: float
    p99_ms: float
    failing: float
    spent_ms: float


async def read_paths(gatherer: Gatherer, incident_spans: float) -> list[IncidentPath]:
    """Return the service paths of the incident by time spent at their end."""
    table = await gatherer.incident_spans(
        load(__package__, "paths"),
        share=min(1.0, SPANS_READ / max(incident_spans, 1.0)),
        extra={"paths": PATHS_READ},
    )
    return [
        IncidentPath(
            tuple(map(str, path)),
            int(requests),
            float(mean),
            float(p99),
            min(1.0, float(failing)),
            float(spent),
        )
        for path, requests, mean, p99, failing, spent in table.rows()
    ]


def critical_paths(
    paths: Sequence[IncidentPath], suspects: Sequence[str], *, detected: bool
) -> tuple[CriticalPath, ...]:
    """Return the critical paths: those to suspects first, then those with the most time.

    severity = share of the time at the start of the path that is spent at its end (after CRISP, ATC 2022,
    which weighs services by their share of the critical path); 1 if the suspect fails.
    """
    total = max((path.spent_ms for path in paths), default=0.0)
    order = {service: rank for rank, service in enumerate(suspects)}

    def rank(path: IncidentPath) -> tuple[int, float, tuple[str, ...]]:
        return (order.get(path.services[-1], len(order)), -path.spent_ms, path.services)

    chosen = sorted((path for path in paths if path.services), key=rank)[:PATHS_SHOWN]
    return tuple(_shown(path, suspects, total, detected=detected) for path in chosen)


def _shown(path: IncidentPath, suspects: Sequence[str], total: float, *, detected: bool) -> CriticalPath:
    share = path.spent_ms / total if total > 0 else 0.0
    severity = min(1.0, max(share, path.failing))
    edges = zip(path.services, path.services[1:], strict=False)
    name = " → ".join(path.services)
    return CriticalPath(
        id=hashlib.sha256("\x00".join(path.services).encode()).hexdigest()[:12],
        name=name,
        services=path.services,
        startService=path.services[0],
        endService=path.services[-1],
        edges=tuple(PathEdge(source=source, target=target) for source, target in edges),
        metrics=PathMetrics(
            requestCount=path.requests,
            avgLatency=path.mean_ms,
            errorRate=path.failing,
            p99Latency=path.p99_ms,
        ),
        priority=_priority(path, suspects, severity, detected=detected),
        severity=severity,
    )


def _priority(path: IncidentPath, suspects: Sequence[str], severity: float, *, detected: bool) -> Priority:
    if detected and suspects and path.services[-1] == suspects[0]:
        return "critical"
    if detected and suspects and suspects[0] in path.services:
        return "high"
    return "medium" if severity >= 0.5 else "low"
