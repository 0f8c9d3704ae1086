"""What the views of a session hide: evaluations of flags, and requests of this package."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pyarrow as pa
import pytest

from pytest_otel_diag.errors import QueryFailed, QueryRejected, SchemaError
from pytest_otel_diag.model.questions import FlagMentions, ServiceHealthOf
from pytest_otel_diag.model.telemetry import TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.recordings.leaks import Leaks
from pytest_otel_diag.telemetry.layout import Layout
from pytest_otel_diag.telemetry.leaks import Hidden
from pytest_otel_diag.telemetry.schema import evened_columns

T0 = 1_750_000_000_000_000_000
SECOND = 1_000_000_000
FLAGS = ("adFailure", "it's \\ odd (flag)")
OURS = "6f74656c2d646961672d666c61677300"
MAP, INSTANT = pa.map_(pa.string(), pa.string()), pa.timestamp("ns", "UTC")
EVERYTHING = Window(start_ns=T0 - SECOND, end_ns=T0 + 10**6 * SECOND)

TEXTS = (
    *("ok", "ADFAILURE is on", "see it's \\ odd (flag)!", "Feature flag set", "GET /flagservice/x y", ""),
    *("café", "flagd.evaluation.v1/Resolve", "grpc.flagd.x", "feature-flag"),
)
KEYS = ("http.route", "feature_flag.key", "app.Feature_Flag.x", "featureflag", "app.flag")


def random_spans(count: int) -> list[dict[str, Any]]:
    rng = random.Random(7)

    def attributes() -> dict[str, str]:
        return {key: rng.choice(TEXTS) for key in rng.sample(KEYS, rng.randrange(4))}

    return [
        {
            "service": rng.choice(("ad", "ad", "flagd", "flagd-ui", "cart")),
            "name": rng.choice(TEXTS),
            "trace": "a" * 32,
            "message": rng.choice(TEXTS),
            "attributes": attributes(),
            "events": [
                (rng.choice(("feature_flag.evaluation", "exception", "Feature_flag")), attributes())
                for _ in range(rng.randrange(3))
            ],
        }
        for _ in range(count)
    ]


def traces(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table(
        {
            "Timestamp": pa.array([T0 + index * SECOND for index in range(len(rows))], INSTANT),
            "TraceId": [row["trace"] for row in rows],
            "SpanId": [f"{index:016x}" for index in range(len(rows))],
            "ServiceName": [row["service"] for row in rows],
            "SpanName": [row["name"] for row in rows],
            "SpanKind": ["Server"] * len(rows),
            "StatusMessage": [row["message"] for row in rows],
            "SpanAttributes": pa.array([list(row["attributes"].items()) for row in rows], MAP),
            "Events.Timestamp": pa.array([[T0] * len(row["events"]) for row in rows], pa.list_(INSTANT)),
            "Events.Name": [[name for name, _ in row["events"]] for row in rows],
            "Events.Attributes": pa.array(
                [[list(found.items()) for _, found in row["events"]] for row in rows], pa.list_(MAP)
            ),
        }
    )


def logs(rows: list[tuple[str, str, dict[str, str]]]) -> pa.Table:
    return pa.table(
        {
            "Timestamp": pa.array([T0 + index * SECOND for index in range(len(rows))], INSTANT),
            "ServiceName": [service for service, _, _ in rows],
            "Body": [body for _, body, _ in rows],
            "EventName": [body for _, body, _ in rows],
            "LogAttributes": pa.array([list(found.items()) for _, _, found in rows], MAP),
        }
    )


def sums(names: list[str]) -> pa.Table:
    return pa.table(
        {
            "TimeUnix": pa.array([T0 + index * SECOND for index in range(len(names))], INSTANT),
            "ServiceName": ["ad"] * len(names),
            "MetricName": names,
            "Attributes": pa.array([[("feature_flag.key", "adFailure"), ("a", "b")]] * len(names), MAP),
            "Value": [1.0] * len(names),
        }
    )


SHOWN = ("Timestamp", "SpanName", "StatusMessage", "SpanAttributes", "Events.Name", "Events.Attributes")


def seen(telemetry: Any, sql: str) -> list[tuple[Any, ...]]:
    return list(asyncio.run(telemetry.query(sql)).rows())


@pytest.fixture
def views(store, database):
    opened = []

    def view(**hidden: Any) -> Any:
        telemetry = store.telemetry(database, hidden=Hidden(**hidden))
        opened.append(telemetry)
        return telemetry

    yield view
    for telemetry in opened:
        telemetry.close()


def test_the_views_redact_as_recordings_do(store, database, views):
    table = traces(random_spans(300))
    store.ingest_arrow(database, "otel_traces", table)
    telemetry = views(flags=FLAGS)
    columns = ", ".join(f"`{name}`" for name in SHOWN)
    found = seen(telemetry, f"SELECT {columns} FROM otel_traces ORDER BY Timestamp")
    expected = [
        tuple(
            dict(value)
            if name == "SpanAttributes"
            else [dict(each) for each in value]
            if name == "Events.Attributes"
            else value
            for name, value in row.items()
        )
        for batch in table.select([*SHOWN, "ServiceName"]).to_batches()
        for row in Leaks(FLAGS).redacted(batch).select(SHOWN).to_pylist()
    ]
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    slim = seen(telemetry, "SELECT operation FROM otel_traces_slim ORDER BY start_ns")
    assert [row[0] for row in slim] == [row[1] for row in expected]


@pytest.mark.parametrize(
    "condition",
    [
        "toUInt8(StatusMessage) > 1 AND ServiceName = 'flagd'",
        "toUInt8(StatusMessage) > 1",
        "toUInt8(SpanName) > 9",
    ],
)
def test_errors_of_the_engine_do_not_show_what_the_views_hide(store, database, condition):
    row = {"service": "ad", "name": "7", "trace": "a" * 32, "message": "7", "attributes": {}, "events": []}
    hidden = {**row, "service": "flagd", "name": "adFailure", "message": "adFailure"}
    for number, in_memory in enumerate((True, False)):
        name = f"{database} {number}"
        store.create_database(name, layout=Layout(in_memory=in_memory))
        rows = [row, hidden, {**row, "message": "adFailure"}]
        store.ingest_arrow(name, "otel_traces", traces(rows))
        telemetry = store.telemetry(name, hidden=Hidden(flags=FLAGS))
        try:
            answer = str(seen(telemetry, f"SELECT count() FROM otel_traces WHERE {condition}"))
        except (QueryFailed, QueryRejected) as error:
            answer = str(error)
        finally:
            telemetry.close()
            store.drop_database(name)
        assert "adFailure" not in answer and "executing" not in answer


def test_logs_and_metrics_are_redacted_and_keep_their_types(store, database, views):
    store.ingest_arrow(
        database,
        "otel_logs",
        logs([("ad", "adFailure on", {"feature_flag.key": "x", "b": "feature-flag"}), ("flagd", "x", {})]),
    )
    store.ingest_arrow(database, "otel_metrics_sum", sums(["feature_flag.flagd.impression", "calls"]))
    telemetry, plain = views(flags=("adFailure",)), views(trace_id=OURS)

    assert seen(telemetry, "SELECT Body, EventName, LogAttributes FROM otel_logs") == [
        ("redacted on", "redacted on", {"b": "redacted"})
    ]
    assert seen(telemetry, "SELECT MetricName, Attributes FROM otel_metrics_sum") == [("calls", {"a": "b"})]
    assert seen(plain, "SELECT count() FROM otel_logs") == [(2,)]
    schema, base = asyncio.run(telemetry.schema()), asyncio.run(plain.schema())
    for table, columns in base.tables.items():
        assert schema.tables[table].keys() == columns.keys()
        changed = {name for name, kind in columns.items() if schema.tables[table][name] != kind}
        assert all("String" in columns[name] for name in changed), changed


def test_the_traces_of_our_own_requests_are_hidden_in_both_relations(store, database, views):
    row = {"service": "flagd", "name": "x", "message": "", "attributes": {}, "events": []}
    store.ingest_arrow(
        database, "otel_traces", traces([{**row, "trace": OURS}, {**row, "trace": "b" * 32, "service": "ad"}])
    )
    telemetry = views(trace_id=OURS)

    assert seen(telemetry, "SELECT ServiceName FROM otel_traces") == [("ad",)]
    assert seen(telemetry, "SELECT service FROM otel_traces_slim") == [("ad",)]
    health = asyncio.run(telemetry.ask(ServiceHealthOf(EVERYTHING, 10**6)))
    assert [row.service for row in health] == ["ad"]


def test_attributes_of_an_unknown_type_are_never_shown_unredacted():
    hidden = Hidden(flags=("x",))
    with pytest.raises(SchemaError, match=r"SpanAttributes of otel_traces has the type JSON.*leaks=keep"):
        hidden.replacements("otel_traces", {"SpanAttributes": "JSON"})
    assert Hidden(trace_id=OURS).replacements("otel_traces", {"SpanAttributes": "JSON"}) == {}
    assert not Hidden() and Hidden(flags=())


def test_rows_that_name_the_injected_flag_are_counted_by_kind(store, database):
    row = {"service": "ad", "name": "GET", "trace": "a" * 32, "message": "", "attributes": {}, "events": []}
    store.ingest_arrow(
        database,
        "otel_traces",
        traces(
            [
                row,
                {**row, "events": [("feature_flag.evaluation", {"feature_flag.key": "adFailure"})]},
                {**row, "events": [("feature_flag.evaluation", {"feature_flag.key": "other"})]},
                {**row, "attributes": {"x": "/flags/adFailure"}},
                {**row, "message": "adFailure!"},
                {**row, "service": "flagd", "attributes": {"feature_flag.key": "adFailure"}},
                {**row, "service": "flagd"},
            ]
        ),
    )
    store.ingest_arrow(
        database, "otel_logs", logs([("ad", "ADFAILURE", {}), ("ad", "fine", {"a": "adFailure"})])
    )
    store.ingest_arrow(database, "otel_metrics_sum", sums(["calls"]))
    telemetry = store.telemetry(database)

    found = asyncio.run(telemetry.ask(FlagMentions(EVERYTHING, ("adFailure",))))
    assert {mention.kind: mention.rows for mention in found} == {
        "flag_service": 1,
        "flag_events": 1,
        "flag_attributes": 2,
        "flag_texts": 2,
        "flag_metrics": 1,
    }
    past = Window(start_ns=T0 - SECOND, end_ns=T0)
    assert asyncio.run(telemetry.ask(FlagMentions(past, ("adFailure",)))) == ()
    assert asyncio.run(telemetry.ask(FlagMentions(EVERYTHING, ("no flag", "x'y\\")))) == ()
    assert asyncio.run(telemetry.ask(FlagMentions(EVERYTHING, ()))) == ()


def test_attributes_that_are_json_are_redacted_as_the_maps_that_views_make_of_them(store):
    with_json = {"otel_logs": {"ServiceName": "String", "Body": "String", "LogAttributes": "JSON"}}
    evened = evened_columns(TelemetrySchema("x", with_json), "otel_logs")
    found = Hidden(flags=("x",)).replacements("otel_logs", with_json["otel_logs"], evened)
    assert set(found) == {"Body", "LogAttributes"}
    assert found["LogAttributes"].startswith("mapApply(") and "JSONAllPaths" in found["LogAttributes"]
