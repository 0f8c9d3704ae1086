"""ClickHouse behind one wrapper: chDB in process or a server, same SQL."""

from pytest_otel_diag.telemetry.layout import Layout
from pytest_otel_diag.telemetry.questions.changes import (
    compare,
    edge_changes,
    log_templates,
    operation_changes,
    self_time_changes,
    template_changes,
)
from pytest_otel_diag.telemetry.questions.traces import (
    critical_operations,
    exemplars,
    self_times,
    service_paths,
    trace_paths,
)
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.telemetry.store import Store

__all__ = [
    "Layout",
    "Store",
    "StoreTelemetry",
    "compare",
    "critical_operations",
    "edge_changes",
    "exemplars",
    "log_templates",
    "operation_changes",
    "self_time_changes",
    "self_times",
    "service_paths",
    "template_changes",
    "trace_paths",
]
