from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.testing.analyzer_contract import incident_traces
from pytest_otel_diag.tools import Toolbox
from tests.support.investigations import investigation_over


@pytest.fixture(scope="session")
def telemetry() -> Iterator[StoreTelemetry]:
    with Store.open("chdb://memory") as store:
        store.create_database("tools")
        store.ingest_arrow("tools", "otel_traces", incident_traces())
        yield store.telemetry("tools")


@pytest.fixture
def box(telemetry: StoreTelemetry) -> Toolbox:
    return Toolbox(investigation_over(telemetry))
