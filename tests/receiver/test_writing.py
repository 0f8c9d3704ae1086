"""The writer: refused rows, an unavailable store, stopping."""

from __future__ import annotations

import gc
import threading
from typing import Any

import clickhouse_connect
import pytest

from pytest_otel_diag.errors import ConfigurationError, QueryLimitExceeded, SchemaError, TelemetryUnavailable
from pytest_otel_diag.receiver import Limits, Receiver
from pytest_otel_diag.receiver.backlog import Delivery
from pytest_otel_diag.telemetry import Store
from tests.receiver.conftest import Start
from tests.support import exporter_tables, otlp
from tests.support.clickhouse_server import clickhouse_server
from tests.support.deadlines import eventually
from tests.support.otlp import names, post, spans

DAY_NS = 86_400 * 10**9


def test_a_row_that_the_store_refuses_costs_no_other_row(start: Start, store: Store, database: str) -> None:
    with clickhouse_connect.get_client(interface="chdb") as client:
        client.command(
            f"ALTER TABLE `{database}`.otel_traces ADD CONSTRAINT healthy CHECK SpanName != 'poison'"
        )
    warnings: list[str] = []
    receiver = start(warn=warnings.append)
    for first in (0, 100):
        request = spans(100, first)
        request.resource_spans[0].scope_spans[0].spans[37].name = "poison"
        assert post(receiver.addresses.http, request.SerializeToString())[0] == 200
    assert receiver.flush()
    assert len(names(store, database)) == 198
    assert receiver.counts().traces.dropped == {"refused by the store": 2}
    assert len(warnings) == 1
    assert "1 records of traces dropped: refused by the store" in warnings[0]
    assert post(receiver.addresses.http, spans(1, 300).SerializeToString())[0] == 200
    counts = receiver.stop()
    assert (counts.traces.stored, counts.lost) == (199, 2)
    assert otlp.balanced(counts)


def test_spans_of_more_days_than_one_insert_may_touch_are_all_stored(
    start: Start, store: Store, database: str
) -> None:
    receiver = start()
    request = spans(300)
    for day, span in enumerate(request.resource_spans[0].scope_spans[0].spans):
        span.start_time_unix_nano = span.end_time_unix_nano = otlp.T0_NS + day * DAY_NS
    assert post(receiver.addresses.http, request.SerializeToString())[0] == 200
    counts = receiver.stop()
    assert (counts.traces.stored, counts.lost) == (300, 0)
    assert store.count_rows(database, "otel_traces") == 300


def test_a_missing_table_costs_only_its_own_rows(start: Start, store: Store, database: str) -> None:
    with clickhouse_connect.get_client(interface="chdb") as client:
        client.command(f"DROP TABLE `{database}`.otel_traces")
    receiver = start()
    with clickhouse_connect.get_client(interface="chdb") as client:
        client.command(f"DROP TABLE `{database}`.otel_traces")
    assert post(receiver.addresses.http, spans(1_000).SerializeToString())[0] == 200
    assert post(receiver.addresses.http, otlp.logs(5).SerializeToString(), path="/v1/logs")[0] == 200
    counts = receiver.stop()
    assert counts.traces.dropped == {"refused by the store": 1_000}
    assert counts.logs.stored == 5


def test_columns_that_older_tables_lack_are_not_written_and_named_once(store: Store) -> None:
    lacking = ("EventName", "ScopeSchemaUrl")
    exporter_tables.make(store, "older", lacking=lacking)
    warnings: list[str] = []
    with Receiver(store, "older", http="127.0.0.1:0", grpc=None, warn=warnings.append) as receiver:
        assert post(receiver.addresses.http, otlp.logs(5).SerializeToString(), path="/v1/logs")[0] == 200
    store.drop_database("older")
    assert (receiver.counts().logs.stored, receiver.counts().lost) == (5, 0)
    assert "otel_logs has no EventName, ScopeSchemaUrl" in warnings[0]


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ({"attributes": "JSON"}, "'SpanAttributes' is Map.*needs JSON; receive into another database"),
        ({"lacking": ("Duration",)}, "otel_traces lacks Duration; receive into another database"),
    ],
)
def test_tables_that_cannot_hold_the_telemetry_are_refused_at_the_start(
    store: Store, shape: dict[str, Any], complaint: str
) -> None:
    exporter_tables.make(store, "unfit", **shape)
    with pytest.raises(SchemaError, match=complaint):
        Receiver(store, "unfit", http="127.0.0.1:0", grpc=None).start()
    store.drop_database("unfit")


def away(number: int) -> list[Exception]:
    return [TelemetryUnavailable("no answer")] * number


def test_inserts_are_retried_until_the_store_is_available_again(
    start: Start, store: Store, database: str
) -> None:
    gate = otlp.Gate(store, open_=True, failures=away(3))
    receiver = start(into=gate)
    assert post(receiver.addresses.http, spans(10).SerializeToString())[0] == 200
    assert receiver.flush()
    assert len(names(store, database)) == 10
    assert gate.inserts == 4


@pytest.mark.parametrize(
    "outage", [TelemetryUnavailable("no space left"), QueryLimitExceeded("the server's memory", 241)]
)
def test_clients_are_asked_to_retry_while_the_store_is_unavailable(
    start: Start, store: Store, database: str, outage: Exception
) -> None:
    warnings: list[str] = []
    gate = otlp.Gate(store, open_=True, failures=[outage] * 10_000)
    receiver = start(into=gate, limits=Limits(batch_s=0.01), warn=warnings.append)
    assert post(receiver.addresses.http, spans(10).SerializeToString())[0] == 200
    assert eventually(lambda: warnings)
    status, content, headers = post(receiver.addresses.http, spans(5, 10).SerializeToString())
    assert (status, headers["retry-after"]) == (503, "1")
    assert b"the store is unavailable" in content
    assert str(outage) in warnings[0]
    assert receiver.counts().traces.waiting == 10
    gate._failures.clear()
    assert receiver.flush()
    assert post(receiver.addresses.http, spans(5, 10).SerializeToString())[0] == 200
    counts = receiver.stop()
    assert (counts.traces.stored, counts.lost) == (15, 0)
    assert counts.traces.rejected == {"store unavailable": 5}
    assert len(warnings) == 1
    assert len(names(store, database)) == 15


def test_stopping_ends_the_retries_of_an_unavailable_store(start: Start, store: Store) -> None:
    gate = otlp.Gate(store, failures=away(10_000))
    receiver = start(into=gate, limits=Limits(stop_s=0.2, batch_s=0.01, insert_rows=10, batch_rows=10))
    for first in range(0, 60, 10):
        assert post(receiver.addresses.http, spans(10, first).SerializeToString())[0] == 200
    gate.open()
    counts = receiver.stop()
    assert counts.traces.dropped == {"stopped before it was stored": 60}
    assert otlp.balanced(counts)
    assert receiver.stop() == counts


def test_stopping_waits_for_the_running_insert(start: Start, store: Store) -> None:
    gate = otlp.Gate(store)
    receiver = start(into=gate, limits=Limits(stop_s=0.2))
    address = receiver.addresses.http
    assert post(address, otlp.logs(3).SerializeToString(), path="/v1/logs")[0] == 200
    assert post(address, spans(10).SerializeToString())[0] == 200
    assert eventually(lambda: not receiver._backlog._waiting)
    with otlp.in_background(receiver.stop):
        assert receiver._writer._given_up.wait(otlp.WAIT_S)
        gate.open()
    counts = receiver.counts()
    assert (counts.traces.stored, counts.logs.dropped) == (10, {"stopped before it was stored": 3})
    assert otlp.balanced(counts)


def test_an_unreadable_delivery_does_not_stop_the_writer(start: Start, store: Store, database: str) -> None:
    receiver = start()
    good = spans(3).SerializeToString()
    for delivery in (Delivery("traces", good, 3, 0), Delivery("traces", b"\xff", 7, 0)):
        receiver._tally.received("traces", delivery.records)
        assert receiver._backlog.put(delivery)
    counts = receiver.stop()
    assert (counts.traces.stored, counts.traces.dropped) == (3, {"could not be turned into rows": 7})
    assert len(names(store, database)) == 3


def test_a_receiver_is_started_once_and_leaves_no_threads(store: Store, database: str) -> None:
    gc.collect()
    before = {thread.name for thread in threading.enumerate()}
    receiver = Receiver(store, database, http="127.0.0.1:0", grpc="127.0.0.1:0")
    with receiver:
        assert receiver.flush(timeout_s=1.0)
    assert receiver.addresses.http is None
    assert eventually(lambda: {t.name for t in threading.enumerate() if "receiver" in t.name} <= before)
    with pytest.raises(ConfigurationError, match="create another one"):
        receiver.start()


def test_a_clickhouse_server_is_a_store_too() -> None:
    with clickhouse_server() as server, Store.open(server.dsn()) as remote:
        with Receiver(remote, "live", http="127.0.0.1:0", grpc=None) as receiver:
            assert post(receiver.addresses.http, spans(20).SerializeToString())[0] == 200
            assert receiver.flush()
        assert len(names(remote, "live")) == 20
