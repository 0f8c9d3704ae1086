"""Rows out of the store: every row of the windows once, in order of time, in small pieces."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pytest_otel_diag.errors import TelemetryUnavailable
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.recordings.format.layout import BY_TABLE
from pytest_otel_diag.telemetry import Layout, Store
from pytest_otel_diag.telemetry.export import Exporter

T0 = 1_700_000_000 * NANOS_PER_SECOND
ROWS = 400
MAP = pa.map_(pa.string(), pa.string())
INSTANT = pa.timestamp("ns", "UTC")


def _spans() -> pa.Table:
    """Spans 0.25 s apart, written out of order, with an event each."""
    order = sorted(range(ROWS), key=lambda i: (i * 7919) % ROWS)
    times = [T0 + i * NANOS_PER_SECOND // 4 + i for i in order]
    return pa.table(
        {
            "Timestamp": pa.array(times, INSTANT),
            "TraceId": [f"{i:032x}" for i in order],
            "SpanId": [f"{i:016x}" for i in order],
            "ServiceName": ["cart"] * ROWS,
            "Duration": pa.array(order, pa.uint64()),
            "SpanAttributes": pa.array([[("i", str(i))] for i in order], MAP),
            "Events.Timestamp": pa.array([[at + 1] for at in times], pa.list_(INSTANT)),
            "Events.Name": pa.array([["e"]] * ROWS, pa.list_(pa.string())),
            "Events.Attributes": pa.array([[[("k", "v")]]] * ROWS, pa.list_(MAP)),
        }
    )


def _columns(table: str) -> list[str]:
    layout = BY_TABLE[table]
    return [*layout.required, *layout.optional]


def _read(exporter: Exporter, table: str, *windows: Window) -> pa.Table:
    return pa.Table.from_batches(list(exporter.batches(table, _columns(table), windows)))


def _window(start_s: float, end_s: float) -> Window:
    return Window(start_ns=T0 + int(start_s * NANOS_PER_SECOND), end_ns=T0 + int(end_s * NANOS_PER_SECOND))


@pytest.fixture(params=["store", "server_store"])
def any_store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


async def test_every_row_of_the_windows_once_and_in_order(any_store: Store) -> None:
    any_store.create_database("kept", layout=Layout(in_memory=any_store.embedded))
    telemetry = any_store.telemetry("kept")
    try:
        any_store.ingest_arrow("kept", "otel_traces", _spans())
        whole = await telemetry.exporter()
        small = Exporter("kept", telemetry._exporting, slice_rows=40)
        for windows in ([_window(0, 200)], [_window(10, 20), _window(15, 30.1), _window(60, 60)]):
            inside = [
                i
                for i in range(ROWS)
                if any(T0 + i * NANOS_PER_SECOND // 4 + i in window for window in windows)
            ]
            for exporter in (whole, small):
                found = _read(exporter, "otel_traces", *windows)
                assert found.column("Duration").to_pylist() == inside
                assert found.column("SpanAttributes").to_pylist() == [[("i", str(i))] for i in inside]
                moved = (
                    found.column("Events.Timestamp").combine_chunks().flatten().cast(pa.int64()).to_pylist()
                )
                times = found.column("Timestamp").combine_chunks().cast(pa.int64()).to_pylist()
                assert moved == [at + 1 for at in times]
        pieces = list(small.batches("otel_traces", ["Duration"], [_window(0, 200)]))
        assert len(pieces) >= ROWS / 40
        assert max(piece.num_rows for piece in pieces) <= 40
        assert list(whole.batches("otel_traces", ["Duration"], [_window(1000, 2000)])) == []
        assert list(whole.batches("otel_nothing", ["Duration"], [_window(0, 200)])) == []
    finally:
        telemetry.close()
        any_store.drop_database("kept")
    with pytest.raises(TelemetryUnavailable):
        (await telemetry.exporter()).tables()


async def test_older_releases_read_the_same(store: Store) -> None:
    """Times in whole seconds, another name of a table, columns that are not there yet."""
    store.create_database("old")
    telemetry = store.telemetry("old")
    try:
        with store._engine.connection() as connection:
            for table in ("otel_metrics_gauge", "otel_metrics_exponential_histogram"):
                connection.command(f"DROP TABLE old.{table}")
            connection.command(
                "CREATE TABLE old.otel_metrics_gauge (ServiceName String, MetricName String, Value Float64, "
                "StartTimeUnix DateTime, TimeUnix DateTime) ENGINE = MergeTree ORDER BY TimeUnix"
            )
            connection.command(
                "CREATE TABLE old.otel_metrics_exp_histogram (ServiceName String, MetricName String, "
                "Count UInt64, Sum Float64, Scale Int32, TimeUnix DateTime64(9)) "
                "ENGINE = MergeTree ORDER BY TimeUnix"
            )
            connection.command(
                "INSERT INTO old.otel_metrics_gauge "
                "SELECT 'cart', 'cpu', number, 5, 1700000000 + number FROM numbers(10)"
            )
            connection.command(
                "INSERT INTO old.otel_metrics_exp_histogram SELECT 'cart', 'd', 1, 1, 0, "
                "fromUnixTimestamp64Nano(1700000000000000001)"
            )
        exporter = await telemetry.exporter()
        gauges = _read(exporter, "otel_metrics_gauge", _window(3, 6))
        assert gauges.column("TimeUnix").type == pa.timestamp("ns", "UTC")
        assert gauges.column("TimeUnix").cast(pa.int64()).to_pylist() == [
            T0 + i * NANOS_PER_SECOND for i in (3, 4, 5)
        ]
        assert "Attributes" not in gauges.column_names
        histogram = _read(exporter, "otel_metrics_exponential_histogram", _window(0, 1))
        assert histogram.column("TimeUnix").cast(pa.int64()).to_pylist() == [T0 + 1]
    finally:
        telemetry.close()
        store.drop_database("old")


async def test_what_is_hidden_is_not_read(store: Store) -> None:
    store.create_database("hidden")
    now_ns = T0 + 10 * NANOS_PER_SECOND
    telemetry = store.telemetry("hidden", now=lambda: now_ns, visible=[_window(2, 100)])
    try:
        store.ingest_arrow("hidden", "otel_traces", _spans())
        found = _read(await telemetry.exporter(), "otel_traces", _window(0, 200)).column("Duration")
        assert found.to_pylist() == list(range(8, 40))
    finally:
        telemetry.close()
        store.drop_database("hidden")
