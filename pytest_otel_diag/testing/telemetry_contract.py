"""The contract that every Telemetry fulfils.

Subclass it in a test module and provide the fixture ``telemetry_of``: a function that takes Arrow tables by
exporter table name (and ``now``, ``visible``) and returns a Telemetry over exactly these tables::

    class TestMine(TelemetryContract):
        @pytest.fixture
        def telemetry_of(self):
            return lambda tables, *, now=None, visible=None: ...

The test methods are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import pytest

from pytest_otel_diag.errors import (
    QueryFailed,
    QueryLimitExceeded,
    QueryRejected,
    SchemaError,
    TelemetryError,
)
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.telemetry import QueryLimits
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.testing.sample_telemetry import (
    MINUTE,
    ODD_NAME,
    SECOND_NS,
    START_NS,
    gauge_table,
    logs_table,
    sample_traces,
    span,
    sum_table,
    traces_table,
)

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "MINUTE",
    "ODD_NAME",
    "SECOND_NS",
    "START_NS",
    "TelemetryContract",
    "TelemetryOf",
    "gauge_table",
    "logs_table",
    "sample_traces",
    "span",
    "sum_table",
    "traces_table",
]


class TelemetryOf(Protocol):
    """Creates a Telemetry over the given tables."""

    def __call__(
        self,
        tables: Mapping[str, pyarrow.Table],
        *,
        now: Callable[[], Nanos] | None = None,
        visible: Sequence[Window] | None = None,
    ) -> Telemetry:
        """Return the Telemetry; its resources are released with the fixture."""
        ...


class TelemetryContract:
    """Subclass this to test a Telemetry."""

    @pytest.fixture
    def telemetry(self, telemetry_of: TelemetryOf) -> Telemetry:
        """The sample traces, all visible."""
        return telemetry_of({"otel_traces": sample_traces()})

    async def test_the_schema_names_tables_and_columns(self, telemetry: Telemetry) -> None:
        """Tables and columns have the exporter's names."""
        schema = await telemetry.schema()
        assert schema.has("otel_traces", "Timestamp", "TraceId", "Duration", "StatusCode")
        assert "traces" in schema.signals()

    async def test_service_health_counts_requests_in_buckets(self, telemetry: Telemetry) -> None:
        """Only server spans count, in buckets from the window's start; empty buckets have no row."""
        health = await telemetry.service_health(MINUTE, 5.0)
        found = {(row.service, row.bucket_start_ns): (row.requests, row.errors, row.p50_ms) for row in health}
        late = START_NS + 5 * SECOND_NS
        assert found == {
            ("front", START_NS): (5, 0, 100.0),
            ("front", late): (5, 0, 100.0),
            ("middle", START_NS): (5, 0, 60.0),
            ("middle", late): (5, 0, 60.0),
            (ODD_NAME, START_NS): (5, 0, 40.0),
            (ODD_NAME, late): (5, 1, 40.0),
        }

    async def test_call_edges_join_callers_and_callees(self, telemetry: Telemetry) -> None:
        """Edges follow parent ids across services; latency comes from the client span if there is one."""
        edges = {
            (e.caller, e.callee): (e.calls, e.errors, e.p50_ms) for e in await telemetry.call_edges(MINUTE)
        }
        assert edges == {("front", "middle"): (10, 0, 80.0), ("middle", ODD_NAME): (10, 1, 40.0)}

    async def test_operation_health_counts_spans_of_every_kind(self, telemetry: Telemetry) -> None:
        """Counts cover the requested services, per operation and bucket."""
        health = await telemetry.operation_health(MINUTE, 30.0, ["front", ODD_NAME])
        found = {
            (row.service, row.operation, row.bucket_start_ns): (row.calls, row.errors, row.max_ms)
            for row in health
        }
        assert found == {("front", "op", START_NS): (20, 0, 100.0), (ODD_NAME, "op", START_NS): (10, 1, 40.0)}
        assert list(await telemetry.operation_health(MINUTE, 30.0, [])) == []

    async def test_metric_levels_are_values_and_rates(self, telemetry_of: TelemetryOf) -> None:
        """Gauges give values; counters give their increase per second between two points of the window."""
        telemetry = telemetry_of(
            {
                "otel_traces": sample_traces(),
                "otel_metrics_gauge": gauge_table([(10, "ad", "cpu", 0.5), (40, "ad", "cpu", 0.7)]),
                "otel_metrics_sum": sum_table(
                    [(5, "ad", "calls", 100.0), (35, "ad", "calls", 160.0), (65, "ad", "calls", 999.0)]
                ),
            }
        )
        late = START_NS + 30 * SECOND_NS
        found = {
            (row.metric, row.kind, row.bucket_start_ns): row.value
            for row in await telemetry.metric_levels(MINUTE, 30.0, ["ad"])
        }
        assert found == {
            ("cpu", "level", START_NS): 0.5,
            ("cpu", "level", late): 0.7,
            ("calls", "rate", late): 2.0,
        }
        assert list(await telemetry.metric_levels(MINUTE, 30.0, ["other"])) == []

    async def test_log_counts_and_kinds(self, telemetry_of: TelemetryOf) -> None:
        """It counts lines and severe lines per bucket, and templates with the buckets that contain them."""
        rows = [
            (1.0, "ad", "INFO", "order 17 took 3 ms"),
            (2.0, "ad", "INFO", "order 18 took 4 ms"),
            (35.0, "ad", "ERROR", "order 19 took 5 ms"),
            (36.0, "ad", "warning", "gone"),
            (37.0, "cart", "FATAL", "gone"),
        ]
        telemetry = telemetry_of({"otel_traces": sample_traces(), "otel_logs": logs_table(rows)})
        counts = await telemetry.log_counts(MINUTE, 30.0, ["ad"])
        late = START_NS + 30 * SECOND_NS
        assert [(row.service, row.bucket_start_ns, row.lines, row.severe) for row in counts] == [
            ("ad", START_NS, 2, 0),
            ("ad", late, 2, 2),
        ]
        kinds = await telemetry.log_kinds(MINUTE, 30.0, ["ad"])
        assert [(row.template, row.severe, row.lines, row.buckets) for row in kinds] == [
            ("order <*> took <*> ms", True, 3, 2),
            ("gone", True, 1, 1),
        ]

    async def test_an_empty_window_has_no_rows(self, telemetry: Telemetry) -> None:
        """A window without length or without telemetry gives no rows."""
        for window in (
            Window(start_ns=START_NS, end_ns=START_NS),
            Window(start_ns=0, end_ns=SECOND_NS),
        ):
            assert list(await telemetry.service_health(window, 1.0)) == []
            assert list(await telemetry.call_edges(window)) == []
            assert list(await telemetry.operation_health(window, 1.0, ["front"])) == []
            assert list(await telemetry.metric_levels(window, 1.0, ["front"])) == []
            assert list(await telemetry.log_counts(window, 1.0, ["front"])) == []
            assert list(await telemetry.log_kinds(window, 1.0, ["front"])) == []

    async def test_latest_is_the_end_of_the_newest_telemetry(self, telemetry: Telemetry) -> None:
        """The latest time is the end of the last span, not its start."""
        assert await telemetry.latest() == START_NS + 9 * SECOND_NS + 100_000_000

    async def test_latest_is_none_without_telemetry(self, telemetry_of: TelemetryOf) -> None:
        """Without telemetry the latest time is None, not 0."""
        assert await telemetry_of({"otel_traces": traces_table([])}).latest() is None

    async def test_what_has_not_ended_is_hidden(self, telemetry_of: TelemetryOf) -> None:
        """Spans are hidden until the clock has passed their end."""
        now = [START_NS + 5 * SECOND_NS + 50_000_000]
        telemetry = telemetry_of({"otel_traces": sample_traces()}, now=lambda: now[0])
        counted = "SELECT count() AS n FROM otel_traces WHERE ServiceName = 'front' AND SpanKind = 'Server'"
        assert list((await telemetry.query(counted)).column("n")) == [5]
        assert sum(row.requests for row in await telemetry.service_health(MINUTE, 60.0)) == 15
        now[0] += SECOND_NS
        assert list((await telemetry.query(counted)).column("n")) == [6]
        latest = await telemetry.latest()
        assert latest is not None
        assert latest <= now[0]

    async def test_what_lies_outside_the_windows_is_hidden(self, telemetry_of: TelemetryOf) -> None:
        """Only traces that start in a visible window are returned."""
        windows = [
            Window(start_ns=START_NS, end_ns=START_NS + 2 * SECOND_NS),
            Window(start_ns=START_NS + 8 * SECOND_NS, end_ns=START_NS + 9 * SECOND_NS),
        ]
        telemetry = telemetry_of({"otel_traces": sample_traces()}, visible=windows)
        answer = await telemetry.query("SELECT DISTINCT TraceId FROM otel_traces ORDER BY TraceId")
        assert list(answer.column("TraceId")) == ["t0", "t1", "t8"]

    async def test_sessions_do_not_see_each_other(self, telemetry_of: TelemetryOf) -> None:
        """Two views with different clocks return different data when queried alternately."""
        early, late = START_NS + 2 * SECOND_NS, START_NS + 60 * SECOND_NS
        one = telemetry_of({"otel_traces": sample_traces()}, now=lambda: early)
        two = telemetry_of({"otel_traces": sample_traces()}, now=lambda: late)
        for _ in range(2):
            counts = [
                list((await t.query("SELECT uniqExact(TraceId) AS n FROM otel_traces")).column("n"))
                for t in (one, two)
            ]
            assert counts == [[2], [10]]

    async def test_parameters_travel_as_values(self, telemetry: Telemetry) -> None:
        """Quotes, comments and placeholders inside a value stay part of the value."""
        answer = await telemetry.query(
            "SELECT {name:String} AS name, count() AS n FROM otel_traces "
            "WHERE ServiceName = {name:String} AND Duration >= {least:UInt64}",
            {"name": ODD_NAME, "least": 1, "unused": [1, 2]},
        )
        assert list(answer.rows()) == [(ODD_NAME, 10)]

    async def test_an_answer_without_rows_names_its_columns(self, telemetry: Telemetry) -> None:
        """An empty result still has its column names, because analyzers look columns up by name."""
        answer = await telemetry.query("SELECT TraceId AS id, Duration FROM otel_traces WHERE 0")
        assert (answer.names, len(answer)) == (("id", "Duration"), 0)

    async def test_instants_are_nanoseconds(self, telemetry: Telemetry) -> None:
        """Times keep their nanoseconds."""
        answer = await telemetry.query("SELECT max(Timestamp) AS t FROM otel_traces WHERE SpanId = '3c'")
        assert list(answer.column("t")) == [START_NS + 3_020_000_000]

    @pytest.mark.parametrize(
        "sql",
        [
            "WITH slow AS (SELECT * FROM otel_traces WHERE Duration > 1) SELECT count() FROM slow",
            "SELECT count() FROM (SELECT 1 FROM otel_traces UNION ALL SELECT 2 FROM numbers(3))",
            "SELECT ';', '-- no comment', 'INTO OUTFILE', \"TraceId\" FROM otel_traces -- done;\n LIMIT 1;",
            "SELECT t.TraceId FROM otel_traces AS t WHERE t.SpanId IN (SELECT SpanId FROM otel_traces)",
            "SELECT SpanName AS format FROM otel_traces ORDER BY format LIMIT 1",
            "EXPLAIN SYNTAX SELECT count() FROM otel_traces",
            "DESCRIBE TABLE otel_traces",
            "SHOW TABLES",
        ],
    )
    async def test_reading_is_allowed(self, telemetry: Telemetry, sql: str) -> None:
        """Every form of a reading statement is accepted."""
        assert len(await telemetry.query(sql)) > 0

    @pytest.mark.parametrize(
        "sql",
        [
            "",
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP TABLE otel_traces",
            "INSERT INTO otel_traces (TraceId) VALUES ('x')",
            "DROP TABLE otel_traces",
            "ALTER TABLE otel_traces DELETE WHERE 1",
            "SET max_memory_usage = 0",
            "SELECT 1 INTO OUTFILE 'stolen.txt'",
            "SELECT * FROM file('/etc/hostname', 'LineAsString')",
            "SELECT file('/etc/hostname')",
            "SELECT * FROM url('http://localhost:1/', 'LineAsString')",
            "SELECT * FROM remote('localhost', 'system.one')",
            "SELECT * FROM (SELECT * FROM s3('http://localhost:1/x'))",
            "SELECT * FROM merge('system', '.*')",
            "SELECT * FROM system.settings",
            "SELECT name FROM system.columns WHERE table = 'otel_traces'",
            "SELECT count() FROM otel_traces WHERE TraceId IN (SELECT name FROM system.databases)",
            "SELECT 1 SETTINGS max_execution_time = 0",
            "SELECT 1 SETTINGS max_threads = 1",
            "SELECT arrayJoin(range(1000)) SETTINGS limit = 0",
            "SELECT (SELECT 1 FROM numbers(1) SETTINGS max_rows_to_read = 0)",
            "EXPLAIN SELECT count() FROM otel_traces",
            "EXPLAIN INSERT INTO otel_traces SELECT * FROM otel_traces",
            "SHOW DATABASES",
        ],
    )
    async def test_anything_else_is_rejected(self, telemetry: Telemetry, sql: str) -> None:
        """Other statements are rejected before they run, and the telemetry stays usable."""
        with pytest.raises(QueryRejected):
            await telemetry.query(sql)
        assert list((await telemetry.query("SELECT count() AS n FROM otel_traces")).column("n")) == [40]

    @pytest.mark.parametrize(
        ("sql", "limits", "says"),
        [
            ("SELECT number FROM numbers(1000)", QueryLimits(result_rows=10), "10 result rows"),
            ("SELECT arrayJoin(range(10000000))", QueryLimits(), "100,000 result rows"),
            ("SELECT 1 UNION ALL SELECT arrayJoin(range(9))", QueryLimits(result_rows=9), "9 result rows"),
            ("SELECT sum(number) FROM numbers(1000000)", QueryLimits(read_rows=1000), "1,000 rows read"),
            (
                "SELECT length(groupArray(toString(number))) FROM numbers(10000000)",
                QueryLimits(memory_bytes=20_000_000),
                "20,000,000 bytes",
            ),
            (
                "SELECT count() FROM numbers(100000000000) WHERE cityHash64(number) = 1",
                QueryLimits(time_s=0.5, read_rows=10**15),
                "0.5 s",
            ),
        ],
    )
    async def test_an_exceeded_limit_is_named(
        self, telemetry: Telemetry, sql: str, limits: QueryLimits, says: str
    ) -> None:
        """Limits of rows, memory and time hold, and the next query is not affected."""
        with pytest.raises(QueryLimitExceeded) as caught:
            await telemetry.query(sql, limits=limits)
        assert says in str(caught.value)
        assert list((await telemetry.query("SELECT 42 AS n")).column("n")) == [42]

    async def test_the_error_for_an_unknown_table_lists_the_known_ones(self, telemetry: Telemetry) -> None:
        """The error names the nearest table."""
        with pytest.raises(SchemaError, match="otel_traces"):
            await telemetry.query("SELECT * FROM otel_trace")

    async def test_the_error_for_an_unknown_column_names_the_nearest(self, telemetry: Telemetry) -> None:
        """The error names the nearest column of the tables."""
        with pytest.raises(SchemaError, match="ServiceName"):
            await telemetry.query("SELECT ServiceNam FROM otel_traces")

    @pytest.mark.parametrize(
        ("sql", "code"), [("SELEC 1", 62), ("SELECT 1 + 'x'", 43), ("SELECT {x:UInt8}", 456)]
    )
    async def test_errors_carry_the_code_of_the_engine(
        self, telemetry: Telemetry, sql: str, code: int
    ) -> None:
        """Errors without a specific class carry the engine's code."""
        with pytest.raises(QueryFailed) as caught:
            await telemetry.query(sql)
        assert caught.value.code == code

    async def test_a_value_that_cannot_be_sent_is_an_error(self, telemetry: Telemetry) -> None:
        """The error is a TelemetryError, not one of the driver."""
        with pytest.raises(TelemetryError):
            await telemetry.query("SELECT {n:UInt8} AS n", {"n": object()})

    async def test_a_failed_query_leaves_nothing_behind(self, telemetry: Telemetry) -> None:
        """A failed query returns no rows, not even those read before it failed."""
        for _ in range(3):
            with pytest.raises(QueryFailed):
                await telemetry.query(
                    "SELECT number, toUInt8(if(number = 90000, 'x', '1')) FROM numbers(95000)"
                )
            assert list((await telemetry.query("SELECT 42 AS n")).rows()) == [(42,)]

    async def test_concurrent_queries_get_their_own_results(self, telemetry: Telemetry) -> None:
        """Each of several concurrent queries gets its own result."""
        answers = await asyncio.gather(
            *(telemetry.query("SELECT {n:UInt32} AS n", {"n": number}) for number in range(20))
        )
        assert [answer.column("n")[0] for answer in answers] == list(range(20))

    async def test_a_cancelled_query_never_blocks_the_loop(self, telemetry: Telemetry) -> None:
        """Cancelling returns immediately, and later queries succeed."""
        slow = asyncio.ensure_future(
            telemetry.query(
                "SELECT count() FROM numbers(100000000000) WHERE cityHash64(number) = 1",
                limits=QueryLimits(time_s=1.0, read_rows=10**15),
            )
        )
        ticks = 0
        for _ in range(10):
            await asyncio.sleep(0.01)
            ticks += 1
        assert not slow.done()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert list((await telemetry.query("SELECT 42 AS n")).column("n")) == [42]
        assert ticks == 10
