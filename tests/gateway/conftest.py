"""One embedded store for the tests of the doors, and an access to it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from pytest_otel_diag.gateway import Access, Gateway
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.session import StoreTelemetry
from pytest_otel_diag.testing.analyzer_contract import incident_traces
from tests.support.deadlines import deadline_s
from tests.support.investigations import investigation_over


@pytest.fixture(scope="session")
def telemetry() -> Iterator[StoreTelemetry]:
    with Store.open("chdb://memory") as store:
        store.create_database("gateway")
        store.ingest_arrow("gateway", "otel_traces", incident_traces())
        yield store.telemetry("gateway")


@pytest.fixture
def investigation(telemetry: StoreTelemetry) -> Investigation:
    return investigation_over(telemetry)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    opened = Gateway()
    yield opened
    opened.close()


@pytest.fixture
def access(gateway: Gateway, investigation: Investigation) -> Iterator[Access]:
    with gateway.access(investigation) as opened:
        yield opened


@pytest.fixture
def client(access: Access) -> Iterator[httpx.Client]:
    with client_of(access) as opened:
        yield opened


def client_of(access: Access) -> httpx.Client:
    headers = {"authorization": f"Bearer {access.token.reveal()}"}
    return httpx.Client(base_url=access.url, headers=headers, timeout=deadline_s(10))
