from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.testing.analyzer_contract import dirty_traces, incident_traces
from pytest_otel_diag.testing.sample_telemetry import gauge_table, logs_table, sum_table
from pytest_otel_diag.tools import Toolbox
from tests.support.investigations import investigation_over


@pytest.fixture(scope="session")
def tool_store() -> Iterator[Store]:
    with Store.open("chdb://memory") as store:
        yield store


def _lines() -> list[tuple[float, str, str, str]]:
    """One line a second of ``middle``; in the second minute every third one is an error."""
    return [
        (second, "middle", "ERROR", f"order {second} refused by\nback")
        if second >= 60 and second % 3 == 0
        else (second, "middle", "INFO", f"order {second} took {second * 7} ms")
        for second in range(120)
    ]


@pytest.fixture(scope="session")
def telemetry(tool_store: Store) -> StoreTelemetry:
    """Traces, logs and metrics: the last service fails every other call in the second minute."""
    tool_store.create_database("tools")
    memory = [(t, "middle", "process.memory", 100.0 + t % 10 + 60 * (t >= 60)) for t in range(0, 120, 5)]
    counter = [(t, "front", "http.requests", 2.0 * t) for t in range(0, 120, 5)]
    tool_store.ingest_arrow("tools", "otel_traces", incident_traces())
    tool_store.ingest_arrow("tools", "otel_logs", logs_table(_lines()))
    tool_store.ingest_arrow("tools", "otel_metrics_gauge", gauge_table(memory))
    tool_store.ingest_arrow("tools", "otel_metrics_sum", sum_table(counter))
    return tool_store.telemetry("tools")


@pytest.fixture(scope="session")
def dirty(tool_store: Store) -> StoreTelemetry:
    """Traces as broken instrumentation writes them, and nothing else."""
    tool_store.create_database("dirty tools")
    tool_store.ingest_arrow("dirty tools", "otel_traces", dirty_traces())
    return tool_store.telemetry("dirty tools")


@pytest.fixture(scope="session")
def nothing(tool_store: Store) -> StoreTelemetry:
    """All tables, without a row."""
    tool_store.create_database("no rows")
    return tool_store.telemetry("no rows")


@pytest.fixture
def box(telemetry: StoreTelemetry) -> Toolbox:
    return Toolbox(investigation_over(telemetry))
