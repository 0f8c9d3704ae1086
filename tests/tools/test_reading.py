"""What each tool reads of small telemetry in chDB, whole and broken."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from pytest_otel_diag.model.telemetry import SPANS_TABLE, TelemetrySchema
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.analyzer_contract import BASELINE, INCIDENT, ODD_NAME, incident_traces
from pytest_otel_diag.testing.sample_telemetry import logs_table, span, traces_table
from pytest_otel_diag.tools import ALIASES, TOOLS, Caps, Toolbox, ToolError
from pytest_otel_diag.tools.functions import paths
from tests.support.clickhouse_server import clickhouse_server
from tests.support.investigations import investigation_over

READING = [tool.name for tool in (*TOOLS, *ALIASES) if tool.name not in {"submit_diagnosis"}]
ARGUMENTS = {
    "query": {"sql": "SELECT * FROM otel_traces"},
    "run_query": {"query": "SELECT * FROM otel_traces"},
    "get_trace": {"pick": "failed"},
}


def dicts(rows) -> list[dict]:
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.rows]


def by_service(rows) -> dict:
    return {row["service"]: row for row in dicts(rows)}


async def refused(box: Toolbox, name: str, arguments) -> str:
    with pytest.raises(ToolError) as caught:
        await box.call(name, arguments)
    return str(caught.value)


class Without(Telemetry):
    """Telemetry of a database that lacks tables."""

    def __init__(self, inner, *tables: str) -> None:
        self._inner = inner
        self._tables = tables

    async def query(self, sql, parameters=None, limits=None):
        return await self._inner.query(sql, parameters, limits)

    async def schema(self):
        found = await self._inner.schema()
        kept = {name: columns for name, columns in found.tables.items() if name not in self._tables}
        return TelemetrySchema(found.database, kept)

    async def ask(self, question):
        return await self._inner.ask(question)


async def test_services_with_what_they_do_and_whom_they_call(box):
    found = by_service((await box.call("list_services", {})).services)
    assert set(found) == {"front", "middle", ODD_NAME}
    assert found["front"]["calls"] == ["middle"]
    assert found["middle"]["requests"] == 120
    assert found["middle"]["requests_per_min"] == 120
    assert found[ODD_NAME]["error_ratio"] == 0.5
    assert found[ODD_NAME]["p95_ms"] == pytest.approx(510, rel=0.01)
    assert (found["middle"]["log_lines"], found["middle"]["severe_log_lines"]) == (60, 20)
    assert found["middle"]["metrics"] == 1
    quiet = by_service((await box.call("list_services", {"window": "baseline"})).services)
    assert quiet[ODD_NAME]["error_ratio"] == 0


async def test_a_comparison_has_figures_of_all_signals_and_no_verdict(box):
    found = await box.call("compare_windows", {})
    operations = {(row["service"], row["operation"]): row for row in dicts(found.operations)}
    slow = operations[ODD_NAME, "op"]
    assert (slow["error_ratio"], slow["error_ratio_before"]) == (0.5, 0)
    assert slow["p95_ms"] / slow["p95_ms_before"] == pytest.approx(8.5, rel=0.05)
    (lines,) = dicts(found.logs)
    assert (lines["severe_per_min"], lines["severe_per_min_before"]) == (20, 0)
    first, *_ = dicts(found.metrics)
    assert (first["service"], first["metric"], first["kind"]) == ("middle", "process.memory", "level")
    assert (first["mean"], first["mean_before"]) == (162.5, 102.5)
    text = found.model_dump_json().lower()
    assert not any(word in text for word in ("cause", "culprit", "suspect", "score", "anomal"))


async def test_a_comparison_keeps_to_services_and_signals(box):
    found = await box.call("compare_windows", {"services": ["middle"], "signals": ["traces"]})
    assert {row["service"] for row in dicts(found.operations)} == {"middle"}
    assert found.logs is None and found.metrics is None


async def test_critical_paths_name_the_chain_and_where_its_time_goes(box):
    found = await box.call("critical_paths", {"service": "middle"})
    (path,) = dicts(found.paths)
    assert path["services"] == ["front", "middle", ODD_NAME]
    assert (path["requests"], path["time_share"]) == (120, 1)
    own = {(row["service"], row["operation"]): row for row in dicts(found.own_time)}
    assert own[ODD_NAME, "op"]["own_ms"] == pytest.approx(505, rel=0.01)
    assert own["middle", "op"]["own_ms"] == own["middle", "op"]["own_ms_before"]
    assert sum(row["time_share"] for row in own.values()) == pytest.approx(1, abs=0.01)


async def test_of_many_spans_a_share_of_whole_traces_is_read(box, monkeypatch):
    monkeypatch.setattr(paths, "SPANS_MAX", 480)
    found = await box.call("critical_paths", {})
    assert found.sampled_ratio == 0.5
    (path,) = dicts(found.paths)
    assert 80 < path["requests"] + path["requests_before"] < 160


async def test_templates_of_log_lines_before_and_after(box):
    found = dicts((await box.call("log_templates", {"service": "middle"})).templates)
    assert [row["template"] for row in found] == ["order <*> refused by", "order <*> took <*> ms"]
    assert (found[0]["lines"], found[0]["lines_before"], found[0]["severity"]) == (20, 0, "ERROR")
    severe = await box.call("log_templates", {"severe_only": True, "contains": "REFUSED"})
    assert len(severe.templates.rows) == 1
    assert not (await box.call("log_templates", {"contains": "50% off_'"})).templates.rows


async def test_a_trace_as_a_tree_with_own_times(box):
    picked = await box.call("get_trace", {"service": ODD_NAME, "pick": "failed"})
    found = await box.call("get_trace", {"trace_id": picked.trace_id.upper()})
    rows = dicts(found.spans)
    assert [row["depth"] for row in rows] == [0, 1, 2, 3]
    assert [row["service"] for row in rows] == ["front", "front", "middle", ODD_NAME]
    assert rows[3]["own_ms"] == rows[3]["duration_ms"] > 500
    assert rows[2]["own_ms"] == pytest.approx(15)
    assert all(row["on_critical_path"] for row in rows)
    assert (found.span_count, found.failed_count) == (4, 3)


async def test_a_long_trace_keeps_what_failed_with_its_parents(tool_store):
    tool_store.create_database("long trace")
    rows = [span("t1", f"{n}", "" if n == 0 else "0", at_s=61, ms=5, operation=f"o{n}") for n in range(300)]
    rows.append(span("t1", "x", "7", ms=9, at_s=61, error=True))
    tool_store.ingest_arrow("long trace", "otel_traces", traces_table(rows))
    box = Toolbox(investigation_over(tool_store.telemetry("long trace")))
    found = await box.call("get_trace", {"trace_id": " t1 "})
    assert (found.span_count, found.failed_count) == (301, 1)
    assert found.spans.truncated and found.spans.rows_left_out == 301 - len(found.spans.rows)
    shown = dicts(found.spans)
    assert next(row for row in shown if row["failed"])["depth"] == 2
    assert "o7" in {row["operation"] for row in shown}
    assert shown[0]["operation"] == "o0"


async def test_a_trace_shows_attributes_events_and_lines(tool_store):
    tool_store.create_database("one trace")
    texts = pa.map_(pa.string(), pa.string())
    attributes = [("thread.id", "7"), ("http.route", "/x" * 500), ("error.type", "IOError")]
    row = span("t1", "a", at_s=61, ms=5, error=True)
    spans = traces_table([{**row, "SpanAttributes": attributes}])
    for name, values, kind in (
        ("StatusMessage", ["disk full"], pa.string()),
        ("Events.Name", [["exception"]], pa.list_(pa.string())),
        ("Events.Timestamp", [[0]], pa.list_(pa.timestamp("ns", "UTC"))),
        ("Events.Attributes", [[[("exception.message", "no space")]]], pa.list_(texts)),
    ):
        spans = spans.append_column(name, pa.array(values, kind))
    lines = logs_table([(61.001, "front", "ERROR", "cannot write"), (61.002, "front", "INFO", "other")])
    lines = lines.append_column("TraceId", pa.array(["t1", "t2"]))
    tool_store.ingest_arrow("one trace", "otel_traces", spans)
    tool_store.ingest_arrow("one trace", "otel_logs", lines)
    found = await Toolbox(investigation_over(tool_store.telemetry("one trace"))).call("get_trace", {})
    (shown,) = dicts(found.spans)
    assert list(shown["attributes"]) == ["status_message", "error.type", "http.route"]
    assert shown["attributes"]["status_message"] == "disk full"
    assert len(shown["attributes"]["http.route"]) <= 200
    assert shown["events"] == ["exception no space"]
    (line,) = dicts(found.log_lines)
    assert (line["at_ms"], line["severity"], line["body"]) == (1.0, "ERROR", "cannot write")


async def test_tables_with_meanings_and_samples(box):
    found = await box.call("describe_tables", {})
    tables = {row["table"]: row for row in dicts(found.tables)}
    assert (tables["otel_traces"]["rows_in_incident"], tables["otel_traces"]["rows_in_baseline"]) == (
        480,
        480,
    )
    assert tables["otel_metrics_histogram"]["rows_in_incident"] == 0
    meanings = {(row["table"], row["column"]): row["meaning"] for row in dicts(found.columns)}
    assert meanings["otel_traces", "Duration"] == "nanoseconds"
    sampled = await box.call("describe_tables", {"tables": ["otel_traces"]})
    samples = {row["column"]: row["samples"] for row in dicts(sampled.columns)}
    assert samples["SpanName"] == ["GET /", "call", "op"]
    assert samples["ResourceAttributes"] == ["k8s.pod.name", "service.name"]


async def test_prompts_for_mcp_clickhouse_work(box):
    (database,) = (await box.call("list_databases", {})).databases
    for name in (database, "default"):
        tables = {
            row["name"]: row["columns"]
            for row in dicts((await box.call("list_tables", {"database": name})).tables)
        }
        assert "ServiceName LowCardinality(String)" in tables["otel_logs"]
    assert (await box.call("run_query", {"query": "SELECT 1 AS one"})).rows == ((1,),)
    assert "the telemetry is in" in await refused(box, "list_tables", {"database": "system"})


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("compare_windows", {"services": ["midle"]}, ("'midle'", "did you mean 'middle'", "front")),
        ("critical_paths", {"service": "midle"}, ("did you mean 'middle'",)),
        ("log_templates", {"service": "midle"}, ("did you mean 'middle'",)),
        ("log_templates", {"service": "front"}, ("'front' has no such telemetry",)),
        ("get_trace", {"service": "midle"}, ("did you mean 'middle'",)),
        ("get_trace", {"service": "front", "operation": "none"}, ("no span none of front",)),
        ("get_trace", {"pick": "failed", "window": "baseline"}, ("no failed span",)),
        ("get_trace", {"trace_id": "' OR 1=1 --"}, ("no span of the trace",)),
        ("get_trace", {"pick": "fastest"}, ("pick: ", "'slowest' or 'failed'")),
        ("describe_tables", {"tables": ["otel_trace"]}, ("did you mean 'otel_traces'",)),
        ("describe_tables", {"tables": ["x`; DROP"]}, ("there is no table",)),
        ("compare_windows", {"signals": ["trace"]}, ("signals.0", "'traces', 'logs' or 'metrics'")),
        ("compare_windows", {"signals": []}, ("no telemetry of no signal",)),
    ],
)
async def test_what_is_not_there_is_answered_with_what_is(box, name, arguments, said):
    text = await refused(box, name, arguments)
    for part in said:
        assert part in text


@pytest.mark.parametrize("name", READING)
async def test_every_result_keeps_within_the_smallest_caps(telemetry, name):
    caps = Caps(rows=3, characters=4_000, cell_characters=40)
    found = await Toolbox(investigation_over(telemetry), caps=caps).call(name, ARGUMENTS.get(name, {}))
    text = found.model_dump_json()
    assert len(text) <= caps.characters
    json.loads(text)


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("kind", ["dirty", "nothing"])
async def test_broken_and_missing_telemetry_is_answered_or_refused_with_a_reason(request, kind, name):
    box = Toolbox(investigation_over(request.getfixturevalue(kind)))
    try:
        found = await box.call(name, ARGUMENTS.get(name, {}))
    except ToolError as error:
        assert len(str(error)) > 20
    else:
        json.loads(found.model_dump_json())


async def test_of_partial_signals_each_tool_shows_what_there_is(telemetry):
    box = Toolbox(investigation_over(Without(telemetry, "otel_traces", SPANS_TABLE, "otel_metrics_gauge")))
    assert by_service((await box.call("list_services", {})).services)["middle"]["log_lines"] == 60
    found = await box.call("compare_windows", {})
    assert found.operations is None
    assert found.logs is not None and found.metrics is not None
    for name in ("critical_paths", "get_trace"):
        assert "no table 'otel_traces'" in await refused(box, name, {})
    box = Toolbox(investigation_over(Without(telemetry, "otel_logs")))
    assert "no table 'otel_logs'" in await refused(box, "log_templates", {})
    assert (await box.call("get_trace", {"service": "middle"})).span_count == 4


async def test_without_tables_the_reason_is_said(telemetry):
    names = (await telemetry.schema()).tables
    box = Toolbox(investigation_over(Without(telemetry, *names)))
    for name in ("list_services", "describe_tables"):
        assert "there are no tables of telemetry" in await refused(box, name, {})
    assert "this session has none" in await refused(box, "compare_windows", {})


async def test_a_call_is_few_metered_queries_that_find_something(telemetry):
    investigation = investigation_over(telemetry)
    box = Toolbox(investigation)
    for name, most in (("list_services", 2), ("compare_windows", 5), ("critical_paths", 3), ("get_trace", 2)):
        before = len(investigation.telemetry.records)
        await box.call(name, ARGUMENTS.get(name, {}))
        asked = investigation.telemetry.records[before:]
        assert len(asked) <= most
        assert all(record.rows and record.data_sources and not record.error for record in asked), name


async def test_windows_by_name_and_by_bounds(telemetry):
    later = INCIDENT.moved(1)
    reference = (BASELINE,)
    box = Toolbox(investigation_over(telemetry, baseline=None, reference=reference))
    found = await box.call("compare_windows", {"signals": ["traces"]})
    assert (found.window.name, found.against.name) == ("incident", "reference")
    period = {"start_ns": INCIDENT.start_ns, "end_ns": str(INCIDENT.start_ns + 10_000_000_000)}
    for given in (period, json.dumps(period), {**period, "start_ns": float(INCIDENT.start_ns)}):
        found = await box.call("list_services", {"window": given})
        assert (found.window.name, found.window.seconds) == ("period", 10)
    assert "no baseline window; it has incident, reference" in await refused(
        box, "list_services", {"window": "baseline"}
    )
    assert "lies outside of the session" in await refused(
        box, "list_services", {"window": {"start_ns": later.start_ns, "end_ns": later.end_ns + 10**9}}
    )


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ("yesterday", "a window is"),
        (7, "a window is"),
        ([], "a window is"),
        ({"start_ns": 1}, "a window is"),
        ({"start_ns": 1.5, "end_ns": 2}, "a window is"),
        ({"start_ns": 1, "end_ns": 2, "zone": "UTC"}, "a window is"),
        ("{" * 100_000, "a window is"),
        ({"start_ns": 1_700_000_060, "end_ns": 1_700_000_120}, "in nanoseconds"),
        ({"start_ns": INCIDENT.end_ns, "end_ns": INCIDENT.start_ns}, "holds no time"),
        ({"start_ns": 0, "end_ns": 10**30}, "lies outside of the session"),
        ({"start_ns": -(10**30), "end_ns": INCIDENT.end_ns}, "lies outside of the session"),
    ],
)
async def test_a_window_that_is_none_is_refused(box, window, said):
    text = await refused(box, "list_services", {"window": window})
    assert said in text
    assert len(text) < 1_000


async def test_windows_that_overlap_are_counted_once(box):
    whole = {"start_ns": BASELINE.start_ns, "end_ns": INCIDENT.end_ns}
    found = await box.call("compare_windows", {"against": whole, "signals": ["traces"]})
    assert found.against.seconds == 60
    assert "same time" in await refused(box, "compare_windows", {"window": "baseline"})


async def test_every_tool_reads_a_server(telemetry):
    with clickhouse_server() as server, Store.open(server.dsn()) as store:
        store.create_database("served")
        store.ingest_arrow("served", "otel_traces", incident_traces())
        served = Toolbox(investigation_over(store.telemetry("served")))
        embedded = Toolbox(investigation_over(telemetry))
        for name in READING:
            assert (await served.call(name, ARGUMENTS.get(name, {}))).model_dump_json()
        for name, arguments in (("critical_paths", {}), ("compare_windows", {"signals": ["traces"]})):
            assert await served.call(name, arguments) == await embedded.call(name, arguments)
