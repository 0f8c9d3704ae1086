"""Records as rows of the exporter's tables: every column and value, in a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.shop.emission import rows
from pytest_otel_diag.shop.records import (
    Batch,
    EventRecord,
    HistogramValue,
    Instrument,
    LinkRecord,
    LogRecord,
    MetricPoint,
    Resource,
    Scope,
    SpanRecord,
)
from pytest_otel_diag.telemetry.store import Store
from tests.shop.kernel.tiny_world import ask, run, two_services

RESOURCE = Resource("cart", {"service.name": "cart", "service.instance.id": "i-1"})
OTHER = Resource("ad", {"service.name": "ad", "empty": ""})
SCOPE = Scope("lib", "1.2")
AT = 1_767_600_000_123_456_789
GAUGE = Instrument("g", "gauge", "1", "what")
LEVEL = Instrument("s", "sum", "By", monotonic=False)

_texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8
)
_values = st.one_of(_texts, st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False))
_attributes = st.dictionaries(_texts, _values, max_size=4)
_instants = st.integers(1_600_000_000 * 10**9, 1_900_000_000 * 10**9)
_spans = st.builds(
    SpanRecord,
    exported_ns=_instants,
    start_ns=_instants,
    duration_ns=st.integers(0, 10**13),
    trace_id=st.from_regex(r"\A[0-9a-f]{32}\Z"),
    span_id=st.from_regex(r"\A[0-9a-f]{16}\Z"),
    parent_id=st.just("") | st.from_regex(r"\A[0-9a-f]{16}\Z"),
    name=_texts,
    kind=st.sampled_from(["Internal", "Server", "Client", "Producer", "Consumer"]),
    resource=st.sampled_from([RESOURCE, OTHER]),
    scope=st.sampled_from([SCOPE, Scope("")]),
    attributes=_attributes,
    status=st.sampled_from(["Unset", "Ok", "Error"]),
    message=_texts,
    events=st.lists(st.builds(EventRecord, _instants, _texts, _attributes), max_size=3).map(tuple),
    links=st.lists(
        st.builds(LinkRecord, st.from_regex(r"\A[0-9a-f]{32}\Z"), st.just("ab" * 8), _attributes), max_size=2
    ).map(tuple),
)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with Store.open() as opened:
        yield opened


@pytest.fixture
def database(store: Store) -> Iterator[str]:
    store.create_database("rows_under_test")
    yield "rows_under_test"
    store.drop_database("rows_under_test")


async def _all(store: Store, database: str, sql: str) -> list[dict[str, Any]]:
    telemetry = store.telemetry(database)
    try:
        return list((await telemetry.query(sql)).dicts())
    finally:
        telemetry.close()


def _strings(attributes: Any) -> dict[str, str]:
    return {key: rows.text(value) for key, value in attributes.items()}


@settings(max_examples=25, deadline=None)
@given(st.lists(_spans, min_size=1, max_size=6))
def test_every_value_of_a_span_is_in_its_row(spans: list[SpanRecord]) -> None:
    for row, span in zip(rows.traces(spans).to_pylist(), spans, strict=True):
        assert row["Timestamp"].value == span.start_ns
        assert (row["TraceId"], row["SpanId"], row["ParentSpanId"]) == span[3:6]
        assert (row["SpanName"], row["SpanKind"], row["ServiceName"]) == (
            span.name,
            span.kind,
            span.resource.service,
        )
        assert dict(row["ResourceAttributes"]) == span.resource.attributes
        assert (row["ScopeName"], row["ScopeVersion"]) == (span.scope.name, span.scope.version)
        assert dict(row["SpanAttributes"]) == _strings(span.attributes)
        assert (row["Duration"], row["StatusCode"], row["StatusMessage"]) == (
            span.duration_ns, span.status, span.message
        )  # fmt: skip
        assert [at.value for at in row["Events.Timestamp"]] == [event.time_ns for event in span.events]
        assert row["Events.Name"] == [event.name for event in span.events]
        assert list(map(dict, row["Events.Attributes"])) == [_strings(e.attributes) for e in span.events]
        assert row["Links.TraceId"] == [link.trace_id for link in span.links]
        assert row["Links.SpanId"] == [link.span_id for link in span.links]
        assert list(map(dict, row["Links.Attributes"])) == [_strings(one.attributes) for one in span.links]


def test_values_are_written_as_the_exporter_writes_them() -> None:
    values = ("text", True, False, 3, 2.0, 0.25, -7)
    assert [rows.text(value) for value in values] == ["text", "true", "false", "3", "2", "0.25", "-7"]


async def test_a_batch_reads_back_from_the_engine(store: Store, database: str) -> None:
    histogram = HistogramValue(3, 6.5, (1, 2, 0), (0.5, 5.0), 0.25, 4.0)
    batch = Batch(
        spans=[
            SpanRecord(AT, AT, 5_000_000, "ab" * 16, "cd" * 8, "", "GET /", "Server", RESOURCE, SCOPE,
                       {"n": 1}, "Error", "no", (EventRecord(AT + 1, "exception", {"exception.type": "E"}),),
                       (LinkRecord("ef" * 16, "01" * 8, {}),))
        ],
        logs=[LogRecord(AT, AT, RESOURCE, SCOPE, "WARN", 13, "body", {"k": True}, "ab" * 16, "cd" * 8, "ev"),
              LogRecord(AT, AT + 5, OTHER, SCOPE, "INFO", 9, "plain", {})],
        metrics=[
            MetricPoint(AT, AT, AT - 9, RESOURCE, SCOPE, GAUGE, {"a": "b"}, 1.5),
            MetricPoint(AT, AT, AT - 9, RESOURCE, SCOPE, LEVEL, {}, 2.0),
            MetricPoint(AT, AT, AT - 9, RESOURCE, SCOPE, Instrument("h", "histogram", "s"), {}, histogram),
        ],
    )  # fmt: skip
    made = rows.tables(batch)
    assert set(made) == {
        "otel_traces", "otel_logs", "otel_metrics_gauge", "otel_metrics_sum", "otel_metrics_histogram"
    }  # fmt: skip
    for name, table in made.items():
        assert store.ingest_arrow(database, name, table) == table.num_rows

    (span,) = await _all(store, database, "SELECT * FROM otel_traces")
    assert (span["Timestamp"], span["Duration"], span["StatusCode"]) == (AT, 5_000_000, "Error")
    assert span["Events.Name"] == ["exception"]
    assert span["Events.Timestamp"] == [AT + 1]
    assert span["Links.TraceId"] == ["ef" * 16]
    (slim,) = await _all(store, database, "SELECT * FROM otel_traces_slim")
    assert (slim["service"], slim["error"], slim["instance"], slim["start_ns"]) == ("cart", 1, "i-1", AT)
    logs = await _all(store, database, "SELECT * FROM otel_logs ORDER BY Timestamp")
    assert [(log["Body"], log["TraceFlags"], log["EventName"]) for log in logs] == [
        ("body", 1, "ev"), ("plain", 0, "")
    ]  # fmt: skip
    assert logs[0]["LogAttributes"] == {"k": "true"}
    (gauge,) = await _all(store, database, "SELECT * FROM otel_metrics_gauge")
    assert (gauge["MetricName"], gauge["Value"], gauge["Attributes"]) == ("g", 1.5, {"a": "b"})
    (total,) = await _all(store, database, "SELECT * FROM otel_metrics_sum")
    assert (total["IsMonotonic"], total["AggregationTemporality"], total["StartTimeUnix"]) == (
        False,
        2,
        AT - 9,
    )
    (spread,) = await _all(store, database, "SELECT * FROM otel_metrics_histogram")
    assert (spread["BucketCounts"], spread["ExplicitBounds"]) == ([1, 2, 0], [0.5, 5.0])
    assert (spread["Count"], spread["Sum"], spread["Min"], spread["Max"]) == (3, 6.5, 0.25, 4.0)


async def test_every_span_of_a_run_is_in_the_store(store: Store, database: str) -> None:
    made = two_services()
    made.start_collector()
    ask(made, 300, 0.1)
    run(made, 90)
    batch = made.recorder.take(made.now_ns, made.now_ns)
    for name, table in rows.tables(batch).items():
        store.ingest_arrow(database, name, table)
    found = await _all(
        store, database,
        "SELECT ServiceName AS service, SpanKind AS kind, count() AS n, sum(Duration) AS spent "
        "FROM otel_traces GROUP BY service, kind",
    )  # fmt: skip
    wanted: dict[tuple[str, str], list[int]] = {}
    for span in batch.spans:
        wanted.setdefault((span.resource.service, span.kind), []).append(span.duration_ns)
    assert {(row["service"], row["kind"]): (row["n"], row["spent"]) for row in found} == {
        key: (len(durations), sum(durations)) for key, durations in wanted.items()
    }


def test_an_empty_batch_gives_no_table() -> None:
    assert rows.tables(Batch()) == {}
