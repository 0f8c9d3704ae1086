"""Before and after, exemplars, log templates, slices, and the drift of exporter releases."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from pytest_otel_diag import telemetry as questions
from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.model.telemetry import Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry.questions import slices
from pytest_otel_diag.telemetry.questions.slices import merge
from pytest_otel_diag.testing.telemetry_contract import (
    MINUTE,
    ODD_NAME,
    SECOND_NS,
    START_NS,
    sample_traces,
    span,
    traces_table,
)

BEFORE = Window(start_ns=START_NS, end_ns=START_NS + 5 * SECOND_NS)
AFTER = Window(start_ns=BEFORE.end_ns, end_ns=START_NS + 10 * SECOND_NS)
NOWHERE = Window(start_ns=START_NS, end_ns=START_NS)


def logs_table(rows):
    return pa.table(
        {
            "Timestamp": pa.array(
                [START_NS + round(at * SECOND_NS) for at, *_ in rows], pa.timestamp("ns", "UTC")
            ),
            "ServiceName": [service for _, service, *_ in rows],
            "SeverityText": [severity for *_, severity, _ in rows],
            "Body": [body for *_, body in rows],
            "TraceId": [f"t{index}" for index in range(len(rows))],
        }
    )


@pytest.fixture
def loaded(store, database):
    rows = sample_traces().to_pylist()
    for row in rows:
        if row["ServiceName"] == "middle" and row["Timestamp"].value >= AFTER.start_ns:
            row["Duration"] *= 3
    for row in rows:
        row["Timestamp"] = row["Timestamp"].value
    store.ingest_arrow(database, "otel_traces", traces_table(rows))
    store.ingest_arrow(
        database,
        "otel_logs",
        logs_table(
            [
                (1, "middle", "INFO", "order 17 of user-4 took 12.5ms"),
                (2, "middle", "INFO", "order 18 of user-9 took 1.5ms\nat line 4"),
                (7, "middle", "INFO", "order 19 of user-9 took 9ms"),
                (8, ODD_NAME, "ERROR", "refused: GET /api/v1/orders/8f3 'quoted' \\ é"),
                (99, "late", "INFO", "outside"),
            ]
        ),
    )
    return store.telemetry(database)


async def test_everything_before_and_after(loaded):
    found = await questions.compare(loaded, [BEFORE], AFTER)
    assert (found.seconds_before, found.seconds_after) == (5.0, 5.0)
    operations = {(o.service, o.operation): o for o in found.operations}
    middle = operations["middle", "op"]
    assert (middle.spans_before, middle.spans_after) == (5, 5)
    assert (middle.ms_before.p50, middle.ms_after.p99) == (pytest.approx(60), pytest.approx(180))
    assert operations[ODD_NAME, "op"].errors_after == 1
    edges = {(e.caller, e.callee): e for e in found.edges}
    assert edges["middle", ODD_NAME].errors_after == 1
    assert edges["front", "middle"].ms_after.p50 == pytest.approx(80)
    selves = {(s.service, s.operation): s for s in found.self_times}
    assert selves["middle", "op"].ms_before.p50 == pytest.approx(20)
    assert selves["middle", "op"].total_ms_after == pytest.approx(5 * 140)
    templates = {(t.service, t.template): t for t in found.templates}
    order = templates["middle", "order <*> of <*> took <*>"]
    assert (order.lines_before, order.lines_after, order.trace_id) == (2, 1, "t2")
    assert templates[ODD_NAME, "refused: GET /api/<*>/orders/<*> 'quoted' \\ é"].lines_after == 1
    assert all(template.service != "late" for template in found.templates)


async def test_an_empty_window_has_nan_quantiles_and_no_counts(loaded):
    found = await questions.operation_changes(loaded, [NOWHERE, MINUTE])
    assert all(o.spans_before == 0 and math.isnan(o.ms_before.p50) for o in found)
    nothing = await questions.compare(loaded, [NOWHERE], NOWHERE)
    assert (nothing.operations, nothing.edges, nothing.self_times, nothing.templates) == ((), (), (), ())
    for ask in (
        questions.self_times,
        questions.critical_operations,
        questions.service_paths,
        questions.trace_paths,
    ):
        assert await ask(loaded, [NOWHERE]) == ()
    assert await questions.exemplars(loaded, NOWHERE) == ()
    assert await questions.log_templates(loaded, [NOWHERE]) == ()


async def test_log_templates_by_frequency(loaded):
    first, *rest = await questions.log_templates(loaded, [MINUTE])
    assert (first.service, first.severity, first.lines) == ("middle", "INFO", 3)
    assert [template.lines for template in rest] == [1]


async def test_exemplars_are_the_slowest_and_the_failing(loaded):
    found = await questions.exemplars(loaded, MINUTE, each=2)
    middle = [e for e in found if e.service == "middle"]
    assert [e.duration_ms for e in middle] == [180.0, 180.0]
    assert all(e.trace_id in {f"t{n}" for n in range(5, 10)} for e in middle)
    failing = [e for e in found if e.error]
    assert [(e.service, e.trace_id, e.start_ns) for e in failing] == [
        (ODD_NAME, "t9", START_NS + 9_030_000_000)
    ]
    only = await questions.exemplars(loaded, MINUTE, service=ODD_NAME)
    assert {e.service for e in only} == {ODD_NAME}


async def test_service_paths_follow_the_time(loaded):
    (path,) = await questions.service_paths(loaded, [MINUTE])
    assert path.services == ("front", "middle", ODD_NAME)
    assert (path.requests, path.errors, path.mean_ms) == (10, 1, 100.0)


async def test_slices_add_up_to_the_whole(loaded, monkeypatch):
    async def everything():
        return (
            await questions.critical_operations(loaded, [BEFORE, AFTER]),
            await questions.service_paths(loaded, [MINUTE]),
            await questions.trace_paths(loaded, [MINUTE], rows=4),
            await loaded.call_edges(MINUTE),
            sorted(
                (s.window, s.service, s.operation, s.spans)
                for s in await questions.self_times(loaded, [MINUTE])
            ),
            sorted(
                (e.caller, e.callee, e.calls_after)
                for e in await questions.edge_changes(loaded, [BEFORE, AFTER])
            ),
        )

    whole = await everything()
    monkeypatch.setattr(slices, "SPANS_PER_SLICE", 7)
    assert await everything() == whole


async def test_spans_are_counted_only_where_slices_may_be_needed(loaded, store, database, monkeypatch):
    asked, run = [], loaded.run

    async def noting(statement, *arguments):
        asked.append(statement.name.partition("/")[0])
        return await run(statement, *arguments)

    monkeypatch.setattr(loaded, "run", noting)
    assert await loaded.spans_at_most() == 40
    calls = await loaded.call_edges(MINUTE)
    assert asked == ["table_rows", "table_rows", "call_edges"]
    monkeypatch.setattr(slices, "SPANS_PER_SLICE", 39)
    asked.clear()
    assert sorted(map(str, await loaded.call_edges(MINUTE))) == sorted(map(str, calls))
    assert asked == ["table_rows", "span_count", "call_edges", "call_edges"]


async def test_a_view_does_not_know_its_rows(store, database):
    name = f"{database} view"
    with store._engine.connection(database) as connection:
        connection.command(f"CREATE DATABASE `{name}`")
        connection.command(f"CREATE VIEW `{name}`.otel_traces AS SELECT * FROM `{database}`.otel_traces")
    store.ingest_arrow(database, "otel_traces", sample_traces())
    telemetry = store.telemetry(name)
    assert await telemetry.spans_at_most() is None
    assert {edge.calls for edge in await telemetry.call_edges(MINUTE)} == {10}
    with store._engine.connection(database) as connection:
        connection.command(f"DROP VIEW `{name}`.otel_traces SYNC")
    without = store.telemetry(name)
    assert await without.spans_at_most() is None
    with pytest.raises(SchemaError):
        await without.call_edges(MINUTE)
    store.drop_database(name)


def test_merging_weighs_by_count_and_ignores_empty_slices():
    nan = float("nan")
    one = Table(("k", "n", "q", "m", "s"), (["a", "b"], [1, 0], [[2.0], [nan]], [4.0, nan], ["x", ""]))
    two = Table(("k", "n", "q", "m", "s"), (["a", "b"], [3, 2], [[6.0], [7.0]], [8.0, 9.0], ["y", "z"]))
    merged = merge([one, two], ["k"], quantiles={"q": "n"}, means={"m": "n"})
    assert merged == [
        {"k": "a", "n": 4, "q": [5.0], "m": 7.0, "s": "x"},
        {"k": "b", "n": 2, "q": [7.0], "m": 9.0, "s": "z"},
    ]


async def test_fifty_thousand_operations(store, database):
    with store._engine.connection(database) as connection:
        connection.command(
            "INSERT INTO otel_traces (Timestamp, TraceId, SpanId, ServiceName, SpanName, SpanKind, Duration) "
            f"SELECT fromUnixTimestamp64Nano(toInt64({START_NS} + number)), toString(intDiv(number, 5)), "
            "toString(number), 'wide', concat('op ', toString(number)), 'Server', 1000 FROM numbers(50000)"
        )
    telemetry = store.telemetry(database)
    assert len(await questions.operation_changes(telemetry, [NOWHERE, MINUTE])) == 50_000
    assert len(await questions.self_times(telemetry, [MINUTE])) == 50_000
    assert len(await questions.critical_operations(telemetry, [MINUTE])) == 50_000


async def test_missing_tables_are_named(store):
    store.create_database("bare")
    with store._engine.connection("bare") as connection:
        for table in ("otel_traces_slim_mv", "otel_traces_slim", "otel_traces", "otel_logs"):
            connection.command(f"DROP TABLE {table}")
    telemetry = store.telemetry("bare")
    with pytest.raises(SchemaError, match="no table 'otel_traces'"):
        await telemetry.call_edges(MINUTE)
    with pytest.raises(SchemaError, match="no table 'otel_logs'"):
        await questions.log_templates(telemetry, [MINUTE])
    with pytest.raises(SchemaError, match="no table 'otel_traces'"):
        await questions.exemplars(telemetry, MINUTE)
    with pytest.raises(SchemaError, match="no table 'otel_traces'"):
        await questions.compare(telemetry, [BEFORE], AFTER)
    assert await telemetry.latest() is None
    with store._engine.connection("bare") as connection:
        for name in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
            connection.command(f"DROP TABLE otel_metrics_{name}")
    empty = store.telemetry("bare")
    with pytest.raises(SchemaError, match="none of the exporter's tables"):
        await empty.latest()
    with pytest.raises(SchemaError, match="holds no telemetry tables"):
        await empty.query("SELECT * FROM otel_traces")
    store.drop_database("bare")


async def test_logs_alone_can_be_compared(store):
    store.create_database("logs")
    store.ingest_arrow("logs", "otel_logs", logs_table([(7, "a", "WARN", "x 1")]))
    with store._engine.connection("logs") as connection:
        connection.command("DROP TABLE otel_traces_slim_mv")
        for table in ("otel_traces_slim", "otel_traces"):
            connection.command(f"DROP TABLE {table}")
    found = await questions.compare(store.telemetry("logs"), [BEFORE], AFTER)
    assert found.operations == ()
    assert [t.template for t in found.templates] == ["x <*>"]
    store.drop_database("logs")


OLDER = """
CREATE TABLE otel_traces (Timestamp DateTime64(9), TraceId String, SpanId String, ParentSpanId String,
    SpanName LowCardinality(String), SpanKind LowCardinality(String), ServiceName LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String), Duration Int64, StatusCode LowCardinality(String))
ENGINE = MergeTree ORDER BY ServiceName;
CREATE TABLE otel_logs (Timestamp DateTime64(9), TimestampTime DateTime DEFAULT toDateTime(Timestamp),
    TraceId String, SeverityText LowCardinality(String), ServiceName LowCardinality(String), Body String)
ENGINE = MergeTree ORDER BY (ServiceName, TimestampTime);
CREATE TABLE otel_metrics_sum (ServiceName String, MetricName String, StartTimeUnix DateTime,
    TimeUnix DateTime, Value Float64) ENGINE = MergeTree ORDER BY TimeUnix;
CREATE TABLE otel_metrics_exp_histogram (ServiceName String, MetricName String, TimeUnix DateTime,
    Count UInt64) ENGINE = MergeTree ORDER BY TimeUnix;
CREATE TABLE otel_traces_trace_id_ts (TraceId String, Start DateTime, End DateTime) ENGINE = Memory
"""


@pytest.fixture
def older(store):
    """The layout of other exporter releases, with old spellings of kinds and status codes."""
    with store._engine.connection() as connection:
        connection.command("CREATE DATABASE older ENGINE = Atomic")
    with store._engine.connection("older") as connection:
        for statement in OLDER.split(";"):
            connection.command(statement)
        connection.command(
            "INSERT INTO otel_traces VALUES "
            f"(fromUnixTimestamp64Nano({START_NS}), 't', 'a', '', 'op', "
            "'SPAN_KIND_CLIENT', 'front', {}, 9, ''), "
            f"(fromUnixTimestamp64Nano({START_NS}), 't', 'b', 'a', 'op', 'SPAN_KIND_SERVER', 'back', "
            "{'host.name': 'h'}, -5, 'STATUS_CODE_ERROR')"
        )
        connection.command(
            f"INSERT INTO otel_metrics_sum VALUES ('a', 'm', 0, {START_NS // SECOND_NS + 3}, 1)"
        )
        connection.command(
            f"INSERT INTO otel_metrics_exp_histogram VALUES ('a', 'm', {START_NS // SECOND_NS}, 1)"
        )
        connection.command(
            "INSERT INTO otel_logs (Timestamp, ServiceName, Body) "
            f"VALUES (fromUnixTimestamp64Nano({START_NS}), 'a', 'b')"
        )
    yield store
    store.drop_database("older")


async def test_older_layouts_answer_the_same_questions(older):
    telemetry = older.telemetry("older")
    (edge,) = await telemetry.call_edges(MINUTE)
    assert (edge.caller, edge.callee, edge.calls, edge.errors) == ("front", "back", 1, 1)
    health = await telemetry.service_health(MINUTE, 60.0)
    assert {(h.service, h.errors, h.p50_ms) for h in health} == {("front", 0, 9e-6), ("back", 1, 0.0)}
    assert await telemetry.latest() == START_NS + 3 * SECOND_NS
    assert (await telemetry.schema()).signals() == ("traces", "logs", "metrics")
    assert len(await questions.log_templates(telemetry, [MINUTE])) == 1


async def test_session_views_even_the_layouts_out(older):
    now = START_NS + 2 * SECOND_NS
    telemetry = older.telemetry("older", now=lambda: now, visible=[MINUTE])
    schema = await telemetry.schema()
    assert schema.tables["otel_metrics_sum"]["TimeUnix"] == "DateTime64(9)"
    assert schema.tables["otel_metrics_sum"]["StartTimeUnix"] == "DateTime64(9)"
    assert schema.has("otel_metrics_exponential_histogram", "Count")
    assert schema.has("otel_logs", "EventName", "TimestampTime")
    assert not schema.has("otel_traces_trace_id_ts")
    counted = await telemetry.query("SELECT count() AS n FROM otel_metrics_sum")
    assert list(counted.column("n")) == [0]
    assert await telemetry.latest() == START_NS + 9
    telemetry.close()


async def test_views_over_the_newest_layout_add_the_missing_column(store, database):
    telemetry = store.telemetry(database, now=lambda: START_NS)
    schema = await telemetry.schema()
    assert schema.has("otel_logs", "TimestampTime", "EventName")
    telemetry.close()


async def test_consumers_and_producers_are_calls(store, database):
    rows = [
        span("t", "p", service="shop", kind="Producer", ms=1),
        span("t", "c", "p", service="mail", kind="Consumer", at_s=1, ms=7),
    ]
    store.ingest_arrow(database, "otel_traces", traces_table(rows))
    (edge,) = await store.telemetry(database).call_edges(MINUTE)
    assert (edge.caller, edge.callee, edge.p50_ms) == ("shop", "mail", 7.0)


def test_the_schema_knows_its_signals():
    assert TelemetrySchema("d", {"otel_logs": {"Body": "String"}}).signals() == ("logs",)
