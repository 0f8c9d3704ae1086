"""What sessions keep for their pictures: critical paths as defined, bounds, notes instead of errors."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import QueryFailed
from pytest_otel_diag.model.diagnosis import Diagnosis, Mechanism, RootCause, Signal
from pytest_otel_diag.model.exhibits import MAX_BUCKETS, MAX_EDGES, MAX_SERIES, MAX_SPANS, Exhibits
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause, Scenario
from pytest_otel_diag.model.session import SessionResult, SessionWindows, Status
from pytest_otel_diag.model.telemetry import CallEdge, ServiceHealth, Table
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.scoring.judge import judge
from pytest_otel_diag.sessions import SessionEngine, SessionPlan, as_analyzer
from pytest_otel_diag.sessions.exhibits.collect import ExhibitSubject, bucket_seconds, collect, subject_of
from pytest_otel_diag.sessions.exhibits.exemplar import exemplar, keep
from pytest_otel_diag.stats.critical_path import TraceSpan, TraceTree
from pytest_otel_diag.targets.replay.target import ReplayTarget
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.telemetry_contract import SECOND_NS, START_NS, span, traces_table
from tests.recordings.sample_cases import write_sample_cases
from tests.sessions.session_fakes import Behaviour, FakeTarget, engine, plan, scenario
from tests.telemetry.path_oracle import Span, Trace


@st.composite
def traces(draw):
    """Spans of one trace: overlapping, skewed, orphaned, cyclic, doubled, asynchronous."""
    count = draw(st.integers(1, 12))
    found = []
    for number in range(count):
        up = draw(st.one_of(st.integers(1, count), st.just(0), st.just(99), st.just(number)))
        start = draw(st.integers(0, 40))
        found.append(
            TraceSpan(
                span=draw(st.sampled_from([number + 1, number + 1, max(1, number)])),
                parent=up,
                start_ns=start,
                end_ns=start + draw(st.integers(0, 40)),
                service=draw(st.sampled_from("abc")),
                operation=draw(st.sampled_from("xy")),
                kind=draw(st.sampled_from(["Server", "Client", "Internal", "Consumer", ""])),
                error=draw(st.booleans()),
            )
        )
    return found


def oracle(spans):
    return Trace(
        [Span(s.span, s.parent, s.start_ns, s.end_ns, s.service, s.operation, s.kind, s.error) for s in spans]
    )


@settings(max_examples=400, deadline=None)
@given(traces(), st.randoms(use_true_random=False))
def test_the_critical_path_of_a_trace_is_the_definition_s(spans, chance):
    chance.shuffle(spans)
    tree, expected = TraceTree(spans), oracle(spans)
    assert [s.span for s in tree.spans] == [s.key for s in expected.spans]
    assert tree.parents == expected.parent
    for root in expected.roots():
        path = tree.critical_path(root)
        tiles = sorted(
            (start, end, tree.spans[i].span, tree.spans[i].service, tree.spans[i].operation)
            for i, own in path.items()
            for start, end in own
        )
        assert tiles == expected.segments(root)
        assert len(path) == expected.on_path(root)
        assert (
            sum(end - start for start, end, *_ in tiles)
            == expected.spans[root].end - expected.spans[root].start
        )
    for index in range(len(spans)):
        assert tree.self_ns(index) == expected.self_time(index)
        assert tree.root_of(index) == expected.top(index)


@settings(max_examples=200, deadline=None)
@given(traces(), st.integers(1, 12), st.data())
def test_what_is_kept_of_a_trace_is_bounded_and_has_its_ancestors(spans, most, data):
    tree = TraceTree(spans)
    focus = data.draw(st.integers(0, len(spans) - 1))
    root = tree.root_of(focus)
    path = {} if root is None else tree.critical_path(root)
    kept = keep(tree, path, focus, most)
    assert kept == sorted(set(kept))
    assert 1 <= len(kept) <= most
    if most >= len(spans):
        assert kept == list(range(len(spans)))
    if kept != [focus]:
        assert all(tree.parents[i] is None or tree.parents[i] in kept for i in kept)


def test_a_deep_trace_needs_no_recursion():
    spans = [TraceSpan(i + 1, i, 0, 10_000 - i, "s", "o") for i in range(5000)]
    tree = TraceTree(spans)
    root = tree.root_of(0)
    assert len(tree.critical_path(root)) == 5000
    assert len(keep(tree, tree.critical_path(root), 0, MAX_SPANS)) <= MAX_SPANS


@pytest.fixture(scope="module")
def store():
    with Store.open("chdb://memory") as opened:
        opened.create_database("exhibits")
        yield opened


def request(number, *, at_s, charge_ms, error=False):
    """One order: frontend → checkout → payment, with a stream of flagd beside it."""
    trace = f"order-{number}"
    return [
        span(trace, "a", service="frontend", operation="GET /order", at_s=at_s, ms=charge_ms + 20),
        span(
            trace, "b", "a", service="checkout", operation="PlaceOrder", at_s=at_s + 0.005, ms=charge_ms + 10
        ),
        span(
            trace,
            "c",
            "b",
            service="payment",
            operation="Charge",
            at_s=at_s + 0.01,
            ms=charge_ms,
            error=error,
        ),
        span(
            f"stream-{number}",
            "s",
            "gone",
            service="payment",
            operation="EventStream",
            kind="Client",
            at_s=at_s,
            ms=90_000,
        ),
    ]


@pytest.fixture(scope="module")
def telemetry(store):
    rows = []
    for number in range(100):
        late = number >= 60
        rows += request(number, at_s=number, charge_ms=80 if late else 10, error=late and number % 10 == 0)
    store.ingest_arrow("exhibits", "otel_traces", traces_table(rows))
    opened = store.telemetry("exhibits")
    yield opened
    opened.close()


def window(start_s, end_s):
    return Window(start_ns=START_NS + start_s * SECOND_NS, end_ns=START_NS + end_s * SECOND_NS)


SUBJECT = ExhibitSubject(
    session=window(0, 100),
    baseline=window(0, 60),
    incident=window(60, 100),
    culprits=("Payment",),
    failing=True,
)


async def test_a_session_s_exhibits_hold_what_its_pictures_need(telemetry):
    kept = await collect(telemetry, SUBJECT, timeout_s=30)
    assert kept.notes == ()
    assert [series.service for series in kept.timeline.services] == ["payment", "checkout", "frontend"]
    assert kept.timeline.bucket_s == 2
    payment = kept.timeline.services[0]
    assert payment.requests == (2,) * 50
    assert sum(payment.errors) == 4
    assert payment.p95_ms[0] == pytest.approx(10)
    assert payment.p95_ms[-1] == pytest.approx(80)
    assert [(c.caller, c.callee, c.baseline.calls, c.incident.calls) for c in kept.calls] == [
        ("checkout", "payment", 60, 40),
        ("frontend", "checkout", 60, 40),
    ]
    assert kept.calls[0].incident.errors == 4
    assert (kept.baseline_s, kept.incident_s) == (60, 40)
    trace = kept.trace
    assert trace.trace_id in {f"order-{n}" for n in (60, 70, 80, 90)}
    assert trace.choice == "failed Charge of payment, 80.0 ms"
    assert [(s.service, s.parent, s.error, s.on_path) for s in trace.spans] == [
        ("frontend", None, False, True),
        ("checkout", 0, False, True),
        ("payment", 1, True, True),
    ]
    assert trace.spans[2].critical == ((10, 90),)
    assert trace.spans[0].self_ms == pytest.approx(10)


async def test_of_a_slow_fault_the_slowest_answer_is_shown_not_a_stream(telemetry):
    found = await exemplar(telemetry, window(0, 100), ["payment"], failed_first=False)
    assert found.choice == "slowest Charge of payment, 80.0 ms"
    nobody = await exemplar(telemetry, window(0, 100), ["mars"], failed_first=False)
    assert nobody is None
    anybody = await exemplar(telemetry, window(0, 60), [], failed_first=False)
    assert anybody.choice.startswith("slowest")


async def test_without_an_incident_there_is_a_timeline_all_the_same(telemetry):
    kept = await collect(
        telemetry, ExhibitSubject(session=window(0, 100), baseline=None, incident=None), timeout_s=30
    )
    assert kept.trace is None
    assert kept.calls == ()
    assert len(kept.timeline.services) == 3
    empty = await collect(
        telemetry, ExhibitSubject(session=window(5, 5), baseline=None, incident=None), timeout_s=30
    )
    assert empty == Exhibits()


async def test_a_culprit_without_spans_is_noted(telemetry):
    subject = ExhibitSubject(
        session=window(0, 100), baseline=None, incident=window(60, 100), culprits=("mars",)
    )
    kept = await collect(telemetry, subject, timeout_s=30)
    assert kept.notes == ("exemplar trace: no span of the services in question lies in the incident",)


class Large:
    """Telemetry that answers more than can be kept, or fails where it is asked to."""

    def __init__(self, **failing):
        self.failing = failing

    async def _hit(self, what):
        if what in self.failing:
            error = self.failing[what]
            if error is None:
                await asyncio.sleep(3600)
            raise error

    async def service_health(self, window, bucket_s):
        await self._hit("health")
        step = round(bucket_s * SECOND_NS)
        return [
            ServiceHealth(
                service=f"s{number}" + "x" * 500,
                bucket_start_ns=start,
                requests=10**9,
                errors=10**8,
                p50_ms=1,
                p95_ms=123456.789,
                p99_ms=1,
            )
            for number in range(50)
            for start in range(window.start_ns, window.end_ns, step)
        ]

    async def call_edges(self, window):
        await self._hit("edges")
        return [
            CallEdge(
                caller=f"s{a}" + "x" * 500,
                callee=f"s{b}" + "y" * 500,
                calls=a + b,
                errors=0,
                p50_ms=1 / 3,
                p99_ms=1,
            )
            for a in range(20)
            for b in range(20)
        ]

    async def schema(self):
        await self._hit("schema")
        return await self.inner.schema()

    async def query(self, sql, parameters=None, limits=None):
        await self._hit("query")
        if "LIMIT 1\n" in f"{sql}\n":
            return Table(("t", "s", "v", "o", "d", "e"), ([1], [1], ["s"], ["o"], [5], [0]))
        spans = [
            (i + 1, i // 2, START_NS + i, START_NS + 10_000 - i, "s" * 500, "o" * 500, "Server", 0)
            for i in range(2000)
        ]
        if "any(TraceId)" in sql:
            return Table(("trace_id",), (["t" * 500],))
        return Table(("a", "b", "c", "d", "e", "f", "g", "h"), tuple(map(list, zip(*spans, strict=True))))


async def test_exhibits_are_bounded_whatever_telemetry_answers(telemetry):
    large = Large()
    large.inner = telemetry
    subject = ExhibitSubject(session=window(0, 7001), baseline=window(0, 60), incident=window(60, 100))
    kept = await collect(large, subject, timeout_s=30)
    assert kept.notes == (f"calls: the busiest {MAX_EDGES} of 400 are kept",)
    assert len(kept.calls) == MAX_EDGES
    assert len(kept.timeline.services) <= MAX_SERIES
    assert len(kept.timeline.services[0].requests) <= MAX_BUCKETS
    assert len(kept.trace.spans) <= MAX_SPANS
    assert kept.trace.spans_total == 2000
    assert len(kept.model_dump_json()) < 100_000
    assert Exhibits.model_validate(json.loads(kept.model_dump_json())) == kept


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        ({"health": QueryFailed("no health")}, ("timeline: no health",)),
        ({"edges": QueryFailed("no calls")}, ("calls before: no calls", "calls of the incident: no calls")),
        ({"query": ValueError("odd")}, ("exemplar trace: ValueError: odd",)),
        ({"schema": QueryFailed("gone")}, ("exemplar trace: gone",)),
        ({"health": None}, ("exhibits: telemetry took longer than 0.05 s",)),
    ],
)
async def test_what_cannot_be_had_is_noted(telemetry, failing, said):
    large = Large(**failing)
    large.inner = telemetry
    subject = ExhibitSubject(session=window(0, 100), baseline=window(0, 60), incident=window(60, 100))
    kept = await collect(large, subject, timeout_s=0.05 if None in failing.values() else 30)
    assert tuple(note for note in kept.notes if "busiest" not in note) == said


def test_what_the_pictures_are_about():
    expectation = Expectation(
        root_causes=(ExpectedRootCause(service="payment", mechanisms=(Mechanism.LATENCY,)),),
        anomalies=(ExpectedAnomaly(service="frontend", signal=Signal.ERROR_RATE),),
        red_herrings=("kafka",),
    )
    named = Diagnosis(detected=False, root_causes=(RootCause(service="cart", mechanism=Mechanism.ERROR),))
    fault = subject_of(Scenario(id="a", expectation=expectation), named, SessionWindows(), window(0, 9))
    assert fault.culprits == ("payment", "cart")
    assert fault.others == ("frontend", "kafka")
    assert fault.failing
    either = (ExpectedRootCause(service="payment"), ExpectedRootCause(service="cart"))
    known = Scenario(id="a", expectation=Expectation(root_causes=either))
    assert subject_of(known, named, SessionWindows(), window(0, 9)).culprits == ("cart", "payment")
    silent = Scenario(id="a", expectation=Expectation(root_causes=(ExpectedRootCause(service="x"),)))
    assert subject_of(silent, named, SessionWindows(), window(0, 9)).failing
    assert not subject_of(silent, None, SessionWindows(), window(0, 9)).failing
    control = Scenario(id="a", expectation=Expectation(healthy=True))
    assert subject_of(control, named, SessionWindows(), window(0, 9)).culprits == ()
    alarmed = named.model_copy(update={"detected": True})
    reference = SessionWindows(reference=(window(0, 1), window(2, 3)))
    found = subject_of(control, alarmed, reference, window(0, 9))
    assert found.culprits == ("cart",)
    assert found.baseline == window(2, 3)


@given(st.floats(0.001, 1e9))
def test_buckets_are_few_and_round(duration_s):
    bucket_s = bucket_seconds(duration_s)
    assert duration_s / bucket_s <= MAX_BUCKETS
    assert bucket_s == int(bucket_s)


class TestEngine:
    async def test_a_session_keeps_its_exhibits(self):
        target = FakeTarget(services={"payment": Behaviour(flag="paymentFailure", errors_on=0.5)})
        result = await engine(target, lambda _: Diagnosis(detected=True)).run(
            plan(scenario("paymentFailure=50%"))
        )
        assert result.status is Status.SCORED
        assert result.exhibits.timeline.services[0].service == "payment"
        assert result.exhibits.timeline.end_ns >= result.windows.incident.end_ns

    async def test_a_session_without_impact_keeps_them_too(self):
        target = FakeTarget(services={"payment": Behaviour()})
        result = await engine(target, lambda _: Diagnosis(detected=True)).run(
            plan(scenario("paymentFailure=50%"))
        )
        assert result.status is Status.INVALID
        assert result.windows.incident is None
        assert result.exhibits.incident_s > 0

    async def test_trouble_with_them_changes_no_outcome(self):
        target = FakeTarget(services={"payment": Behaviour(flag="paymentFailure", errors_on=0.5)})

        def trouble(_):
            target.trouble.raising("telemetry.query", QueryFailed("no more"))
            return Diagnosis(detected=True)

        result = await engine(target, trouble).run(plan(scenario("paymentFailure=50%")))
        assert result.status is Status.SCORED
        assert any("no more" in note for note in result.exhibits.notes)

    async def test_a_target_that_cannot_be_opened_leaves_none(self):
        result = await engine(FakeTarget(), lambda _: Diagnosis(detected=True)).run(
            plan(scenario("nothing=on"))
        )
        assert result.status is Status.ERROR
        assert isinstance(result, SessionResult)


async def test_exhibits_of_a_recorded_incident(tmp_path):
    target = ReplayTarget(
        [write_sample_cases(tmp_path / "sample")], store_dsn="chdb://memory", cache_dir=tmp_path / "c"
    )
    try:
        one = next(item for item in target.scenarios() if item.id.endswith("network_delay"))
        answer = Diagnosis(detected=True, root_causes=(RootCause(service="cart"),))
        plan_ = SessionPlan(scenario=one, session_id="s", run_id="r")
        result = await SessionEngine(target, as_analyzer(lambda _: answer), judge).run(plan_)
    finally:
        target.close()
    kept = result.exhibits
    assert kept.notes == ()
    assert {s.service for s in kept.timeline.services} == {"cart", "frontend", "db"}
    assert {(c.caller, c.callee) for c in kept.calls} == {("frontend", "cart"), ("cart", "db")}
    assert kept.trace.spans[0].service == "frontend"
    assert sum(end - start for s in kept.trace.spans for start, end in s.critical) == pytest.approx(
        kept.trace.spans[0].duration_ms
    )
