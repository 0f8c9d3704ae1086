"""The contract of telemetry over chDB in process and over the HTTP client of a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.telemetry_contract import TelemetryContract, TelemetryOf

_numbers = itertools.count()


class _Databases:
    """Databases by what they hold: loading the same tables for every test would be most of the time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.loaded: list[tuple[dict, str]] = []

    def holding(self, tables) -> str:
        for known, database in self.loaded:
            if known.keys() == tables.keys() and all(known[name].equals(tables[name]) for name in tables):
                return database
        database = f"contract '{next(_numbers)}' `é`"
        self.store.create_database(database)
        self.loaded.append((dict(tables), database))
        for table, rows in tables.items():
            if rows.num_rows:
                self.store.ingest_arrow(database, table, rows)
        return database


def _loaded(store: Store) -> Iterator[_Databases]:
    databases = _Databases(store)
    yield databases
    for _, database in databases.loaded:
        store.drop_database(database)


def _factory(databases: _Databases) -> Iterator[TelemetryOf]:
    opened = []

    def telemetry_of(tables, *, now=None, visible=None):
        telemetry = databases.store.telemetry(databases.holding(tables), now=now, visible=visible)
        opened.append(telemetry)
        return telemetry

    yield telemetry_of
    for telemetry in opened:
        telemetry.close()


@pytest.fixture(scope="module")
def embedded(store):
    yield from _loaded(store)


@pytest.fixture(scope="module")
def served(server_store):
    yield from _loaded(server_store)


class TestEmbedded(TelemetryContract):
    @pytest.fixture
    def telemetry_of(self, embedded):
        yield from _factory(embedded)


class TestServer(TelemetryContract):
    @pytest.fixture
    def telemetry_of(self, served):
        yield from _factory(served)
