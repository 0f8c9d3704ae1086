"""Self time, calls and critical paths against a plain-Python oracle, over traces of every odd shape."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pytest_otel_diag import telemetry as questions
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.testing.telemetry_contract import SECOND_NS, START_NS, span, traces_table
from tests.telemetry.path_oracle import Span, Trace, own_time

_examples = itertools.count()
NS = 1e-9


@st.composite
def traces(draw):
    """Rows of one trace: overlapping, skewed, orphaned, cyclic, doubled, asynchronous, reversed."""
    count = draw(st.integers(1, 12))
    rows = []
    for number in range(count):
        parent = draw(st.one_of(st.integers(0, count - 1), st.just(-1), st.just(number - 1)))
        parent_id = draw(st.sampled_from(["", "gone"])) if parent == -1 else f"s{parent}"
        identity = draw(st.sampled_from([number, number, number, number, max(0, number - 1)]))
        rows.append(
            span(
                "t",
                f"s{identity}",
                parent_id,
                service=draw(st.sampled_from(["a", "b'", "c\\", "d`€"])),
                operation=draw(st.sampled_from(["x", "y;--"])),
                kind=draw(st.sampled_from(["Server", "Client", "Internal", "Consumer", "Producer", ""])),
                at_s=draw(st.integers(0, 40)) * NS,
                ms=draw(st.integers(-3, 40)) * 1e-6,
                error=draw(st.booleans()),
            )
        )
    return rows


def _hashes(store, rows):
    names = sorted({row["SpanId"] for row in rows} | {row["ParentSpanId"] for row in rows})
    with store._engine.connection() as connection:
        found = connection.rows(
            "SELECT name, cityHash64(name) FROM (SELECT arrayJoin({names:Array(String)}) AS name)",
            {"names": names},
        )
    return {**dict(found), "": 0}


def _oracle(store, rows):
    keys = _hashes(store, rows)
    found = []
    for row in rows:
        length = max(row["Duration"], 0)
        found.append(
            Span(
                key=keys[row["SpanId"]],
                up=keys[row["ParentSpanId"]],
                start=row["Timestamp"],
                end=row["Timestamp"] + length,
                service=row["ServiceName"],
                operation=row["SpanName"],
                kind=row["SpanKind"],
                error=row["StatusCode"] == "Error",
            )
        )
    return found


@pytest.fixture(scope="module")
def odd(store):
    """Two databases for the same rows in two orders."""
    for name in ("odd", "shuffled"):
        store.create_database(name)
    yield store, store.telemetry("odd"), store.telemetry("shuffled")
    for name in ("odd", "shuffled"):
        store.drop_database(name)


def _placed(example, rows_of_traces):
    """Put the traces of an example in a separate hour, each with its own id."""
    offset = example * 3600 * SECOND_NS
    rows = []
    for number, trace in enumerate(rows_of_traces):
        rows += [
            {**row, "TraceId": f"{example}-{number}", "Timestamp": row["Timestamp"] + offset} for row in trace
        ]
    start = START_NS + offset
    return rows, Window(start_ns=start, end_ns=start + 3600 * SECOND_NS)


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example costs 200 ms: shrinking takes minutes
)
@given(forest=st.lists(traces(), min_size=1, max_size=40), seed=st.integers(0, 2**16))
def test_questions_about_traces_agree_with_the_definitions(odd, forest, seed):
    store, telemetry, shuffled = odd
    rows, window = _placed(next(_examples), forest)
    store.ingest_arrow("odd", "otel_traces", traces_table(rows))
    mixed = list(rows)
    random.Random(seed).shuffle(mixed)
    for half in (mixed[::2], mixed[1::2]):
        if half:
            store.ingest_arrow("shuffled", "otel_traces", traces_table(half))
    by_trace = defaultdict(list)
    for row, found in zip(rows, _oracle(store, rows), strict=True):
        by_trace[row["TraceId"]].append(found)
    oracle = [Trace(spans) for spans in by_trace.values()]

    async def everything(source):
        return (
            await questions.trace_paths(source, [window], rows=1000),
            await questions.critical_operations(source, [window]),
            await questions.self_times(source, [window]),
            await questions.service_paths(source, [window]),
            await source.call_edges(window),
        )

    answers = asyncio.run(everything(telemetry))
    assert asyncio.run(everything(shuffled)) == answers
    paths, operations, selves, chains, edges = answers
    _check_paths(paths, oracle)
    _check_operations(operations, oracle)
    _check_selves(selves, oracle)
    _check_chains(chains, oracle)
    _check_edges(edges, oracle)


def test_spans_that_share_their_id_come_in_one_order_whatever_was_stored_first(odd):
    store, telemetry, shuffled = odd
    trace = [
        span("t", "s", "", service=name, operation="x", kind="Server", at_s=at * NS, ms=20e-6)
        for name, at in (("a", 5), ("b'", 5), ("a", 3))
    ]
    rows, window = _placed(next(_examples), [trace])
    for row in rows:
        store.ingest_arrow("odd", "otel_traces", traces_table([row]))
    for row in reversed(rows):
        store.ingest_arrow("shuffled", "otel_traces", traces_table([row]))
    paths = [asyncio.run(questions.trace_paths(source, [window])) for source in (telemetry, shuffled)]
    assert paths[0] == paths[1]
    assert [(path.start_ns - window.start_ns, path.service) for path in paths[0]] == [
        (3, "a"),
        (5, "a"),
        (5, "b'"),
    ]


def _check_paths(paths, oracle):
    expected = sorted(tuple(trace.segments(root)) for trace in oracle for root in trace.roots())
    found = []
    for path in paths:
        tiles = [(s.start_ns, s.end_ns, s.span, s.service, s.operation) for s in path.segments]
        found.append(tuple(tiles))
        assert sum(end - start for start, end, *_ in tiles) == path.end_ns - path.start_ns
        for one, two in itertools.pairwise(tiles):
            assert one[1] == two[0], "the segments leave no gap and do not overlap"
        if tiles:
            assert (tiles[0][0], tiles[-1][1]) == (path.start_ns, path.end_ns)
    assert sorted(found) == expected


def _check_operations(operations, oracle):
    expected = own_time(oracle)
    assert {(o.service, o.operation): o.on_path for o in operations} == {k: v[0] for k, v in expected.items()}
    for found in operations:
        assert found.own_ms * 1e6 == pytest.approx(expected[found.service, found.operation][1], abs=1e-3)
    total = sum(own for _, own in expected.values())
    assert sum(o.share_ratio for o in operations) == pytest.approx(1.0 if total else 0.0)


def _check_selves(selves, oracle):
    expected = defaultdict(list)
    for trace in oracle:
        for index, found in enumerate(trace.spans):
            expected[found.service, found.operation].append(trace.self_time(index))
    assert {(s.service, s.operation): s.spans for s in selves} == {k: len(v) for k, v in expected.items()}
    for found in selves:
        values = expected[found.service, found.operation]
        assert found.total_ms * 1e6 == pytest.approx(sum(values), abs=1e-3)
        assert min(values) - 1e-3 <= found.self_ms.p50 * 1e6 <= max(values) + 1e-3


def _check_chains(chains, oracle):
    expected = defaultdict(list)
    for trace in oracle:
        for root in trace.roots():
            chain = trace.chain(root)
            names = [trace.spans[i].service for i in chain]
            merged = tuple(name for name, _ in itertools.groupby(names))
            failed = any(trace.spans[i].error for i in chain)
            expected[merged].append((failed, trace.spans[root].end - trace.spans[root].start))
    assert {c.services: (c.requests, c.errors) for c in chains} == {
        k: (len(v), sum(failed for failed, _ in v)) for k, v in expected.items()
    }
    for found in chains:
        assert found.total_ms * 1e6 == pytest.approx(sum(d for _, d in expected[found.services]), abs=1e-3)


def _check_edges(edges, oracle):
    expected = defaultdict(list)
    for trace in oracle:
        for caller, callee, failed, latency in trace.calls():
            expected[caller, callee].append((failed, latency))
    assert {(e.caller, e.callee): (e.calls, e.errors) for e in edges} == {
        k: (len(v), sum(failed for failed, _ in v)) for k, v in expected.items()
    }
    for found in edges:
        latencies = [latency for _, latency in expected[found.caller, found.callee]]
        assert min(latencies) - 1e-3 <= found.p50_ms * 1e6 <= max(latencies) + 1e-3
        assert found.p99_ms * 1e6 == pytest.approx(max(latencies), abs=1e-3)


async def test_a_parent_below_a_gap_is_on_the_path_with_its_chain(store, database):
    rows = [
        span("t", "a", service="front", ms=100),
        span("t", "b", "a", service="front", kind="Client", at_s=0.010, ms=80),
        span("t", "c", "b", service="back", at_s=0.020, ms=60),
        span("t", "d", "c", service="queue", kind="Consumer", at_s=0.070, ms=500),
    ]
    store.ingest_arrow(database, "otel_traces", traces_table(rows))
    window = Window(start_ns=START_NS, end_ns=START_NS + SECOND_NS)
    slow, main = await questions.trace_paths(store.telemetry(database), [window])
    assert [s.service for s in slow.segments] == ["queue"]
    own = [(s.service, (s.end_ns - s.start_ns) // 1_000_000) for s in main.segments]
    assert own == [("front", 10), ("front", 10), ("back", 60), ("front", 10), ("front", 10)]
    by_span = {s.span: s.parent for s in main.segments}
    assert by_span[main.root] == 0
    assert all(parent in by_span for found, parent in by_span.items() if found != main.root)


async def test_a_deep_chain_and_a_wide_fan_are_walked_whole(store, database):
    deep = [span("deep", f"s{n}", f"s{n - 1}" if n else "", at_s=n * NS, ms=1 - n * 2e-6) for n in range(400)]
    wide = [span("wide", "w", ms=1)] + [
        span("wide", f"w{n}", "w", service=f"leaf{n % 3}", at_s=n * 1e-7, ms=1e-4) for n in range(2000)
    ]
    store.ingest_arrow(database, "otel_traces", traces_table(deep + wide))
    window = Window(start_ns=START_NS, end_ns=START_NS + SECOND_NS)
    paths = await questions.trace_paths(store.telemetry(database), [window])
    assert [sum(s.end_ns - s.start_ns for s in path.segments) for path in paths] == [1_000_000, 1_000_000]
    assert {len({s.span for s in path.segments}) for path in paths} == {400, 2001}
