"""Metrics as levels and rates, against what a person would reckon; resets, restarts, owners, drift."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import QueryRejected, SchemaError
from pytest_otel_diag.model.questions import LogKinds, MetricLevels
from pytest_otel_diag.model.telemetry import Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.telemetry.questions.answering import answer
from pytest_otel_diag.testing.sample_telemetry import (
    MINUTE,
    SECOND_NS,
    START_NS,
    gauge_table,
    sample_traces,
    sum_table,
)

TEXTS = pa.map_(pa.string(), pa.string())


def instants(seconds):
    return pa.array([START_NS + round(s * SECOND_NS) for s in seconds], pa.timestamp("ns", "UTC"))


def points(rows, **columns):
    """Rows of (at_s, service, metric, instance, attributes, begun_s); columns are the numbers."""
    table = {
        "TimeUnix": instants([row[0] for row in rows]),
        "ServiceName": [row[1] for row in rows],
        "MetricName": [row[2] for row in rows],
        "ResourceAttributes": pa.array([[("service.instance.id", row[3])] for row in rows], TEXTS),
        "Attributes": pa.array([list(row[4].items()) for row in rows], TEXTS),
        "StartTimeUnix": instants([row[5] for row in rows]),
    }
    return pa.table(table | columns)


def sums(rows, values, *, monotonic=True, temporality=2):
    return points(
        rows,
        Value=pa.array(values, pa.float64()),
        IsMonotonic=[monotonic] * len(rows),
        AggregationTemporality=pa.array([temporality] * len(rows), pa.int32()),
    )


def by_bucket(found, metric, kind):
    return {
        (row.bucket_start_ns - START_NS) / SECOND_NS: row.value
        for row in found
        if (row.metric, row.kind) == (metric, kind)
    }


async def ask(store, database, tables, *, bucket_s=10.0, services=("ad",), window=MINUTE):
    for name, table in tables:
        store.ingest_arrow(database, name, table)
    return await store.telemetry(database).metric_levels(window, bucket_s, list(services))


async def test_series_of_an_instance_add_up_and_instances_are_averaged(store, database):
    rows = [
        (5, "ad", "jvm.memory.used", instance, {"pool": pool}, 0)
        for instance in "ab"
        for pool in ("eden", "old")
    ]
    found = await ask(store, database, [("otel_metrics_sum", sums(rows, [10, 20, 30, 60], monotonic=False))])
    assert by_bucket(found, "jvm.memory.used", "level") == {0.0: 60.0}


async def test_idle_and_free_shares_are_left_out(store, database):
    table = pa.concat_tables(
        gauge_table([(5, "ad", "system.cpu.utilization", share)], state=state)
        for state, share in (("idle", 0.7), ("user", 0.2), ("system", 0.1))
    )
    found = await ask(store, database, [("otel_metrics_gauge", table)])
    assert by_bucket(found, "system.cpu.utilization", "level") == {0.0: pytest.approx(0.3)}


async def test_a_counter_that_falls_began_anew(store, database):
    table = sum_table([(5, "ad", "n", 100.0), (15, "ad", "n", 120.0), (25, "ad", "n", 30.0)])
    found = await ask(store, database, [("otel_metrics_sum", table)])
    assert by_bucket(found, "n", "rate") == {10.0: 2.0, 20.0: 3.0}


async def test_a_counter_whose_start_moved_counts_from_there(store, database):
    rows = [(5, "ad", "n", "a", {}, 0), (15, "ad", "n", "a", {}, 0), (25, "ad", "n", "a", {}, 21)]
    found = await ask(store, database, [("otel_metrics_sum", sums(rows, [100, 120, 200]))])
    assert by_bucket(found, "n", "rate") == {10.0: 2.0, 20.0: 50.0}
    assert by_bucket(found, "", "restarts") == {20.0: 1.0}


async def test_a_new_instance_is_a_restart_and_a_new_series_is_none(store, database):
    rows = [
        (5, "ad", "n", "a", {}, -100),
        (35, "ad", "n", "a", {"new": "yes"}, 30),  # a label that was not there before
        (35, "ad", "n", "a", {}, -100),
        (45, "ad", "n", "b", {}, 41),
    ]
    found = await ask(store, database, [("otel_metrics_sum", sums(rows, [1, 2, 3, 4]))])
    assert by_bucket(found, "", "restarts") == {40.0: 1.0}


async def test_deltas_say_themselves_since_when(store, database):
    rows = [(5, "ad", "n", "a", {}, -5), (15, "ad", "n", "a", {}, 5), (25, "ad", "n", "a", {}, 15)]
    found = await ask(store, database, [("otel_metrics_sum", sums(rows, [1, 20, 30], temporality=1))])
    assert by_bucket(found, "n", "rate") == {10.0: 2.0, 20.0: 3.0}


@pytest.mark.parametrize("table", ["otel_metrics_histogram", "otel_metrics_exponential_histogram"])
async def test_a_histogram_is_observations_and_their_sum_a_second(store, database, table):
    rows = [(5, "ad", "jvm.gc.duration", "a", {}, 0), (15, "ad", "jvm.gc.duration", "a", {}, 0)]
    columns = {
        "Count": pa.array([4, 24], pa.uint64()),
        "Sum": pa.array([1.0, 6.0], pa.float64()),
        "AggregationTemporality": pa.array([2, 2], pa.int32()),
    }
    found = await ask(store, database, [(table, points(rows, **columns))])
    assert by_bucket(found, "jvm.gc.duration", "count_rate") == {10.0: 2.0}
    assert by_bucket(found, "jvm.gc.duration", "sum_rate") == {10.0: 0.5}


@pytest.mark.parametrize("key", ["group", "messaging.consumer.group.name", "container.name"])
async def test_a_metric_belongs_to_whom_its_attributes_name(store, database, key):
    table = pa.concat_tables(
        [
            gauge_table([(5, "collector", "kafka.consumer_group.lag", 7.0)], **{key: "fraud-detection"}),
            gauge_table([(5, "collector", "kafka.consumer_group.lag", 1.0)], **{key: "accounting"}),
            gauge_table([(5, "fraud-detection", "own", 2.0)], group="accounting"),
        ]
    )
    found = await ask(store, database, [("otel_metrics_gauge", table)], services=["fraud-detection"])
    assert [(row.service, row.metric, row.value) for row in found] == [
        ("fraud-detection", "kafka.consumer_group.lag", 7.0),
        ("fraud-detection", "own", 2.0),
    ]


async def test_what_is_no_number_is_no_level(store, database):
    table = gauge_table([(5, "ad", "m", float("nan")), (6, "ad", "m", 3.0), (7, "ad", "m", float("inf"))])
    found = await ask(store, database, [("otel_metrics_gauge", table)])
    assert by_bucket(found, "m", "level") == {0.0: 3.0}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_rates_are_what_walking_through_the_points_gives(store, database, data):
    times = sorted(data.draw(st.sets(st.integers(-20, 80), min_size=1, max_size=9)))
    values = data.draw(st.lists(st.integers(0, 50), min_size=len(times), max_size=len(times)))
    # one database for all examples: making one costs more than asking
    service = f"ad {uuid.uuid4()}"
    rows = [(at_s, service, "n", "a", {}, -1000) for at_s in times]
    tables = [("otel_metrics_sum", sums(rows, values))]
    found = await ask(store, database, tables, bucket_s=1.0, services=[service])
    known, last = {}, None
    for at_s, value in zip(times, values, strict=True):
        if not 0 <= at_s < 60:
            continue
        if last is not None:
            grown = value - last[1] if value >= last[1] else value
            known[float(at_s)] = pytest.approx(grown / (at_s - last[0]))
        last = (at_s, value)
    assert by_bucket(found, "n", "rate") == known


async def test_tables_that_hold_nothing_are_not_asked(store, database, monkeypatch):
    store.ingest_arrow(database, "otel_metrics_gauge", gauge_table([(5, "ad", "m", 3.0)]))
    telemetry = store.telemetry(database)
    asked, run = [], telemetry.run

    async def noting(statement, *arguments):
        asked.append(statement.name)
        return await run(statement, *arguments)

    monkeypatch.setattr(telemetry, "run", noting)
    found = await telemetry.metric_levels(MINUTE, 10.0, ["ad"])
    assert by_bucket(found, "m", "level") == {0.0: 3.0}
    assert asked == ["table_rows", "metric_levels_gauge"]
    store.ingest_arrow(database, "otel_metrics_sum", sum_table([(5, "ad", "n", 1.0), (15, "ad", "n", 21.0)]))
    found = await telemetry.metric_levels(MINUTE, 10.0, ["ad"])
    assert by_bucket(found, "n", "rate") == {10.0: 2.0}


async def test_a_store_without_metrics_says_so():
    class Bare:
        def now(self):
            return None

        async def schema(self):
            return TelemetrySchema("otel", {"otel_traces": {}})

        async def spans_at_most(self):
            return 0

        async def rows_at_most(self, tables):
            return {}

        async def run(self, statement, parameters=None, limits=None):
            return Table((), ())

    with pytest.raises(SchemaError, match="otel_metrics_gauge"):
        await answer(Bare(), MetricLevels(MINUTE, 1.0, ("ad",)))
    with pytest.raises(SchemaError, match="otel_logs"):
        await answer(Bare(), LogKinds(MINUTE, 1.0, ("ad",)))


async def test_a_bucket_must_be_positive(store, database):
    store.ingest_arrow(database, "otel_traces", sample_traces())
    telemetry = store.telemetry(database)
    for ask_ in (
        telemetry.operation_health,
        telemetry.metric_levels,
        telemetry.log_counts,
        telemetry.log_kinds,
    ):
        with pytest.raises(QueryRejected, match="bucket"):
            await ask_(MINUTE, 0.0, ["ad"])
    with pytest.raises(QueryRejected, match="bucket"):
        await telemetry.service_health(Window(start_ns=0, end_ns=1), -1.0)
