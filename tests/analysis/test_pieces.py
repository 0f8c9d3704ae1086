"""Pieces of the analyzer by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.analyzers.builtin import gather, robust_statistics, scores
from pytest_otel_diag.analyzers.builtin.diagnostic_query import literal, query_for
from pytest_otel_diag.analyzers.builtin.evidence import traces as kinds_traces
from pytest_otel_diag.analyzers.builtin.evidence.deviations import (
    BlameShare,
    Finding,
    Group,
    Hit,
    Kind,
    Words,
    finding,
)
from pytest_otel_diag.analyzers.builtin.evidence.observations import (
    GAP,
    MAGNITUDE,
    MatrixBuilder,
    Metrics,
    Observations,
    Operation,
    SeriesKey,
    empty_matrix,
    row_of,
)
from pytest_otel_diag.analyzers.builtin.evidence.restarts import outgrown
from pytest_otel_diag.analyzers.builtin.mechanism import mechanism_of
from pytest_otel_diag.analyzers.builtin.paths import IncidentPath, critical_paths
from pytest_otel_diag.analyzers.builtin.ranking import Candidate, rank, reachable, shares
from pytest_otel_diag.analyzers.builtin.scores import Scores
from pytest_otel_diag.analyzers.builtin.slots import Slots, plan
from pytest_otel_diag.analyzers.builtin.templates import FIRST_ID, Body, mine
from pytest_otel_diag.analyzers.builtin.vocabulary import meaning
from pytest_otel_diag.model.diagnosis import Mechanism, Signal
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.statements import KEY_MAX
from pytest_otel_diag.telemetry import Store
from tests.analysis.worlds import BASELINE, INCIDENT


@pytest.mark.parametrize(
    ("metric", "unit", "signal", "mechanism"),
    [
        ("process.cpu.utilization", "1", Signal.CPU, Mechanism.CPU),
        ("CpuUsageRate", "%", Signal.CPU, Mechanism.CPU),
        ("jvm.gc.duration", "s", Signal.GC, Mechanism.GC),
        ("jvm.memory.used", "By", Signal.MEMORY, Mechanism.MEMORY),
        ("kafka.consumer.records_lag", "1", Signal.QUEUE, Mechanism.QUEUE),
        ("http.server.request.duration", "s", Signal.LATENCY, Mechanism.LATENCY),
        ("k8s.container.restarts", "1", Signal.RESTART, None),
        ("system.network.io", "By", Signal.NETWORK, None),
        ("availability", "%", Signal.ERROR_RATE, Mechanism.ERROR),
        ("requests", "", Signal.REQUEST_RATE, Mechanism.TRAFFIC),
        ("p99", "ms", Signal.LATENCY, Mechanism.LATENCY),
        ("k6.http_req_waiting", "ms", Signal.LATENCY, Mechanism.LATENCY),
        ("pool.waiting", "{thread}", Signal.QUEUE, Mechanism.QUEUE),
        ("spaceships", "", Signal.METRIC, None),
    ],
)
def test_metric_names_are_understood(
    metric: str, unit: str, signal: Signal, mechanism: Mechanism | None
) -> None:
    assert meaning(metric, unit) == (signal, mechanism)


def test_templates_join_bodies_that_differ_in_a_word() -> None:
    bodies = [
        Body(1, "a", "INFO", "order <*> of alice placed at <*>"),
        Body(2, "a", "INFO", "order <*> of bob placed at <*>"),
        Body(3, "a", "ERROR", "cannot reach the database"),
        Body(1, "b", "INFO", "order <*> of alice placed at <*>"),
    ]
    found = mine(bodies)
    assert found.bodies == (1, 2, 3)
    assert found.template_of_body[0] == found.template_of_body[1] != found.template_of_body[2]
    assert min(found.by_id) == FIRST_ID + 1
    assert mine([]).by_id == {}


@given(st.text())
def test_literals_have_no_way_out(text: str) -> None:
    quoted = literal(text)
    inside = quoted[1:-1].replace("\\\\", "").replace("\\'", "")
    assert "'" not in inside
    assert not any(ord(c) < 32 for c in quoted)


async def test_literals_come_back_as_they_were(telemetry: Telemetry) -> None:
    for text in ("it's", "a\\'b", "tab\tnewline\nnul\x01", "ünï→", "{x:String} %(y)s"):
        answer = await telemetry.query(f"SELECT {literal(text)} AS service")
        assert answer.column("service")[0] == text


def still(
    z: float, service: str, group: Group, mechanism: Mechanism = Mechanism.ERROR, direction: str = "up"
) -> Hit:
    table = np.array([[z]])
    scored = Scores(table, table, np.zeros(1), np.ones(1), 10, np.ones(1, dtype=bool))
    result = Finding(service, "op", Signal.CPU, mechanism, direction, 0.0, 1.0, "", "traces", "t")  # type: ignore[arg-type]
    kind = Kind(group, group, scored, lambda _: iter([BlameShare(0, service)]), lambda *_: result)
    return Hit(kind, 0, service, 1.0, z)


def test_callers_do_not_outrank_the_culprit() -> None:
    hits = [
        still(20.0, "caller", Group.FLOW),
        still(12.0, "culprit", Group.FLOW),
        still(13.0, "bystander", Group.FLOW),
    ]
    below = reachable({"caller": {"middle"}, "middle": {"culprit", "caller"}})
    ranked = rank(hits, below, ["caller", "middle", "culprit", "bystander"])
    assert [candidate.service for candidate in ranked] == ["bystander", "culprit", "caller", "middle"]
    assert ranked[2].explained_by == "culprit"


def test_agreement_beats_one_wild_signal() -> None:
    hits = [
        still(100.0, "wild", Group.METRIC),
        still(12.0, "steady", Group.SELF),
        still(12.0, "steady", Group.EDGE),
        still(11.0, "steady", Group.EDGE),
        still(12.0, "steady", Group.METRIC),
    ]
    assert rank(hits, {}, [])[0].service == "steady"
    assert rank(hits, {}, [], without=[Group.SELF, Group.EDGE])[0].service == "wild"


@given(st.lists(st.floats(-1, 800), max_size=8), st.booleans())
def test_confidences_leave_room_for_nobody(found: list[float], graph: bool) -> None:
    result = shares(found, graph=graph)
    assert sum(result) <= 1.0 + 1e-9
    assert all(0.0 <= share <= 1.0 for share in result)
    assert all(share == 0.0 for share, score in zip(result, found, strict=True) if score <= 0)


def told_of(*hits: Hit) -> Mechanism | None:
    candidate = Candidate("s", {hit.group: hit for hit in hits})
    return mechanism_of(candidate, [(hit.strength, hit.finding()) for hit in hits])


def test_a_resource_explains_slowness_and_strong_ones_explain_errors() -> None:
    slow = still(50.0, "s", Group.SELF, Mechanism.LATENCY)
    failing = still(50.0, "s", Group.ERROR)
    cpu = still(5.0, "s", Group.METRIC, Mechanism.CPU)
    assert told_of(slow) is Mechanism.LATENCY
    assert told_of(slow, cpu) is Mechanism.CPU
    assert told_of(failing, cpu) is Mechanism.ERROR
    assert told_of(failing, still(40.0, "s", Group.METRIC, Mechanism.MEMORY)) is Mechanism.MEMORY
    assert told_of(slow, still(9.0, "s", Group.METRIC, Mechanism.CPU, "down")) is Mechanism.LATENCY
    assert told_of() is None


def test_outgrown_memory_explains_whatever_else_there_is_but_collections() -> None:
    def result(*hits: Hit) -> Mechanism | None:
        candidate = Candidate("s", {hit.group: hit for hit in hits})
        return mechanism_of(candidate, [(hit.strength, hit.finding()) for hit in hits], outgrown=True)

    slow = still(50.0, "s", Group.SELF, Mechanism.LATENCY)
    assert result(slow) is Mechanism.MEMORY
    assert result(still(50.0, "s", Group.ERROR)) is Mechanism.MEMORY
    assert result(slow, still(9.0, "s", Group.METRIC, Mechanism.CPU)) is Mechanism.MEMORY
    assert result(slow, still(40.0, "s", Group.METRIC, Mechanism.GC)) is Mechanism.GC
    assert result() is None


@given(
    st.lists(st.tuples(st.integers(0, 99), st.floats(0, 300)), min_size=1, max_size=6),
    st.lists(st.integers(0, 99), max_size=3),
    st.floats(0, 200),
)
def test_only_what_peaks_before_a_start_is_outgrown(
    points: list[tuple[int, float]], begun: list[int], usual: float
) -> None:
    rows = [
        ("s", "process.memory.usage", "By", usual, 9, points),
        ("s", "process.cpu.utilization", "1", 0.1, 9, [(0, 99.0)]),
        ("never ends", "process.memory.usage", "By", 1.0, 9, [(0, 99.0)]),
    ]
    found = outgrown({"s": begun}, rows)
    high = [value for at_ns, value in points if begun and at_ns < max(begun) and value > 1.25 * usual > 0]
    assert {service: one.peak for service, one in found.items()} == ({"s": max(high)} if high else {})


def test_the_level_that_rose_most_is_told() -> None:
    rows = [
        ("s", "container.memory.usage", "By", 100.0, 9, [(1, 190.0)]),
        ("s", "process.memory.usage", "By", 10.0, 9, [(1, 25.0)]),
        ("s", "go.memory.used", "By", 10.0, 9, [(1, 20.0)]),
    ]
    assert str(outgrown({"s": [2]}, rows)["s"]) == (
        "process.memory.usage rose above all quiet time (10 → 25 By) before the process began anew"
    )


def gap_world(moved: dict[tuple[str, str], float]) -> Observations:
    """Gaps of several edges: 1 ms in ten quiet slots, *moved* in the incident."""
    slots = Slots(INCIDENT, tuple(plan(INCIDENT, BASELINE, ()).quiet[:10]), (), 0)
    builder = MatrixBuilder(slots.count)
    operations: dict[int, Operation] = {}
    for number, ((caller, callee), gap) in enumerate(moved.items()):
        op, child = 10 * number + 10, 10 * number + 11
        operations[op] = Operation(caller, f"call {callee}", "Client", 10, 0)
        operations[child] = Operation(callee, "handle", "Server", 10, 0)
        values = [gap, *[1.0] * 10]
        cells = {name: [0.0] * 11 for name in ("took_mid", "took_high", "failed", "origins", "lonely")}
        cells |= {"counts": [20.0] * 11, "low": values, "mid": values, "high": values}
        builder.add(GAP, (op, 0, child), range(11), cells)
    return Observations(slots, operations, builder.matrices())


def blamed(moved: dict[tuple[str, str], float]) -> dict[str, float]:
    kind = kinds_traces.gaps(gap_world(moved), list(range(1, 11)))
    found: dict[str, float] = {}
    for blame in kind.blame(0):
        found[blame.service] = max(found.get(blame.service, 0.0), blame.share)
        assert kind.describe(blame.row, blame.service).signal is Signal.NETWORK
    return found


def test_users_waiting_is_explained_by_what_they_call() -> None:
    hits = [still(400.0, "users", Group.SELF), still(5.0, "proxy", Group.SELF)]
    order = ["users", "proxy"]
    assert rank(hits, {"users": {"proxy"}}, order)[0].service == "users"
    assert rank(hits, {"users": {"proxy"}}, order, clients=["users"])[0].service == "proxy"
    assert rank(hits[:1], {"users": {"proxy"}}, order, clients=["users"])[0].service == "users"


def test_a_gap_is_held_against_the_callee_by_the_share_of_callers_that_see_it() -> None:
    assert blamed({("a", "x"): 50.0, ("b", "x"): 50.0, ("a", "y"): 1.0}) == {"x": 1.0}
    assert blamed({("a", "x"): 50.0, ("b", "x"): 1.0, ("c", "x"): 1.0}) == {"x": pytest.approx(1 / 3)}


def test_gaps_to_everybody_are_the_callers_own() -> None:
    found = blamed({("a", "x"): 50.0, ("a", "y"): 50.0, ("a", "z"): 50.0})
    assert found["a"] == 1.0
    assert found["x"] == 0.0


def test_shares_of_success_count_in_points() -> None:
    slots = Slots(INCIDENT, tuple(plan(INCIDENT, BASELINE, ()).quiet[:10]), (), 0)
    series = (
        SeriesKey("s", "s", "availability", "%", "", "otel_metrics_gauge"),
        SeriesKey("s", "s", "threads", "", "", "otel_metrics_gauge"),
    )
    row = np.array([90.0, *[100.0] * 10])
    nothing = np.full(11, np.nan)
    metrics = Metrics.of(dict.fromkeys(series, (row, nothing, nothing)), slots.count)
    found = scores.levels(metrics, list(range(1, 11)))
    wider = robust_statistics.few_slots(np.array([10.0]))[0]
    assert found.z[0, 0] == pytest.approx(-10.0 / wider)
    assert found.z[1, 0] == pytest.approx(-0.4 / wider)


def counter(hits: list[float]) -> Metrics:
    """One counter, a slot of 60 s each; the first is the incident."""
    row = np.array(hits)
    key = SeriesKey("s", "s", "orders", "1", "", "otel_metrics_sum")
    return Metrics.of({key: (row / 60, row, np.full(len(row), 60.0))}, len(row))


def test_one_event_where_there_is_none_is_no_deviation() -> None:
    quiet = [0.0] * 10
    reference = list(range(1, 11))
    assert abs(scores.levels(counter([1.0, *quiet]), reference).z[0, 0]) < robust_statistics.Z_FLOOR
    assert scores.levels(counter([12.0, *quiet]), reference).z[0, 0] > robust_statistics.Z_FLOOR


def test_events_that_come_in_bunches_stay_quiet() -> None:
    rng = np.random.default_rng(6)
    orders = rng.poisson(1.5, (500, 13))
    items = np.vectorize(lambda n: rng.integers(1, 10, n).sum())(orders).astype(float)
    z = [scores.levels(counter(list(hits)), list(range(1, 13))).z[0, 0] for hits in items]
    assert np.mean(np.abs(z) > robust_statistics.Z_FLOOR) <= 0.04


def test_what_twice_the_traffic_explains_is_no_deviation() -> None:
    hits = [200.0, *[100.0] * 12]
    reference, load = list(range(1, 13)), np.ones((1, 13))
    load[0, 0] = 1.95
    assert scores.levels(counter(hits), reference).z[0, 0] > robust_statistics.Z_FLOOR
    assert abs(scores.levels(counter(hits), reference, load).z[0, 0]) < 1.0


@pytest.mark.parametrize("mean", [0.1, 1, 5, 50])
def test_counters_that_only_vary_as_events_do_stay_quiet(mean: float) -> None:
    draws = np.random.default_rng(5).poisson(mean, (500, 13)).astype(float)
    z = [scores.levels(counter(list(hits)), list(range(1, 13))).z[0, 0] for hits in draws]
    assert np.mean(np.abs(z) > robust_statistics.Z_FLOOR) <= 0.03


def test_what_did_not_happen_before_was_zero() -> None:
    nan = np.nan
    rows = {
        ("errors", "sum"): ([0.5, nan, nan], [30, nan, nan], [60, nan, nan]),
        ("jvm.gc.duration", "histogram"): ([0.5, nan, nan], [nan] * 3, [0.0] * 3),
        ("latency", "histogram"): ([2.0, nan, nan], [nan] * 3, [0.0] * 3),
        ("requests", "sum"): ([1.0, 1.0, nan], [60, 60, nan], [60, 60, nan]),
    }
    made = {
        SeriesKey("s", "s", metric, "s", "", f"otel_metrics_{table}"): tuple(map(np.array, cells))
        for (metric, table), cells in rows.items()
    }
    found = Metrics.of(made, 3).filled()
    np.testing.assert_array_equal(found.levels, [[0.5, 0, nan], [0.5, 0, nan], [2, nan, nan], [1, 1, nan]])
    np.testing.assert_array_equal(found.hits[0], [30, 0, nan])
    np.testing.assert_array_equal(found.seconds[0], [60, 60, nan])


def test_few_calls_that_take_far_longer_are_seen_where_the_median_is_not() -> None:
    slots = plan(INCIDENT, BASELINE, ())
    columns = slots.count
    builder = MatrixBuilder(columns)
    names = ("low", "mid", "high", "took_mid", "took_high", "failed", "origins", "lonely")
    for magnitude, count, times in ((6, 90.0, columns), (9, 10.0, 1)):
        cells = {name: [0.0] * times for name in names} | {"counts": [count] * times}
        builder.add(MAGNITUDE, (7, magnitude, 0), range(times), cells)
    seen = Observations(slots, {7: Operation("shipping", "ship", "Server", 1, 0)}, builder.matrices())
    kind = kinds_traces.tails(seen, list(range(1, columns)))
    assert [
        (blame.service, kind.describe(blame.row, blame.service).direction) for blame in kind.blame(0)
    ] == [("shipping", "up")]
    assert not list(kind.blame(1))


def metrics_of(*keys: SeriesKey) -> Metrics:
    row = np.zeros(3)
    return Metrics.of({key: (row + index, row, row) for index, key in enumerate(keys)}, 3)


def series_of(service: str, metric: str, attributes: str = "") -> SeriesKey:
    return SeriesKey(service, service, metric, "", attributes, "otel_metrics_gauge")


def test_whom_a_series_speaks_of() -> None:
    found = metrics_of(
        series_of("cart", "process.cpu"),
        series_of("Checkout", "memory"),
        series_of("", "kafka.consumer_group.lag", "group=fraud-detection,topic=orders"),
        series_of("", "kafka.brokers"),
        series_of("postgres", "postgresql.backends"),
        series_of("", "copies", "from=cart,to=checkout"),
    ).spoken_of({"cart", "checkout", "fraud-detection"})
    assert [(key.owner, key.metric) for key in found.keys] == [
        ("cart", "process.cpu"),
        ("checkout", "memory"),
        ("fraud-detection", "kafka.consumer_group.lag"),
        ("postgres", "postgresql.backends"),
    ]
    assert found.levels[:, 0].tolist() == [0.0, 1.0, 2.0, 4.0]


def test_metrics_made_from_spans_are_left_to_the_spans() -> None:
    both = metrics_of(
        series_of("cart", "traces.span.metrics.calls", "span.kind=SPAN_KIND_SERVER,span.name=GetCart"),
        series_of("cart", "calls", "span_name=GetCart"),
        series_of("cart", "lifespan.name", "wingspan.name=x"),
    )
    assert [key.metric for key in both.spoken_of({"cart"}).keys] == ["lifespan.name"]
    assert len(both.spoken_of(set())) == 3


def test_no_observations_no_kinds_fail() -> None:
    slots = plan(INCIDENT, BASELINE, ())
    nothing = Observations(slots)
    assert nothing.services == []
    assert nothing.signals == ()
    assert nothing.callees() == {}
    assert len(empty_matrix(3)) == 0


def test_quantiles_of_slices_are_averaged_by_their_counts() -> None:
    builder = MatrixBuilder(2)
    rest = {name: [0.0] for name in ("low", "high", "took_mid", "took_high", "failed", "origins", "lonely")}
    builder.add(1, (5, 0, 0), [0], {**rest, "counts": [10.0], "mid": [1.0]})
    builder.add(1, (5, 0, 0), [0], {**rest, "counts": [30.0], "mid": [5.0]})
    matrix = builder.matrices()[1]
    assert matrix.counts.tolist() == [[40.0, 0.0]]
    assert matrix.mid[0, 0] == 4.0
    assert np.isnan(matrix.mid[0, 1])
    assert row_of(3, [1], [2.0], 0.0).tolist() == [0.0, 2.0, 0.0]


def test_above_five_million_spans_a_share_of_traces_is_read() -> None:
    all_of = gather._slices(1_000_000)
    assert all_of == [{"key_from": 0, "key_to": KEY_MAX}]
    some = gather._slices(24_000_000)
    assert len(some) == 4
    assert some[-1]["key_to"] < KEY_MAX // 4


def path(*services: str, spent: float, failing: float = 0.0) -> IncidentPath:
    return IncidentPath(services, 10, 5.0, 9.0, failing, spent)


def test_paths_to_suspects_come_first() -> None:
    found = critical_paths(
        [path("a", spent=100.0), path("a", "b", spent=60.0), path("a", "b", "c", spent=1.0), path(spent=9.0)],
        ["c", "b"],
        detected=True,
    )
    assert [one.endService for one in found] == ["c", "b", "a"]
    assert [one.priority for one in found] == ["critical", "low", "low"] or found[1].priority == "medium"
    quiet = critical_paths([path("a", spent=0.0)], [], detected=False)
    assert (quiet[0].severity, quiet[0].priority) == (0.0, "low")
    through = critical_paths([path("a", "c", "d", spent=1.0)], ["c"], detected=True)
    assert through[0].priority == "high"


def test_numbers_in_words() -> None:
    table = np.array([[4.0]])
    scored = Scores(table, np.array([[12345.6]]), np.array([np.nan]), np.ones(1), 10, np.ones(1, dtype=bool))
    result = finding(scored, 0, "s", Words(None, Signal.METRIC, None, "By", "metrics", "m"))
    assert result.text == "m: nothing → 12,346 By"
    assert result.baseline is None


def test_the_query_follows_the_source_of_the_evidence() -> None:
    base = still(9.0, "s", Group.SELF).finding()
    series = [SeriesKey("s", "s", "pool.wait", "s", "", "otel_metrics_histogram")]
    quiet = [Window(start_ns=0, end_ns=5)]
    metric = query_for(replace(base, source="metrics", text="pool.wait: 1 → 2"), series, INCIDENT, quiet)
    assert "Sum / Count" in metric.sql
    assert "otel_logs" in query_for(replace(base, source="logs"), series, INCIDENT, quiet).sql
    other = query_for(replace(base, source="metrics", text="unknown"), series, INCIDENT, quiet)
    assert "otel_traces" in other.sql


async def test_stores_without_some_tables(store: Store) -> None:
    """A store that holds only metrics, as a metrics-only backend would."""
    name = "analysis_partial"
    store.create_database(name)
    full = store.telemetry(name)
    schema = await full.schema()
    bare = replace(schema, tables={t: c for t, c in schema.tables.items() if t == "otel_metrics_gauge"})
    found = gather.Gatherer(full, bare, plan(INCIDENT, BASELINE, ()))
    try:
        seen = await found.gather()
        assert seen.services == []
        assert await found.exemplars("x") == ()
    finally:
        store.drop_database(name)


def test_metrics_named_in_another_case_speak_of_the_traced_service() -> None:
    names = ("Front", "cart", "CART", "Mail", "MAIL", "alone")
    owned = metrics_of(*(series_of(name, "cpu") for name in names)).spoken_of(
        {"front", "cart", "mail", "Mail"}
    )
    assert {series.service: series.owner for series in owned.keys} == {
        "Front": "front",
        "cart": "cart",
        "CART": "cart",
        "Mail": "Mail",
        "MAIL": "MAIL",  # two traced services are written alike: nobody's guess is as good as none
        "alone": "alone",
    }
