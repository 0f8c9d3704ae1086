"""The contract of telemetry over chDB in process and over the HTTP client of a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from pytest_otel_diag.model.telemetry import SPANS_TABLE
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.engine.connection import quote
from pytest_otel_diag.testing.sample_telemetry import MINUTE, sample_traces
from pytest_otel_diag.testing.telemetry_contract import TelemetryContract, TelemetryOf
from tests.support.clickhouse_server import CLUSTER, clickhouse_server

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


class _DistributedDatabases(_Databases):
    """Databases of Distributed tables, over those that hold the rows; one shard is all there can be here."""

    def __init__(self, store: Store, key: str, *, slim: bool) -> None:
        super().__init__(store)
        self.key, self.slim = key, slim
        self.over: list[str] = []

    def holding(self, tables) -> str:
        local = super().holding(tables)
        database = f"over {local}"
        if database not in self.over:
            self.over.append(database)
            with self.store._engine.connection() as connection:
                connection.command(f"CREATE DATABASE {quote(database)} ENGINE = Atomic")
                for table in self.store.exporter_tables():
                    slim = table.name == SPANS_TABLE
                    if table.database != local or (slim and not self.slim):
                        continue
                    key = self.key.replace("TraceId", "trace") if slim else self.key
                    key = key if table.name in {"otel_traces", SPANS_TABLE} else "rand()"
                    connection.command(
                        f"CREATE TABLE {quote(database)}.{table.name} AS {quote(local)}.{table.name} "
                        f"ENGINE = Distributed('{CLUSTER}', {_text(local)}, '{table.name}', {key})"
                    )
        return database


def _text(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


@pytest.fixture(scope="module")
def cluster_store() -> Iterator[Store]:
    with clickhouse_server(cluster=True) as server, Store.open(server.dsn()) as opened:
        yield opened


@pytest.fixture(scope="module")
def sharded_by_trace(cluster_store: Store) -> Iterator[_DistributedDatabases]:
    yield _DistributedDatabases(cluster_store, "cityHash64(TraceId)", slim=True)


@pytest.fixture(scope="module")
def spread(cluster_store: Store) -> Iterator[_DistributedDatabases]:
    yield _DistributedDatabases(cluster_store, "rand()", slim=False)


class TestDistributedByTrace(TelemetryContract):
    """Whole traces on a shard, with the slim companion beside them."""

    @pytest.fixture
    def telemetry_of(self, sharded_by_trace):
        yield from _factory(sharded_by_trace)


class TestDistributedAnyhow:
    """Spans anywhere, as a collector leaves them that writes through a table with ``rand()``."""

    @pytest.fixture
    def telemetry_of(self, spread):
        yield from _factory(spread)

    async def test_where_traces_are_is_known(self, spread, telemetry_of):
        database = telemetry_of({"otel_traces": sample_traces()}).database
        found = {t.name: t for t in spread.store.exporter_tables() if t.database == database}
        assert found["otel_traces"].traces == "spread over shards"
        assert found["otel_traces"].cluster == CLUSTER
        assert found["otel_traces"].local.endswith(".otel_traces")

    async def test_answers_are_those_over_the_local_tables(self, spread, telemetry_of):
        over = telemetry_of({"otel_traces": sample_traces()})
        local = spread.store.telemetry(over.database.removeprefix("over "))
        for window in (MINUTE, Window(start_ns=MINUTE.start_ns, end_ns=MINUTE.start_ns + 10**9)):
            assert await over.call_edges(window) == await local.call_edges(window)
            assert await over.service_health(window, 5.0) == await local.service_health(window, 5.0)
        assert await over.call_edges(MINUTE)

    async def test_joins_of_two_distributed_tables_are_answered(self, telemetry_of):
        """A server refuses them unless a setting says how; here in views and without."""
        sql = """SELECT count() AS calls FROM otel_traces AS child
            JOIN otel_traces AS parent
                ON child.ParentSpanId = parent.SpanId AND child.TraceId = parent.TraceId
            WHERE child.ServiceName IN (SELECT ServiceName FROM otel_traces WHERE SpanKind = 'Server')"""
        counts = []
        for now in (None, lambda: MINUTE.end_ns * 2):
            telemetry = telemetry_of({"otel_traces": sample_traces()}, now=now)
            counts.append((await telemetry.query(sql)).column("calls")[0])
        assert counts[0] == counts[1] > 0
