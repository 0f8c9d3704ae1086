"""Instruments, readers, receivers, and what the collector counts from spans."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.shop.emission.instruments import SDK_BOUNDS, SECONDS_BOUNDS, Meter, MetricShape
from pytest_otel_diag.shop.kernel import (
    DOTNET,
    GO,
    JVM,
    MB,
    NODE,
    PYTHON,
    RUBY,
    Call,
    ConsumerSpec,
    HeapSpec,
    Operation,
    RpcFailure,
    ServiceSpec,
    SpanShape,
    Steps,
    World,
)
from pytest_otel_diag.shop.records import HistogramValue, Instrument, MetricPoint, Resource
from tests.shop.kernel.tiny_world import BACK, SCOPE, ask, run, two_services, world

CALLS = MetricShape(Instrument("calls", "sum", "{call}"), SCOPE)
TIMES = MetricShape(Instrument("times", "histogram", "s"), SCOPE, SECONDS_BOUNDS)
LEVEL = MetricShape(Instrument("level", "gauge"), SCOPE)


def _taken(made: World) -> dict[str, list[MetricPoint]]:
    by_name: dict[str, list[MetricPoint]] = defaultdict(list)
    for point in made.recorder.take(made.now_ns, made.now_ns).metrics:
        by_name[point.instrument.name].append(point)
    return by_name


@given(st.lists(st.floats(-1e4, 2e4, allow_nan=False), min_size=1))
def test_a_histogram_counts_every_value_in_the_bucket_that_includes_its_upper_bound(
    values: list[float],
) -> None:
    meter = Meter(Resource("s", {}), 0)
    shape = MetricShape(Instrument("h", "histogram"), SCOPE)
    for value in values:
        meter.observe(shape, value)
    (point,) = meter.collect(1, 2)
    found = point.value
    assert isinstance(found, HistogramValue)
    edges = (float("-inf"), *SDK_BOUNDS, float("inf"))
    expected = [sum(low < value <= high for value in values) for low, high in pairwise(edges)]
    assert list(found.counts) == expected
    assert found.count == len(values)
    assert found.sum == pytest.approx(sum(values), abs=1e-6)
    assert (found.minimum, found.maximum) == (min(values), max(values))


def test_instruments_are_cumulative_and_kept_apart_by_attributes() -> None:
    meter = Meter(Resource("s", {}), 7)
    for code in ("200", "200", "500"):
        meter.add(CALLS, 1.0, (("code", code),))
    meter.set(LEVEL, 3.0)
    meter.set(LEVEL, 2.0)
    meter.callback(LEVEL, lambda: [((("of", "callback"),), 9.0)])
    first = meter.collect(10, 20)
    meter.add(CALLS, 1.0, (("code", "200"),))
    second = meter.collect(30, 40)
    assert [(point.attributes, point.value) for point in first] == [
        ({"of": "callback"}, 9.0),
        ({"code": "200"}, 2.0),
        ({"code": "500"}, 1.0),
        ({}, 2.0),
    ]
    assert second[1].value == 3.0
    assert {point.start_ns for point in first + second} == {7}
    assert (second[0].time_ns, second[0].exported_ns) == (30, 40)


def test_a_process_reports_at_its_period_and_counters_never_fall() -> None:
    def behaviour(call: Call, request: Any) -> Steps:
        call.count(CALLS, 1.0, (("kind", "a"),))
        call.observe(TIMES, 0.02)
        yield from call.work(0.001)
        return request

    made = two_services(operations={"Answer": Operation(behaviour, BACK)})
    ask(made, 250, 1.0)
    run(made, 300)
    points = _taken(made)
    values = [float(point.value) for point in points["calls"]]  # type: ignore[arg-type]
    times = [point.time_ns for point in points["calls"]]
    assert len(values) == 5
    assert values == sorted(values)
    assert {round((b - a) / 1e9) for a, b in pairwise(times)} == {60}
    histogram = points["times"][-1].value
    assert isinstance(histogram, HistogramValue)
    assert histogram.count == values[-1]


def test_a_span_shape_measures_its_durations() -> None:
    def failing(call: Call, request: Any) -> Steps:
        yield from call.wait(0.25)
        if request % 2:
            raise RpcFailure("INTERNAL", "odd")

    shape = SpanShape("Answer", "Server", SCOPE, duration=TIMES, duration_series=(("code", "OK"),),
                      failed_series=lambda failure: (("code", failure.code),))  # fmt: skip
    plain = SpanShape("Answer", "Server", SCOPE, duration=MetricShape(
        Instrument("millis", "histogram", "ms"), SCOPE))  # fmt: skip
    made = two_services(operations={"Answer": Operation(failing, shape), "Plain": Operation(failing, plain)})
    ask(made, 10, 1.0)
    made.spawn(Call.root(made.service("front").instances[0]).request("back", "Plain", 2))
    run(made, 80)
    points = _taken(made)
    by_code = {point.attributes["code"]: point.value for point in points["times"]}
    for code in ("OK", "INTERNAL"):
        value = by_code[code]
        assert isinstance(value, HistogramValue)
        assert value.count == 5
        assert value.sum == pytest.approx(1.25, rel=0.01)
    millis = points["millis"][-1]
    assert isinstance(millis.value, HistogramValue)
    assert millis.value.sum == pytest.approx(250, rel=0.01)


def _runtime(policy: Any, **heap: Any) -> tuple[World, dict[str, list[MetricPoint]]]:
    def behaviour(call: Call, request: Any) -> Steps:
        yield from call.work(0.02)
        call.allocate(2 * MB)
        return request

    spec = HeapSpec(policy, live_bytes=40 * MB, **heap)
    made = two_services(operations={"Answer": Operation(behaviour, BACK)}, heap=spec)
    ask(made, 500, 0.5)
    run(made, 300)
    return made, _taken(made)


def _last(points: dict[str, list[MetricPoint]], name: str, **attributes: Any) -> float:
    found = [point for point in points[name] if attributes.items() <= dict(point.attributes).items()]
    return float(found[-1].value)  # type: ignore[arg-type]


def test_a_jvm_reports_collections_memory_and_cpu() -> None:
    made, points = _runtime(JVM, max_bytes=200 * MB)
    heap = made.service("back").instances[0].heap
    durations = points["jvm.gc.duration"][-1].value
    assert isinstance(durations, HistogramValue)
    assert 0 < durations.count <= heap.collections["minor"]
    assert _last(points, "jvm.memory.used", **{"jvm.memory.pool.name": "Tenured Gen"}) == 40 * MB
    assert _last(points, "jvm.memory.limit") == 200 * MB
    # 2 a second times 20 ms on eight cores
    assert _last(points, "jvm.cpu.recent_utilization") == pytest.approx(0.04 / 8, rel=0.5)
    assert _last(points, "jvm.cpu.time") == pytest.approx(0.04 * 260, rel=0.3)


def test_a_jvm_without_a_maximum_reports_no_limit() -> None:
    _, points = _runtime(JVM)
    assert "jvm.memory.limit" not in points


def test_goroutines_and_their_leak_are_reported() -> None:
    made, points = _runtime(GO)
    before = _last(points, "go.goroutine.count")
    made.service("back").instances[0].goroutines += 300
    run(made, 90)
    assert _last(_taken(made), "go.goroutine.count") == before + 300
    assert _last(points, "go.memory.used", **{"go.memory.type": "other"}) > 40 * MB


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (DOTNET, "dotnet.gc.collections"),
        (NODE, "v8js.gc.duration"),
        (PYTHON, "process.runtime.cpython.memory"),
    ],
)
def test_other_runtimes_report_in_their_own_names(policy: Any, name: str) -> None:
    _, points = _runtime(policy)
    mine = {point.instrument.name for group in points.values() for point in group}
    assert name in mine
    assert all(point.resource.service == "back" for point in points[name])


def test_ruby_reports_no_runtime_metrics() -> None:
    _, points = _runtime(RUBY)
    assert not points


def test_the_collector_observes_every_container_but_no_browser() -> None:
    made = two_services(heap=HeapSpec(JVM, limit_bytes=200 * MB, base_bytes=60 * MB, live_bytes=40 * MB))
    made.add(ServiceSpec("browser", contained=False))
    made.add(ServiceSpec("pair", replicas=2))
    made.start_collector(kafka=False)
    ask(made, 100, 0.5)
    made.service("back").instances[0].hog(1)
    run(made, 61)
    points = _taken(made)
    names = {str(point.resource.attributes["container.name"]) for point in points["container.memory.percent"]}
    assert names == {"front", "back", "user", "pair-1", "pair-2"}
    of_back = [
        point for group in points.values() for point in group
        if point.resource.attributes.get("container.name") == "back"
    ]  # fmt: skip
    last = {point.instrument.name: point.value for point in of_back}
    assert all(point.resource.service == "" for point in of_back)
    # one thread spins
    assert last["container.cpu.utilization"] == pytest.approx(100, abs=5)
    assert float(last["container.memory.percent"]) >= 50  # type: ignore[arg-type]
    assert float(last["container.network.io.usage.rx_bytes"]) > 0  # type: ignore[arg-type]
    assert "kafka.brokers" not in points


def test_a_new_process_is_a_new_container() -> None:
    made = two_services(restart_s=1.0, startup_s=1.0)
    made.start_collector(kafka=False)
    run(made, 30)
    made.service("back").instances[0].kill("test")
    run(made, 60)
    ids = {
        str(point.resource.attributes["container.id"])
        for point in _taken(made)["container.memory.percent"]
        if point.resource.attributes["container.name"] == "back"
    }
    assert len(ids) == 2


def test_the_kafka_receiver_reports_offsets_and_lag() -> None:
    made = world()
    made.broker.topic("orders", 2)

    def stuck(call: Call, _: Any) -> Steps:
        yield from call.wait(1e6)

    made.add(ServiceSpec("fraud", consumers=(ConsumerSpec("orders", "fraud", stuck),)))
    made.add(ServiceSpec("checkout"))
    made.start_collector()

    def produce() -> Steps:
        for number in range(9):
            yield from Call.root(made.service("checkout").instances[0]).publish("orders", number, key=number)

    made.spawn(produce())
    run(made, 40)
    points = _taken(made)
    assert _last(points, "kafka.consumer_group.lag_sum", group="fraud", topic="orders") == 9
    assert _last(points, "kafka.consumer_group.lag", partition=0) == 5
    assert _last(points, "kafka.partition.current_offset", partition=1) == 4
    assert _last(points, "kafka.consumer_group.offset_sum") == 0
    assert _last(points, "kafka.topic.partitions") == 2
    assert _last(points, "kafka.consumer_group.members") == 1


def test_span_metrics_count_the_received_spans() -> None:
    made = two_services()
    made.start_collector(kafka=False)
    ask(made, 100, 0.5)
    run(made, 200)
    batch = made.recorder.take(made.now_ns, made.now_ns)
    calls = [p for p in batch.metrics if p.instrument.name == "traces.span.metrics.calls"]
    durations = [p for p in batch.metrics if p.instrument.name == "traces.span.metrics.duration"]
    last = {(p.attributes["service.name"], p.attributes["span.kind"]): p.value for p in calls}
    assert last == {
        ("user", "SPAN_KIND_CLIENT"): 100.0,
        ("front", "SPAN_KIND_SERVER"): 100.0,
        ("front", "SPAN_KIND_CLIENT"): 100.0,
        ("back", "SPAN_KIND_SERVER"): 100.0,
    }
    (back,) = [p.value for p in durations[-4:] if p.attributes["service.name"] == "back"]
    served = sum(span.duration_ns for span in batch.spans if span.resource.service == "back") / 1e6
    assert isinstance(back, HistogramValue)
    assert back.sum == pytest.approx(served)
