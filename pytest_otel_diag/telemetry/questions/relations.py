"""Statements are written over relations; this puts the relations a statement reads in front of it."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_otel_diag import statements
from pytest_otel_diag.model.telemetry import TelemetrySchema
from pytest_otel_diag.statements import Statement
from pytest_otel_diag.statements.relations import PATHS, SHARED, over

_READS: Mapping[str, tuple[str, ...]] = {
    "service_health": ("spans",),
    "span_count": ("spans",),
    "call_edges": ("calls", "spans"),
    "compare_operations": ("spans",),
    "compare_edges": ("calls", "spans"),
    "self_time": ("selves", "placed", "spans"),
    "compare_self_time": ("selves", "placed", "spans"),
    "critical_operations": PATHS,
    "critical_segments": PATHS,
    "service_paths": PATHS,
    "exemplars": ("spans",),
    "log_templates": ("lines",),
    "compare_templates": ("lines",),
    "operation_health": ("spans",),
    "log_counts": ("lines",),
    "log_kinds": ("lines",),
    "metric_levels_gauge": ("points",),
    "metric_levels_sum": ("rates", "grown", "cumulative:sums", "points"),
    "metric_levels_histogram": ("rates", "grown", "cumulative:histograms", "points"),
    "metric_restarts": ("points",),
}
"""Relations of each statement, each before those it reads itself; ``name:file`` where they differ."""

_SHARED = frozenset({"critical_operations", "service_paths"})
"""Statements that tools for agents use, too."""


def named(name: str, schema: TelemetrySchema) -> Statement:
    """Return the named statement with its relations; raises SchemaError when their table is missing."""
    statement = statements.load(statements.__name__ if name in _SHARED else __package__, name)
    for relation in _READS.get(name, ()):
        if relation in SHARED:
            statement = over([relation], statement, schema)
        else:
            own, _, file = relation.partition(":")
            source = statements.load(__package__, f"relation_{file or own}")
            statement = statements.in_front(own, source, statement)
    return statement
