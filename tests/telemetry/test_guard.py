"""SQL of analyzers: what it may say, and that no composition of it returns what the session must not see."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import QueryRejected, SchemaError, TelemetryError
from pytest_otel_diag.telemetry import Store, StoreTelemetry
from pytest_otel_diag.telemetry.guard import text
from pytest_otel_diag.telemetry.guard.functions import aggregates, allowed, functions
from pytest_otel_diag.telemetry.guard.tree import parsed
from pytest_otel_diag.telemetry.layout import Layout
from pytest_otel_diag.testing.sample_telemetry import MINUTE, START_NS
from tests.support.deadlines import deadline_s

HIDDEN = "c0ntent"
"""Part of every value that must not come back; no statement holds it."""

ENVIRONMENT = "PATH="
ROWS = 40_000
"""Enough for a part with a file for each column: only then the engine orders conditions by size."""


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("guard") / "secret.txt"
    path.write_text(f"{HIDDEN} of a file\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["ordered", "memory"])
def telemetry(store: Store, request) -> Iterator[StoreTelemetry]:
    """A session that sees the first half of its rows, beside a database of others."""
    name = f"guard {request.param}"
    layout = Layout(in_memory=request.param)
    for database in (name, "others"):
        store.create_database(database, layout=layout)
    rows = f"""
        SELECT fromUnixTimestamp64Nano({START_NS} + toInt64(number)) AS Timestamp,
            toString(number) AS TraceId,
            if(number < {ROWS // 2}, 'seen', '{HIDDEN} of later') AS service
        FROM numbers({ROWS})"""
    with store._engine.connection() as connection:
        connection.command(
            f"INSERT INTO `{name}`.otel_traces (Timestamp, TraceId, ServiceName, SpanName, SpanKind, "
            "StatusCode, StatusMessage) SELECT Timestamp, TraceId, service, service, service, service, "
            f"repeat(TraceId, 80) FROM ({rows})"
        )
        connection.command(
            f"INSERT INTO others.otel_traces (Timestamp, ServiceName) SELECT now(), '{HIDDEN} of others'"
        )
    opened = store.telemetry(name, now=lambda: START_NS + ROWS // 2 - 1, visible=[MINUTE])
    yield opened
    opened.close()
    for database in (name, "others"):
        store.drop_database(database)


def answer(telemetry: StoreTelemetry, sql: str, parameters: dict[str, object] | None = None) -> str:
    """Return everything that an analyzer learns from a statement: names and rows, or the error."""
    try:
        found = asyncio.run(telemetry.query(sql, parameters))
    except TelemetryError as error:
        return f"{type(error).__name__}: {error}"
    return repr((found.names, found.columns))


READERS = [
    "file('{file}')",
    "`file`('{file}')",
    "FILE('{file}')",
    "file(concat('{file}', ''))",
    "file('/proc/self/environ')",
    "(SELECT any(ServiceName) FROM others.otel_traces)",
    "(SELECT any(ServiceName) FROM `others`.`otel_traces`)",
    '(SELECT any(ServiceName) FROM "others" . otel_traces)',
    "(SELECT any(line) FROM file('{file}', 'LineAsString', 'line String'))",
    "(SELECT any(line) FROM file('/proc/self/environ', 'LineAsString', 'line String'))",
    "(SELECT any(line) FROM `{file}`)",
    "(SELECT any(line) FROM url('file://{file}', 'LineAsString', 'line String'))",
    "(SELECT any(ServiceName) FROM merge('others', '.*'))",
    "(SELECT any(ServiceName) FROM merge(REGEXP('.*'), 'otel_traces'))",
    "(SELECT any(ServiceName) FROM remote('localhost', 'others', 'otel_traces'))",
    "(SELECT any(ServiceName) FROM loop(others, otel_traces))",
    "(SELECT any(ServiceName) FROM viewIfPermitted(SELECT * FROM others.otel_traces ELSE null('x String')))",
    "(SELECT any(create_table_query) FROM system.tables)",
    "(SELECT any(query) FROM SYSTEM.processes)",
    "(SELECT any(now) FROM _now)",
    "(WITH others.otel_traces AS t SELECT any(ServiceName) FROM t)",
    "((SELECT 1 AS others) IN others.otel_traces)",
    "joinGet('others.otel_traces', 'ServiceName', 1)",
    "dictGet('others.otel_traces', 'ServiceName', 1)",
    "hasColumnInTable('others', 'otel_traces', 'ServiceName')",
    "(SELECT any(ServiceName) FROM otel_traces WHERE ServiceName != 'seen')",
    "(SELECT max(toUInt8(replaceOne(ServiceName, 'seen', '1'))) FROM otel_traces)",
    "(SELECT count() FROM otel_traces WHERE toUInt8(replaceOne(SpanKind, 'seen', '1')) = 1)",
    "(SELECT count() FROM otel_traces WHERE toUInt8(if(StatusCode = 'seen', '1', StatusCode)) = 1)",
    "(SELECT count() FROM otel_traces AS a JOIN otel_traces AS b USING (TraceId) WHERE toDate(replaceOne("
    "toString(a.SpanName), 'seen', '2020-01-01')) > '2000-01-01')",
    "(SELECT sum(c) FROM (SELECT toUInt8(replaceOne(SpanName, 'seen', '1')) AS c FROM otel_traces) "
    "WHERE c = 1)",
]
WRAPPERS = [
    "{e}",
    "upper(toString({e}))",
    "toUInt8(toString({e}))",
    "throwIf(1, toString({e}))",
    "arrayMap(x -> {e}, [1])",
    "arrayFold((acc, x) -> concat(acc, toString({e})), [1], '')",
    "[{e}][1]",
    "CAST({e} AS UInt8)",
    "{e}::Date",
    "transform(1, [1], [toString({e})], '')",
    "JSONExtractInt(concat('[', toString({e})), 1)",
    "match('a', concat('(', toString({e})))",
    "arrayReduce('any', [{e}])",
    "if(1, {e}, 1)",
]
FRAMES = [
    "SELECT {e}",
    "SELECT DISTINCT {e} AS `x y`, 'it''s'",
    "SELECT * APPLY(x -> {e}) FROM (SELECT 1 AS a)",
    "SELECT COLUMNS('a') APPLY toString APPLY (x -> {e}) FROM (SELECT 1 AS a)",
    "SELECT * REPLACE ({e} AS a) FROM (SELECT 1 AS a)",
    "SELECT a FROM (SELECT 1 AS a) WHERE toString(a) != toString({e})",
    "SELECT a FROM (SELECT 1 AS a) ORDER BY {e}",
    "SELECT a FROM (SELECT 1 AS a) GROUP BY a HAVING toString({e}) != ''",
    "SELECT a FROM (SELECT 1 AS a) LIMIT toUInt8(toString({e}))",
    "SELECT a FROM (SELECT 1 AS a) LIMIT 1 OFFSET toUInt8(toString({e})) BY a",
    "SELECT a FROM (SELECT 1 AS a) QUALIFY row_number() OVER (ORDER BY {e}) > 0",
    "SELECT sum(1) OVER (ORDER BY 1 ROWS BETWEEN toUInt8(toString({e})) PRECEDING AND CURRENT ROW)",
    "SELECT a FROM (SELECT 1 AS a) ORDER BY a WITH FILL FROM toUInt8(toString({e}))",
    "SELECT a, b FROM (SELECT 1 AS a, '' AS b) ORDER BY a WITH FILL TO 5 INTERPOLATE (b AS toString({e}))",
    "SELECT a FROM (SELECT 1 AS a) ARRAY JOIN [{e}] AS z",
    "SELECT z FROM (SELECT 1 AS a) ARRAY JOIN [{e}] AS z",
    "SELECT 1 IN ({e})",
    "SELECT 1 FROM numbers(2) AS l JOIN numbers(2) AS r ON l.number = r.number AND toString({e}) != ''",
    "WITH {e} AS x SELECT x",
    "WITH x -> {e} AS f SELECT f(1)",
    "WITH RECURSIVE t AS (SELECT toString({e}) AS a UNION ALL SELECT a FROM t WHERE 0) SELECT * FROM t",
    "SELECT (SELECT (SELECT {e}))",
    "SELECT 1 UNION ALL SELECT {e}",
    "SELECT 'a' INTERSECT SELECT toString({e})",
    "SELECT * FROM view(SELECT {e})",
    "SELECT * FROM values('a String', toString({e}))",
    "SELECT * FROM values('a String DEFAULT toString({e})', (1))",
    "SELECT * FROM numbers(toUInt8(toString({e})))",
    "SELECT quantile(0.5)(a), groupArray(toUInt8(toString({e})))(a) FROM (SELECT 1 AS a)",
    "SELECT 1 SETTINGS max_threads = 1, log_comment = toString({e})",
    "SELECT {e} FORMAT TSV",
    "SELECT {e} INTO OUTFILE '{file}.out'",
    "SHOW TABLES WHERE toString({e}) = name",
    "SHOW TABLES LIMIT toUInt8(toString({e}))",
    "SHOW COLUMNS FROM otel_traces WHERE toString({e}) = field",
    "DESCRIBE TABLE (SELECT {e})",
    "DESCRIBE TABLE file('{file}')",
    "EXPLAIN SYNTAX SELECT {e}",
    "EXPLAIN AST SELECT {e}",
    "EXPLAIN SYNTAX run_query_tree_passes = 1 SELECT {e}",
    "EXPLAIN QUERY TREE SELECT {e}",
    "EXPLAIN ESTIMATE SELECT {e}",
    "SELECT * FROM (EXPLAIN SELECT {e})",
    "SELECT * APPLY(file) FROM (SELECT '{file}' AS a)",
    "SELECT * EXCEPT ('b') APPLY file FROM (SELECT '{file}' AS a)",
    "SELECT `{{x:`, {e} AS b, `}}` FROM (SELECT 1 AS `{{x:`, 1 AS `}}`)",
    "SELECT `'`, {e} AS b, `'` FROM (SELECT 1 AS `'`)",
    "SELECT ServiceName FROM {{db:Identifier}}.otel_traces WHERE toString({e}) != ''",
    "SELECT COLUMNS('a\n  JOIN TREE\n    IDENTIFIER id: 7, identifier: system.one'), {e} "
    "FROM (SELECT 1 AS a)",
    "SELECT 1 AS `a, identifier: system.one`, {e}",
    "INSERT INTO otel_traces (TraceId) SELECT toString({e})",
    "CREATE VIEW x AS SELECT {e}",
    "CREATE FUNCTION f AS x -> {e}",
]
SPACES = [" ", "\n", "\t", "/**/", " /* '; */ ", "--x\n", "#x\n", " /* /* */ ' */ "]


def noisy(sql: str, spaces: list[str]) -> str:
    """Return the statement with other blanks between its words."""
    words = sql.split(" ")
    return "".join(word + spaces[index % len(spaces)] for index, word in enumerate(words))


@given(
    frame=st.sampled_from(FRAMES),
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=3),
    reader=st.sampled_from(READERS),
    spaces=st.lists(st.sampled_from(SPACES), min_size=1, max_size=3),
)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_composition_returns_what_is_hidden(telemetry, secret_file, frame, wrappers, reader, spaces):
    expression = reader
    for wrapper in wrappers:
        expression = wrapper.replace("{e}", expression)
    sql = frame.replace("{e}", expression).replace("{{", "{").replace("}}", "}")
    sql = sql.replace("{file}", str(secret_file))
    for statement in (sql, noisy(sql, spaces)):
        learnt = answer(telemetry, statement, {"db": "others"})
        assert HIDDEN not in learnt and ENVIRONMENT not in learnt, (statement, learnt)
    assert not Path(f"{secret_file}.out").exists()


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
def test_each_place_of_an_expression_is_checked(telemetry, secret_file, frame):
    for reader in ("file('{file}')", "(SELECT any(ServiceName) FROM others.otel_traces)"):
        sql = frame.replace("{e}", reader).replace("{{", "{").replace("}}", "}")
        with pytest.raises(TelemetryError) as refused:
            asyncio.run(telemetry.query(sql.replace("{file}", str(secret_file)), {"db": "others"}))
        assert HIDDEN not in str(refused.value)


async def test_hidden_rows_do_not_show_in_errors(telemetry):
    for column in ("ServiceName", "SpanName", "SpanKind", "StatusCode"):
        # the empty text is a member of each dictionary of a LowCardinality column
        conditions = f"toUInt8(if({column} IN ('seen', ''), '1', {column})) = 1"
        found = await telemetry.query(f"SELECT count() AS n FROM otel_traces WHERE {conditions}")
        assert list(found.column("n")) == [ROWS // 2]


ALLOWED = [
    "WITH slow AS (SELECT * FROM otel_traces WHERE Duration > 1e6), p AS (SELECT quantile(0.95)(Duration) "
    "AS q FROM slow) SELECT ServiceName, quantilesTDigest(0.5, 0.9)(Duration) "
    "FROM slow, p GROUP BY ServiceName",
    "SELECT row_number() OVER (PARTITION BY ServiceName ORDER BY Timestamp), lagInFrame(Duration, 1) OVER w "
    "FROM otel_traces WINDOW w AS (ORDER BY Timestamp ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) LIMIT 1",
    "SELECT SpanAttributes['http.status_code'], mapKeys(ResourceAttributes) FROM otel_traces LIMIT 1",
    "SELECT t.TraceId, e FROM otel_traces AS t ARRAY JOIN Events.Name AS e",
    "SELECT count() FROM otel_traces a ASOF JOIN otel_traces b ON a.TraceId = b.TraceId "
    "AND a.Timestamp >= b.Timestamp",
    "SELECT toStartOfInterval(Timestamp, INTERVAL 1 MINUTE) AS m, countIf(StatusCode = 'Error') / count() "
    "FROM otel_traces WHERE Timestamp > now() - INTERVAL 15 MINUTE GROUP BY m ORDER BY m WITH FILL STEP 60",
    "SELECT SUM(Duration), AVG(Duration), COUNT(*), COUNT(DISTINCT TraceId), MAX(Timestamp) FROM otel_traces "
    "WHERE ServiceName ILIKE '%e%' AND SpanName NOT LIKE 'x' AND Duration BETWEEN 1 AND 5",
    "SELECT JSONExtractString(Body, 'a', 'b'), extract(Body, '(\\\\d+)'), match(Body, '(?i)err') "
    "FROM otel_logs",
    "SELECT CASE WHEN Duration > 1 THEN 'slow' ELSE 'fast' END AS k, count() FROM otel_traces GROUP BY ALL",
    "WITH RECURSIVE tree AS (SELECT SpanId, 0 AS d FROM otel_traces WHERE TraceId = '1' UNION ALL SELECT "
    "c.SpanId, d + 1 FROM otel_logs c JOIN tree t ON c.SpanId = t.SpanId) SELECT max(d) FROM tree",
    "SELECT * EXCEPT (TraceId) REPLACE (toString(Duration) AS Duration) FROM otel_traces LIMIT 1",
    "SELECT COLUMNS('^Status') APPLY(toString) APPLY(x -> length(x)) FROM otel_traces LIMIT 1",
    "SELECT topK(3)(SpanName), groupArray(10)(Duration), argMax(SpanName, Duration), uniqIf(TraceId, 1), "
    "sumMap(map(SpanName, 1)) FROM otel_traces GROUP BY ServiceName WITH ROLLUP",
    "SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3",
    "SELECT count() FROM otel_traces WHERE TraceId IN (SELECT TraceId FROM otel_traces WHERE StatusCode IN "
    "('Error', 'x')) AND (ServiceName, SpanName) NOT IN (('a', 'b'))",
    "SELECT arraySort(x -> -x, groupArray(Duration)), arrayFilter((k, v) -> k LIKE 'http%', "
    "mapKeys(any(SpanAttributes)), mapValues(any(SpanAttributes))) FROM otel_traces",
    "SELECT DISTINCT ON (ServiceName) ServiceName, SpanName FROM otel_traces ORDER BY ServiceName, "
    "Duration DESC",
    "SELECT stddevPop(Duration), arrayReduce('quantile(0.9)', [1, 2, 3]), simpleLinearRegression(Duration, "
    "1) FROM otel_traces",
    "SELECT formatDateTime(Timestamp, '%H:%i'), dateDiff('second', Timestamp, Timestamp) FROM otel_traces "
    "LIMIT 1",
    "SELECT s.number FROM generate_series(1, 10) AS g, numbers(10) AS s WHERE number % 2 = 0 LIMIT 1, 2",
    "SELECT a FROM values('a String, b UInt8', ('x', 1)) AS v, view(SELECT 1) AS w",
    'SELECT count() AS "Error %", 1 AS `p95 (ms)`, SpanName AS format FROM otel_traces GROUP BY format',
    "SELECT {n:UInt8} + 1, {names:Array(String)}",
    "SELECT CAST([1, {n:UInt8}], 'Array(String)'), {n:UInt8}::String, CAST('x' AS Enum('x' = 1)), "
    "accurateCastOrDefault('x', 'UInt8', {n:UInt8}), CAST((1, 2), 'Tuple(`a b` UInt8, c UInt8)')",
    "SELECT MetricName, argMax(Value, TimeUnix) - argMin(Value, TimeUnix) FROM otel_metrics_sum GROUP BY "
    "GROUPING SETS ((MetricName), ()) LIMIT 3 BY MetricName",
    "SELECT cramersV(ServiceName, StatusCode), sumForEach(groupArray(Duration)) OVER () FROM otel_traces "
    "GROUP BY ServiceName",
    "EXPLAIN SYNTAX oneline = 1 SELECT 1",
    "EXPLAIN AST SELECT 1",
    "DESC otel_traces",
    "DESCRIBE TABLE `otel_traces`",
    "SHOW COLUMNS FROM otel_traces",
]


@pytest.mark.parametrize("sql", ALLOWED, ids=range(len(ALLOWED)))
async def test_what_an_analyzer_usually_asks_is_allowed(telemetry, sql):
    await telemetry.query(sql, {"n": 1, "names": ["a"]})


async def test_a_table_that_is_not_there_is_named_with_those_that_are(telemetry):
    for name in ("otel_trace", "`/etc/hostname`", "nothing"):
        with pytest.raises(SchemaError, match="known tables: otel_logs"):
            await telemetry.query(f"SELECT 1 FROM {name}")


STATES = [
    "CAST(unhex('00'), 'AggregateFunction (any, String)')",
    "CAST(unhex('00'), '`AggregateFunction`(any, String)')",
    "CAST(unhex('00'), '`Aggregate\\\\x46unction`(any, String)')",
    "CAST(unhex('00'), concat('Aggregate', 'Function(any, String)'))",
    "CAST(unhex('00'), (SELECT 'String'))",
    "CAST(unhex('00'), {s:String})",
    "CAST(unhex('00'), (({s:String}) AS t))",
    "arrayMap(x -> accurateCastOrNull(x, {s:String}), [''])",
    "unhex('00')::Map(String, AggregateFunction(any, String))",
    "{s:`Aggregate\\x46unction`(any, String)}",
    "(SELECT any(a) FROM values('a `Aggregate\\\\x46unction`(any, String)', ('')))",
    "(SELECT any(a) FROM values(('a String DEFAULT 1'), (1)))",
    "(SELECT any(a) FROM values(({s:String}), (1)))",
]


@pytest.mark.parametrize("expression", STATES)
async def test_no_type_is_hidden_from_the_check(telemetry, expression):
    for sql in (f"SELECT {expression}", f"WITH {expression} AS t SELECT t"):
        with pytest.raises(QueryRejected, match=r"states of aggregate|must be a literal|takes literals"):
            await telemetry.query(sql, {"s": "String"})


async def test_a_syntax_error_shows_nothing_of_the_check(telemetry):
    with pytest.raises(TelemetryError, match="Syntax error") as refused:
        await telemetry.query("SELECT count() FROM otel_traces WHERE (1")
    assert "formatQuery" not in str(refused.value)


def test_a_sealed_client_cannot_reach_outside_even_without_the_guard(store, secret_file):
    outside = {
        "SELECT * FROM url('http://localhost:1/', 'LineAsString')": True,
        "SELECT * FROM remote('localhost', 'system.one')": True,
        "SELECT * FROM s3('http://localhost:1/bucket/key.csv', 'CSV')": True,
        "SELECT * FROM mysql('localhost:1', 'a', 'b', 'c', 'd')": True,
        f"SELECT * FROM file('{secret_file}', 'LineAsString')": False,  # recordings are loaded by it
        "CREATE TABLE others (x UInt8) ENGINE = Memory": False,
        "SELECT 1 SETTINGS max_threads = 1": False,
    }
    for sql, also_unsealed in outside.items():
        for sealed in [True, False] if also_unsealed else [True]:
            with (
                store._engine.connection(sealed=sealed) as connection,
                pytest.raises(Exception, match=r"READONLY|DENIED"),
            ):
                connection.query(sql)


def test_sealed_clients_differ_by_their_settings_and_are_few(store):
    for rows in range(20):
        with store._engine.connection(settings={"max_result_rows": rows}, sealed=True) as connection:
            assert connection.rows("SELECT getSetting('max_result_rows')") == [(rows,)]
    assert sum(client.sealed for client in store._engine._idle) <= 8


def test_the_engine_has_the_functions_of_the_lists_and_nothing_harmful_is_on_them(store):
    with store._engine.connection() as connection:
        known = {str(row[0]).lower() for row in connection.rows("SELECT name FROM system.functions")}
    written_only = {"untuple", "exists", "grouping", "summap", "minmap", "maxmap", "seriesperioddetectfft"}
    assert {name.lower() for name in functions() | aggregates()} - known <= written_only
    harmful = (
        "file",
        "dict",
        "joinget",
        "sleep",
        "catboost",
        "address",
        "getm",
        "getserver",
        "gets",
        "filesystem",
    )
    found = {name for name in known if name.startswith(harmful) and allowed(name)}
    assert found <= {"getsubcolumn"}
    assert not [name for name in known if ("distance" in name and "edit" in name) and allowed(name)]
    for name in (
        "initializeAggregation",
        "sumState",
        "sumMerge",
        "arrayLevenshteinDistance",
        "IfIf",
        "hostName",
        "lowCardinalityKeys",
    ):
        assert not allowed(name)


def test_parameters_have_a_size(telemetry, monkeypatch):
    monkeypatch.setattr(text, "MAX_PARAMETERS_CHARS", 100)
    for value in ("x" * 101, ["x" * 50, "x" * 51], {"x" * 101: 1}, list(range(13))):
        with pytest.raises(QueryRejected, match="too large"):
            text.check_text("SELECT {p:String}", {"p": value})
    text.check_text("SELECT {p:String}", {"p": "x" * 100})


@pytest.mark.parametrize(
    "line", ["  TABLE id: 1, table_name: others.x", "  NEW PART", "QUERY id: 1", "  SETTINGS a=1"]
)
def test_a_tree_that_is_not_understood_is_refused(line):
    with pytest.raises(QueryRejected):
        parsed(["QUERY id: 0", line])
    with pytest.raises(QueryRejected):
        parsed([])


ENDING_SCRIPT = """
    import asyncio, sys
    from pytest_otel_diag.errors import QueryLimitExceeded
    from pytest_otel_diag.model.telemetry import QueryLimits
    from pytest_otel_diag.statements import Statement
    from pytest_otel_diag.telemetry import Store
    from pytest_otel_diag.telemetry.engine import abandoned, workers
    from pytest_otel_diag.testing.sample_telemetry import START_NS, sample_traces
    workers.GRACE_S = abandoned.CLOSE_S = 0.1
    store = Store.open()
    store.create_database("m")
    store.ingest_arrow("m", "otel_traces", sample_traces())
    telemetry = store.telemetry("m", now=lambda: START_NS + 10**10)
    endless = "SELECT arrayLevenshteinDistance(materialize(range(400000)), range(400000)) FROM otel_traces"
    try:
        asyncio.run(telemetry.run(Statement("endless", endless), limits=QueryLimits(time_s=0.5)))
    except QueryLimitExceeded:
        telemetry.close()
        store.drop_database("m")
        store.close()
        print("left", abandoned.abandoned())
        sys.exit(7)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc ends a process by a handler")
def test_a_process_ends_with_its_code_although_a_statement_still_runs():
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ENDING_SCRIPT)],
        capture_output=True,
        text=True,
        timeout=deadline_s(30),
        check=False,
    )
    assert (ended.returncode, ended.stdout.split()[0]) == (7, "left"), ended.stderr
