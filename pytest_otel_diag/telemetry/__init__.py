"""ClickHouse behind one wrapper: chDB in process or a server, same SQL."""

from pytest_otel_diag.telemetry.layout import Layout
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.telemetry.store import Store

__all__ = ["Layout", "Store", "StoreTelemetry"]
