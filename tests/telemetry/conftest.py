"""One embedded store and one stand-in server for all tests of telemetry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_otel_diag.telemetry import Store
from tests.support.clickhouse_server import StandIn, clickhouse_server


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    with Store.open("chdb://memory") as opened:
        yield opened


@pytest.fixture(scope="session")
def server() -> Iterator[StandIn]:
    with clickhouse_server() as started:
        yield started


@pytest.fixture(scope="session")
def server_store(server: StandIn) -> Iterator[Store]:
    with Store.open(server.dsn()) as opened:
        yield opened


@pytest.fixture
def database(store: Store, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"db {request.node.name}"
    store.create_database(name)
    yield name
    store.drop_database(name)
