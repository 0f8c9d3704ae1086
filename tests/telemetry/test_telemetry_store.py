"""The store: databases, loading, errors with remedies, process rules."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import traceback

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pytest_otel_diag.errors import (
    ConfigurationError,
    QueryFailed,
    QueryLimitExceeded,
    QueryRejected,
    SchemaError,
    TelemetryError,
    TelemetryUnavailable,
)
from pytest_otel_diag.model.telemetry import SIGNAL_TABLES, SPANS_TABLE, QueryLimits
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry import Layout, Store
from pytest_otel_diag.telemetry.engine import connection as engines
from pytest_otel_diag.testing.telemetry_contract import (
    MINUTE,
    ODD_NAME,
    START_NS,
    sample_traces,
    span,
    traces_table,
)
from tests.support.deadlines import deadline_s


def run_python(script, *arguments):
    """Return what the script prints in a separate process."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=deadline_s(30), check=True).stdout


def rows(store, database, sql, parameters=None):
    with store._engine.connection(database) as connection:
        return connection.rows(sql, parameters)


async def test_a_database_has_every_table_of_the_exporter(store, database):
    schema = await store.telemetry(database).schema()
    expected = {name for names in SIGNAL_TABLES.values() for name in names} | {SPANS_TABLE}
    assert set(schema.tables) == expected
    assert database in store.databases()
    store.create_database(database)
    assert schema.signals() == ("traces", "logs", "metrics")


def test_dropping_is_final_and_repeatable(store):
    store.create_database("gone")
    store.drop_database("gone")
    store.drop_database("gone")
    assert "gone" not in store.databases()
    with pytest.raises(SchemaError, match="has no database 'gone'"):
        store.telemetry("gone")


def test_layout_follows_its_parameters():
    ddl = list(Layout(engine="ReplicatedMergeTree", cluster="c'1", ttl_hours=72).ddl("x`y"))
    assert all("ON CLUSTER `c'1`" in statement for statement in ddl)
    assert all("`x\\`y`." in statement for statement in ddl)
    tables = [statement for statement in ddl if "CREATE TABLE" in statement]
    assert all("ENGINE = ReplicatedMergeTree" in s and "toIntervalHour(72)" in s for s in tables)
    assert Layout(cluster="c").create_database("d").endswith("`d` ON CLUSTER `c` ENGINE = Atomic")


async def test_tables_in_memory_have_the_same_columns_and_rows(store, database):
    store.create_database("brief", layout=Layout(in_memory=True))
    try:
        for name in ("brief", database):
            store.ingest_arrow(name, "otel_traces", sample_traces())
        usual, brief = store.telemetry(database), store.telemetry("brief")
        assert (await brief.schema()).tables == (await usual.schema()).tables
        assert rows(store, "brief", "SELECT DISTINCT engine FROM system.tables WHERE database = 'brief'") == [
            ("Memory",),
            ("MaterializedView",),
        ]
        for table in ("otel_traces", SPANS_TABLE):
            sql = f"SELECT * FROM {table} ORDER BY ALL"
            assert (await brief.query(sql)).columns == (await usual.query(sql)).columns
        with pytest.raises(QueryFailed, match="write WHERE"):
            await brief.query("SELECT count() FROM otel_traces PREWHERE Duration > 1")
    finally:
        store.drop_database("brief")


def test_tables_in_memory_have_no_ttl():
    with pytest.raises(ConfigurationError, match="ttl_hours"):
        Layout(in_memory=True, ttl_hours=1)


def test_columns_that_came_since_the_last_write_are_found(store, database):
    store.ingest_arrow(database, "otel_traces", sample_traces())
    with store._engine.connection(database) as connection:
        connection.command("ALTER TABLE otel_traces ADD COLUMN Sampler String")
    more = sample_traces().append_column("Sampler", pa.array(["always"] * sample_traces().num_rows))
    store.ingest_arrow(database, "otel_traces", more)
    assert rows(store, database, "SELECT DISTINCT Sampler FROM otel_traces ORDER BY 1") == [
        ("",),
        ("always",),
    ]


def test_an_insert_that_failed_half_way_is_completed_not_repeated(store, database):
    store.drop_database(database)
    store.create_database(database, layout=Layout(knows_retries=True))
    spans = sample_traces()
    with store._engine.connection(database) as connection:
        connection.command("ALTER TABLE otel_traces_slim ADD CONSTRAINT full CHECK service = ''")
        with pytest.raises(QueryFailed):
            store.ingest_arrow(database, "otel_traces", spans, token="one")
        connection.command("ALTER TABLE otel_traces_slim DROP CONSTRAINT full")
    tables = ("otel_traces", "otel_traces_slim")
    assert store.count_rows(database, "otel_traces_slim") == 0
    for _ in range(2):
        store.ingest_arrow(database, "otel_traces", spans, token="one")
        assert [store.count_rows(database, table) for table in tables] == [spans.num_rows] * 2
    for _ in range(2):  # without a token, the same rows are other rows
        store.ingest_arrow(database, "otel_traces", spans)
    assert [store.count_rows(database, table) for table in tables] == [3 * spans.num_rows] * 2


def test_a_database_made_again_is_looked_at_again(store, database):
    store.ingest_arrow(database, "otel_traces", sample_traces())
    store.drop_database(database)
    with pytest.raises(SchemaError, match="has no table 'otel_traces'"):
        store.ingest_arrow(database, "otel_traces", sample_traces())


async def test_what_one_session_may_read_another_may_not(store, database):
    store.create_database("next")
    try:
        sql = "SELECT count() FROM next.otel_logs"
        assert list((await store.telemetry("next").query(sql)).rows()) == [(0,)]
        with pytest.raises(QueryRejected, match="outside this session"):
            await store.telemetry(database).query(sql)
    finally:
        store.drop_database("next")


def test_a_ttl_is_accepted_by_the_engine(store):
    store.create_database("kept", layout=Layout(ttl_hours=1_000_000))
    assert rows(store, "kept", "SELECT count() FROM system.tables WHERE database = 'kept'") == [(9,)]
    store.drop_database("kept")


async def test_the_companion_says_the_same_as_the_exporter_s_table(store, database):
    store.ingest_arrow(database, "otel_traces", sample_traces())
    telemetry = store.telemetry(database)
    slim = await telemetry.service_health(MINUTE, 3.0), await telemetry.call_edges(MINUTE)
    latest = await telemetry.latest()
    with store._engine.connection(database) as connection:
        connection.command("DROP TABLE otel_traces_slim_mv")
        connection.command("DROP TABLE otel_traces_slim")
    raw = store.telemetry(database)
    assert (await raw.service_health(MINUTE, 3.0), await raw.call_edges(MINUTE)) == slim
    assert await raw.latest() == latest


def test_parquet_is_matched_by_name_and_keeps_nanoseconds(store, database, tmp_path):
    path = tmp_path / "tra'ces \\ü.parquet"
    row = span("t", "s", service=ODD_NAME, at_s=1e-9, ms=1)
    table = traces_table([{**row, "SpanAttributes": [("k'", "v\\")]}])
    pq.write_table(table.select(sorted(table.column_names)), path)
    assert store.ingest_parquet(database, "otel_traces", path) == 1
    found = rows(
        store, database, "SELECT Timestamp, ServiceName, SpanAttributes, StatusMessage FROM otel_traces"
    )
    assert found == [(START_NS + 1, ODD_NAME, {"k'": "v\\"}, "")]


def test_paths_with_wildcards_are_taken_literally(store, database, tmp_path):
    path = tmp_path / "part-[1]{a,b}*.parquet"
    pq.write_table(sample_traces(), path)
    pq.write_table(sample_traces(), tmp_path / "part-1ax.parquet")
    assert store.ingest_parquet(database, "otel_traces", path) == 40
    assert rows(store, database, "SELECT count() FROM otel_traces") == [(40,)]


def test_a_server_gets_parquet_in_batches(server_store, tmp_path, monkeypatch):
    monkeypatch.setattr("pytest_otel_diag.telemetry.ingest.BATCH_ROWS", 7)
    server_store.create_database("batches")
    pq.write_table(sample_traces(), tmp_path / "traces.parquet")
    assert server_store.ingest_parquet("batches", "otel_traces", tmp_path / "traces.parquet") == 40
    assert rows(server_store, "batches", "SELECT count(), uniqExact(SpanId) FROM otel_traces") == [(40, 40)]
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "traces.parquet").read_bytes()[:-50])
    with pytest.raises(SchemaError, match=r"cut\.parquet"):
        server_store.ingest_parquet("batches", "otel_traces", tmp_path / "cut.parquet")
    server_store.drop_database("batches")


def test_nan_metrics_are_kept_as_they_are(store, database):
    table = pa.table(
        {
            "ServiceName": ["a", "a"],
            "MetricName": ["m", "m"],
            "TimeUnix": pa.array([START_NS, START_NS + 1], pa.timestamp("ns", "UTC")),
            "Value": [float("nan"), float("inf")],
        }
    )
    store.ingest_arrow(database, "otel_metrics_gauge", table)
    query = "SELECT isNaN(Value), isInfinite(Value) FROM otel_metrics_gauge ORDER BY TimeUnix"
    assert rows(store, database, query) == [(1, 0), (0, 1)]


@pytest.mark.parametrize("store_name", ["store", "server_store"])
def test_truncated_parquet_names_the_file(store_name, request, tmp_path):
    opened = request.getfixturevalue(store_name)
    opened.create_database("truncated")
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    pq.write_table(sample_traces(), whole)
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises((SchemaError, QueryFailed), match=r"cut\.parquet"):
        opened.ingest_parquet("truncated", "otel_traces", cut)
    assert rows(opened, "truncated", "SELECT count() FROM otel_traces") == [(0,)]
    opened.drop_database("truncated")


def test_a_missing_file_is_named(store, database, tmp_path):
    with pytest.raises(SchemaError, match=r"nothing\.parquet: no such file"):
        store.ingest_parquet(database, "otel_traces", tmp_path / "nothing.parquet")


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("ServiceNam", pa.array(["a"]), "did you mean 'ServiceName'"),
        ("Timestamp", pa.array([1], pa.int64()), "'Timestamp' is Int64, otel_traces needs DateTime64"),
        ("Timestamp", pa.array(["now"]), "'Timestamp' is String"),
        ("Duration", pa.array(["long"]).dictionary_encode(), "'Duration' is String"),
        ("ServiceName", pa.array([1.5]), "'ServiceName' is Float64"),
        ("ServiceName", pa.array([True]), "'ServiceName' is Bool"),
        ("ResourceAttributes", pa.array([["a"]]), "'ResourceAttributes' is Array(String)"),
    ],
)
def test_columns_that_do_not_fit_are_named(store, database, column, values, says):
    with pytest.raises(SchemaError) as caught:
        store.ingest_arrow(database, "otel_traces", pa.table({column: values}))
    assert says in str(caught.value)
    assert rows(store, database, "SELECT count() FROM otel_traces") == [(0,)]


def test_a_parquet_column_of_the_wrong_type_names_file_and_column(store, database, tmp_path):
    path = tmp_path / "wrong.parquet"
    pq.write_table(pa.table({"Duration": ["long"], "TraceId": ["t"]}), path)
    with pytest.raises(SchemaError, match=r"wrong\.parquet: column 'Duration'"):
        store.ingest_parquet(database, "otel_traces", path)


def test_tables_that_are_not_there_are_named(store, database):
    with pytest.raises(SchemaError, match="no table 'otel_trace'"):
        store.ingest_arrow(database, "otel_trace", sample_traces())


def test_sessions_leave_nothing_behind(store, database):
    before = store.databases()
    telemetry = store.telemetry(database, now=lambda: START_NS, visible=[MINUTE])
    assert len(store.databases()) == len(before) + 1
    telemetry.close()
    telemetry.close()
    assert store.databases() == before
    with pytest.raises(TelemetryUnavailable, match="closed"):
        asyncio.run(telemetry.latest())


def test_a_session_that_cannot_be_made_leaves_nothing_behind(store, database):
    with store._engine.connection(database) as connection:
        connection.command("CREATE TABLE otel_metrics_broken (x UInt8) ENGINE = Memory")
        connection.command("DROP TABLE otel_traces_slim_mv")
        connection.command("DROP TABLE otel_traces")
        connection.command("CREATE TABLE otel_traces (Timestamp String) ENGINE = Memory")
    before = store.databases()
    with pytest.raises(SchemaError, match="Duration"):
        store.telemetry(database, now=lambda: START_NS)
    assert store.databases() == before


async def test_settled_windows_stay_visible_and_do_not_move_latest(store, database):
    store.ingest_arrow(database, "otel_traces", sample_traces())
    now = START_NS + 2_500_000_000
    settled = Window(start_ns=START_NS + 8_000_000_000, end_ns=START_NS + 9_000_000_000)
    telemetry = store.telemetry(database, now=lambda: now, visible=[MINUTE], settled=[settled])
    answer = await telemetry.query("SELECT DISTINCT TraceId AS t FROM otel_traces ORDER BY t")
    assert list(answer.column("t")) == ["t0", "t1", "t2", "t8"]
    assert await telemetry.latest() == START_NS + 2_100_000_000
    telemetry.close()


async def test_the_base_database_cannot_be_named(store, database):
    store.ingest_arrow(database, "otel_traces", sample_traces())
    telemetry = store.telemetry(database, now=lambda: START_NS, visible=[MINUTE])
    quoted = f"`{database}`"
    for sql in (
        f"SELECT count() FROM {quoted}.otel_traces",
        f"SELECT 1 WHERE 't1' IN {quoted}.otel_traces",
        f"SELECT 1 WHERE ('t1', 1) GLOBAL NOT IN ({quoted}.otel_traces)",
        f"WITH x AS (SELECT * FROM {quoted}.otel_traces) SELECT 1 FROM x",
        f"SELECT * FROM view(SELECT * FROM {quoted}.otel_traces)",
        f"SELECT * FROM otel_traces AS a JOIN {quoted}.otel_traces AS b ON a.TraceId = b.TraceId",
        f"SELECT joinGet('{database}.x', 'y', 1)",
        f"SELECT dictGet('{database}.x', 'y', 1)",
        f"SELECT * FROM merge('{database}', 'otel_traces')",
        f"SELECT 1 AS `x\\n{database}`",
        f"SELECT 1 WHERE EXISTS (SELECT 1 FROM {quoted}.otel_traces)",
        f"SELECT * FROM (EXPLAIN SELECT * FROM {quoted}.otel_traces)",
        f"SELECT in('t1', {quoted}.`otel_traces`)",
        f"SHOW TABLES FROM {quoted}",
        f"SHOW COLUMNS FROM otel_traces FROM {quoted}",
        f"DESCRIBE TABLE {quoted}.otel_traces",
        f"EXPLAIN SELECT * FROM {quoted}.otel_traces",
        "EXPLAIN CURRENT TRANSACTION",
        "SHOW CREATE TABLE otel_traces",
        "SELECT 1 FORMAT JSON",
        "SELECT 1 SETTINGS max_threads = 1 FORMAT JSON",
        "SELECT 1 FORMAT JSON SETTINGS max_threads = 1",
        "SELECT (SELECT 1 SETTINGS max_threads = 1, join_algorithm = 'hash') AS a, 'x' = 'y' AS b",
        "SELECT number FROM numbers(3) UNION ALL (SELECT 1 SETTINGS max_threads = 1)",
        "SELECT DISTINCT database AS d FROM system.tables",
    ):
        with pytest.raises(QueryRejected):
            await telemetry.query(sql)
    with pytest.raises(QueryRejected, match="Identifier"):
        await telemetry.query("SELECT count() FROM {db:Identifier}.otel_traces", {"db": database})
    assert "otel_traces" in list((await telemetry.query("SHOW TABLES")).columns[0])
    assert list((await telemetry.query("SELECT 1 AS n WHERE 2 IN (SELECT 2)")).column("n")) == [1]
    array = "SELECT count() AS n FROM (SELECT [1, 2] AS xs) AS t WHERE 1 IN (t.xs)"
    assert list((await telemetry.query(array)).column("n")) == [1]
    telemetry.close()


async def test_only_the_outermost_rows_are_capped(store, database):
    telemetry, limits = store.telemetry(database), QueryLimits(result_rows=10)
    whole = (
        "SELECT (SELECT count() FROM (SELECT arrayJoin(range(500)))) AS a, 400 IN (SELECT number FROM "
        "numbers(500)) AS b, (SELECT count() FROM (SELECT 1 FROM numbers(99) UNION ALL SELECT 2)) AS c"
    )
    assert list((await telemetry.query(whole, limits=limits)).rows()) == [(500, 1, 100)]
    ordered = "SELECT number, number FROM numbers(10) ORDER BY number DESC"
    answer = await telemetry.query(ordered, limits=limits)
    assert (answer.names, list(answer.columns[1])) == (("number", "number"), list(range(9, -1, -1)))
    exact = await telemetry.query("SELECT arrayJoin(range(10)) AS n", limits=limits)
    assert list(exact.column("n")) == list(range(10))
    free = await telemetry.query("SELECT number FROM numbers(200000)", limits=QueryLimits(result_rows=0))
    assert len(free) == 200_000


GROWTH_SCRIPT = """
    import asyncio, resource
    from pytest_otel_diag.errors import QueryLimitExceeded
    from pytest_otel_diag.telemetry import Store
    telemetry = Store.open().telemetry("default")
    def peak_kib():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async def grown(sql):
        before = peak_kib()
        try:
            await telemetry.query(sql)
        except QueryLimitExceeded:
            return peak_kib() - before
    print(asyncio.run(grown("SELECT arrayJoin(range(30000000))")) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has other units elsewhere")
def test_one_row_that_becomes_many_is_stopped_before_they_are_all_in_memory():
    # the array alone takes 240 MB; its rows as Python integers would take over 1 GB more
    assert int(run_python(GROWTH_SCRIPT)) < 800


async def test_a_user_who_may_not_change_settings_is_held_to_the_rows_too(server):
    with Store.open(server.dsn("viewer")) as viewer:
        telemetry = viewer.telemetry("default")
        with pytest.raises(QueryLimitExceeded, match="10 result rows"):
            await telemetry.query("SELECT number FROM numbers(11)", limits=QueryLimits(result_rows=10))


async def test_very_long_statements_are_refused(store, database):
    with pytest.raises(QueryRejected, match="characters"):
        await store.telemetry(database).query(f"SELECT '{'x' * 200_001}'")


@pytest.mark.parametrize("bad", ["\0", "\ud800", "a\udfffb"])
@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT '{bad}'", {}),
        ("SELECT {{x:String}}", {"x": "{bad}"}),
        ("SELECT {{x:Array(String)}}", {"x": ["fine", "{bad}"]}),
        ("SELECT {{x:Map(String, String)}}", {"x": {"{bad}": "v"}}),
        ("SELECT {{x:Map(String, String)}}", {"x": {"k": ("{bad}",)}}),
        ("SELECT 1", {"{bad}": 1}),
    ],
)
async def test_text_that_cannot_be_sent_is_refused(store, database, server_store, bad, sql, parameters):
    def filled(value):
        if isinstance(value, str):
            return value.replace("{bad}", bad)
        if isinstance(value, dict):
            return {filled(key): filled(item) for key, item in value.items()}
        return type(value)(map(filled, value)) if isinstance(value, list | tuple) else value

    for telemetry in (store.telemetry(database), server_store.telemetry("default")):
        with pytest.raises(QueryRejected, match="which cannot be sent; remove it"):
            await telemetry.query(
                sql.replace("{{", "{").replace("}}", "}").replace("{bad}", bad), filled(parameters)
            )
        assert list((await telemetry.query("SELECT 1 AS n")).column("n")) == [1]


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("sql", "parameters", "says"),
    [
        (None, {}, "must be text, this is NoneType"),
        (b"SELECT 1", {}, "must be text, this is bytes"),
        ("SELECT 1", [1], "must be a mapping of name to value, these are list"),
        (f"SELECT {'[' * 900}{']' * 900}", {}, "nested too deep"),
        (f"SELECT {'[' * 250}1{']' * 250} AS x", {}, "nested too deep"),
        ("SELECT {x:Array(String)}", {"x": nested(2000)}, "nested too deep"),
    ],
    ids=range(6),
)
async def test_what_is_no_statement_or_nested_too_deep_is_refused(store, database, sql, parameters, says):
    telemetry = store.telemetry(database)
    with pytest.raises(QueryRejected, match=says):
        await telemetry.query(sql, parameters)
    assert list((await telemetry.query("SELECT 1 AS n")).column("n")) == [1]


@pytest.mark.parametrize(
    ("sql", "parameters", "says"),
    [
        ("SELEC 1", {}, "Syntax error"),
        ("SELECT nothing FROM otel_traces", {}, "nothing"),
        ("SELECT {x:UInt8} AS n", {"x": "not a number"}, "not a number"),
        ("SELECT {x:UInt8} AS n", {}, "x"),
    ],
)
async def test_a_failed_query_is_one_exception(store, database, sql, parameters, says):
    with pytest.raises(TelemetryError, match=says) as caught:
        await store.telemetry(database).query(sql, parameters)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback") == 1 and "clickhouse_connect" not in shown


async def test_explain_with_settings_is_checked_like_any_other(store, database):
    telemetry = store.telemetry(database)
    assert len(await telemetry.query("EXPLAIN SYNTAX oneline = 1 SELECT count() FROM otel_traces")) > 0
    with pytest.raises(QueryRejected, match="SETTINGS are not allowed"):
        await telemetry.query("EXPLAIN SYNTAX oneline = 1 SELECT 1 SETTINGS max_memory_usage = 0")


@pytest.fixture
def bounded(store, database):
    """Telemetry behind views, with instants that must not be learnt."""
    store.ingest_arrow(database, "otel_traces", sample_traces())
    opened = store.telemetry(database, now=lambda: START_NS + 5_000_000_000, visible=[MINUTE])
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count() FROM _now",
        "SELECT now FROM `_now`",
        'SELECT now FROM "_now" AS x',
        "SELECT now FROM {own}._now",
        "SELECT 1 WHERE (1, 1) NOT IN (_now)",
        "SELECT 1 WHERE (1, 1) IN {own}._now",
        "SELECT 1 WHERE nullIn((1, 1), _now)",
        "SELECT * FROM otel_traces LEFT JOIN _now ON 1 = 1",
        "SELECT * FROM view(SELECT * FROM _now)",
        "WITH x AS (SELECT * FROM _now) SELECT * FROM x",
        "DESCRIBE TABLE _now",
        "SHOW COLUMNS FROM _now",
        "EXPLAIN SYNTAX SELECT * FROM _now",
    ],
)
async def test_private_tables_cannot_be_read(bounded, sql):
    with pytest.raises(QueryRejected, match="is private"):
        await bounded.query(sql.format(own=f"`{bounded.database}`"))
    assert list((await bounded.query("SELECT uniqExact(TraceId) AS n FROM otel_traces")).column("n")) == [5]


@pytest.mark.parametrize("form", ["", "PLAN", "PIPELINE", "ESTIMATE", "QUERY TREE", "indexes = 1"])
async def test_explain_does_not_tell_the_tables_behind_the_views(bounded, form):
    with pytest.raises(QueryRejected, match="only SELECT, WITH, EXPLAIN AST, EXPLAIN SYNTAX"):
        await bounded.query(f"EXPLAIN {form} SELECT * FROM otel_traces")


async def test_explain_tells_nothing_but_the_statement(bounded, database):
    for form in ("AST", "SYNTAX", "SYNTAX run_query_tree_passes = 1"):
        shown = await bounded.query(f"EXPLAIN {form} SELECT * FROM otel_traces")
        text = "\n".join(shown.columns[0])
        assert "otel_traces" in text
        assert "LIMIT" not in text and "Subquery" not in text
        assert f"{database}.otel" not in text and "_now" not in text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT create_table_query FROM system.tables",
        "SELECT t.`as_select` FROM SYSTEM.tables AS t",
        "SELECT * FROM system.tables",
        "SELECT t.* FROM system.tables AS t",
        "SELECT * EXCEPT (name) FROM system.tables",
        "SELECT COLUMNS('creat') FROM system.tables",
        "SELECT t.COLUMNS('select') FROM system.tables AS t",
        "SELECT * FROM (SELECT upper(engine_full) AS x FROM system.tables)",
        "SELECT count() FROM system.tables JOIN (SELECT '' AS as_select) AS x USING (as_select)",
    ],
    ids=range(9),
)
async def test_the_definitions_of_the_views_cannot_be_read(bounded, sql):
    with pytest.raises(QueryRejected, match=r"(?i)database 'system' is outside this session"):
        await bounded.query(sql)


async def test_bad_buckets_are_refused(store, database):
    with pytest.raises(QueryRejected, match="positive"):
        await store.telemetry(database).service_health(MINUTE, 0.0)


def test_stores_on_the_same_path_share_it_and_others_are_refused(store, tmp_path):
    with Store.open() as second:
        second.create_database("shared")
        assert "shared" in store.databases()
        second.drop_database("shared")
    with pytest.raises(TelemetryUnavailable, match="one path per process"):
        Store.open(f"chdb://{tmp_path}/other")
    assert store.databases() == store.databases()


def test_a_closed_store_says_so(store):
    second = Store.open()
    with second._engine.connection() as lent:
        second.close()
        second.close()
        assert lent.rows("SELECT 1") == [(1,)]
    with pytest.raises(TelemetryUnavailable, match=r"open it again with Store\.open"):
        second.databases()


def test_a_store_of_before_a_fork_refuses_work(store, monkeypatch):
    second = Store.open()
    with monkeypatch.context() as patch:
        patch.setattr(engines, "_generation", engines._generation + 1)
        with pytest.raises(TelemetryUnavailable, match="forked"):
            second.databases()
    assert second.databases() == store.databases()
    second.close()


FORK_SCRIPT = """
    import os
    from pytest_otel_diag.errors import TelemetryUnavailable
    from pytest_otel_diag.telemetry import Store
    store = Store.open()
    child = os.fork()
    if child == 0:
        try:
            store.databases()
        except TelemetryUnavailable as error:
            os.write(1, str(error).encode())
        store.close()
        os._exit(0)
    os.waitpid(child, 0)
    store.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_instead_of_hanging():
    assert "forked" in run_python(FORK_SCRIPT)


async def test_show_answers_from_the_session_and_takes_no_clauses(store, database):
    telemetry = store.telemetry(database)
    shown = await telemetry.query("SHOW COLUMNS FROM otel_logs")
    assert shown.names == ("field", "type") and ("Body", "String") in list(shown.rows())
    for clause in ("LIKE 'nothing'", "WHERE name = 'otel_logs'", "LIMIT 1", f"FROM `{database}`"):
        with pytest.raises(QueryRejected, match="without further clauses"):
            await telemetry.query(f"SHOW TABLES {clause}")


def test_what_the_driver_cannot_format_is_a_failed_query(store):
    with store._engine.connection() as connection:
        with pytest.raises(QueryFailed, match="cannot be sent"):
            connection.query("SELECT '%d'", {"x": 1})
        assert connection.rows("SELECT 42") == [(42,)]


def test_an_engine_that_does_not_start_frees_the_place(tmp_path):
    script = """
        from pytest_otel_diag.errors import TelemetryUnavailable
        from pytest_otel_diag.telemetry import Store
        import sys
        try:
            Store.open(f"chdb://{sys.argv[1]}/file/below")
        except TelemetryUnavailable:
            print(Store.open().databases())
    """
    (tmp_path / "file").write_text("in the way")
    assert run_python(script, str(tmp_path)) == "()\n"


PATH_SCRIPT = """
    import sys
    from pytest_otel_diag.errors import TelemetryUnavailable
    from pytest_otel_diag.telemetry import Store
    try:
        store = Store.open(sys.argv[1])
    except TelemetryUnavailable as error:
        print(error)
    else:
        store.create_database("kept")
        print(store.databases(), flush=True)
        sys.stdin.readline()
        store.close()
"""


def test_a_path_is_kept_and_locked_for_one_process(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(PATH_SCRIPT), f"chdb://{tmp_path}/data"]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "('kept',)\n"
    second = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=deadline_s(30), check=True
    )
    assert "in use by another process" in second.stdout
    first.communicate("\n", timeout=deadline_s(30))


MISSING_SCRIPT = """
    import sys
    sys.modules["chdb"] = None
    from pytest_otel_diag.errors import TelemetryUnavailable
    from pytest_otel_diag.telemetry import Store
    try:
        Store.open()
    except TelemetryUnavailable as error:
        print(error)
"""


def test_without_chdb_the_way_out_is_the_extra():
    assert 'pip install "pytest-otel-diag[embedded]"' in run_python(MISSING_SCRIPT)


def test_importing_the_package_loads_no_driver():
    script = (
        "import sys, pytest_otel_diag.telemetry;"
        "print([m for m in ('chdb', 'clickhouse_connect', 'pyarrow', 'pandas', 'numpy', 'starlette') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=deadline_s(30), check=True
    )
    assert done.stdout == "[]\n"
