"""Analyzers that behave badly, and every shape that counts as an analyzer."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_otel_diag.errors import (
    AnalyzerError,
    BudgetExceeded,
    ConfigurationError,
    ModelUnavailable,
    QueryFailed,
    TelemetryUnavailable,
)
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause
from pytest_otel_diag.model.session import Blame, Budget, Phase, Status
from pytest_otel_diag.model.telemetry import QueryLimits
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.sessions.investigation.answer import MOST_BYTES, as_diagnosis
from pytest_otel_diag.sessions.investigation.handles import AnalyzerTelemetry, connect
from pytest_otel_diag.sessions.investigation.metering import MeteredTelemetry, data_sources
from pytest_otel_diag.sessions.investigation.run import opaque_id
from tests.sessions.session_fakes import QUICK, FakeTarget, Watcher, blames_payment, engine, plan, scenario
from tests.support.investigations import investigation_over

FINE = Diagnosis(detected=True, root_causes=(RootCause(service="payment"),))


async def run(analyzer, target=None, knobs=QUICK, **changes):
    target = target or FakeTarget()
    result = await engine(target, analyzer, settings=knobs).run(plan(**changes))
    assert target.restored
    assert target.opened == target.closed == 1
    return result


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (ModelUnavailable("503: the engine is overloaded"), Blame.INFRASTRUCTURE),
        (ConfigurationError("the key in OPENAI_API_KEY is refused"), Blame.USER),
    ],
)
async def test_an_analyzer_whose_model_does_not_answer_is_not_to_blame(error, blame):
    async def ask(investigation):
        raise error

    result = await engine(FakeTarget(), ask).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, blame)
    assert str(error) in result.reason


async def test_an_analyzer_that_raises_is_to_blame():
    async def crashes(investigation):
        raise KeyError("payment")

    result = await run(crashes)

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    line = crashes.__code__.co_firstlineno + 1
    place = f"test_session_analyzers.py:{line} in crashes"
    assert result.reason == f"investigate: the analyzer raised KeyError: 'payment' ({place})"
    assert result.trace.startswith("Traceback (most recent call last):\n  File ")
    assert result.trace.count("  File ") == 1 and 'raise KeyError("payment")' in result.trace
    assert result.verdict is None and result.diagnosis is None
    assert result.impact is not None


@pytest.mark.parametrize(
    "exit_", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
)
async def test_an_analyzer_that_exits_ends_its_session_and_nothing_else(exit_):
    def leaves(investigation):
        raise exit_

    result = await run(leaves)

    assert result.blame is Blame.ANALYZER
    assert type(exit_).__name__ in result.reason


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "returned None (NoneType), not a Diagnosis; is a return missing?"),
        (42, "returned 42 (int), not a Diagnosis"),
        ("payment", "returned 'payment' (str)"),
        ([FINE], "(list), not a Diagnosis"),
        ("x" * 500, "xxx... (str)"),
        ({}, "not a valid Diagnosis: detected: Field required"),
        ({"detected": True, "root_cause": "x"}, "root_cause: unknown field (did you mean 'root_causes'?)"),
        ({"detected": True, "root_causes": [{"servce": "x"}]}, "root_causes.0.service: Field required"),
        ({"detected": True, "confidence": float("nan")}, "confidence: "),
        ({str(i): i for i in range(9)}, "and 5 more"),
        (Diagnosis.model_construct(detected=True, root_causes=7), "root_causes: "),
        (Diagnosis.model_construct(detected=True, confidence=float("inf")), "confidence: "),
        (Diagnosis.model_construct(detected=True, usage={1, 2}), "usage: "),
        (Diagnosis(detected=True, summary="\ud800"), "cannot be written down: PydanticSerializationError"),
        (Diagnosis, "(ModelMetaclass), not a Diagnosis"),
    ],
)
async def test_an_answer_that_is_no_diagnosis_is_an_error_of_the_analyzer(answer, says):
    result = await run(lambda investigation: answer)

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    assert says in result.reason


def test_an_answer_that_cannot_even_be_shown_is_refused():
    class Rude:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(AnalyzerError, match="an object whose repr fails"):
        as_diagnosis(Rude())


def test_an_answer_that_cannot_be_read_is_refused():
    class Broken(dict):
        def keys(self):
            raise TypeError("no keys")

        def __iter__(self):
            raise TypeError("no keys")

    with pytest.raises(AnalyzerError, match="cannot be written down: TypeError: no keys"):
        as_diagnosis(Broken(detected=True))


async def test_a_dictionary_is_as_good_as_a_diagnosis():
    result = await run(lambda _: {"detected": True, "root_causes": [{"service": "payment"}]})

    assert result.status is Status.SCORED and result.diagnosis == FINE


PATIENT = replace(QUICK, cancel_grace_s=10.0)


def limited(seconds: float, **changes):
    return scenario("paymentFailure=50%", timing={"analyze_timeout_s": seconds}, **changes)


async def test_an_analyzer_that_sleeps_forever_is_cancelled():
    cancelled = threading.Event()

    async def sleeps(investigation):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    result = await run(sleeps, case=limited(0.2), knobs=PATIENT)

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    assert result.reason == "investigate: no diagnosis within 0.2 s; the analyzer was stopped"
    assert cancelled.is_set()


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("busy", [True, False])
async def test_an_analyzer_that_blocks_its_thread_is_abandoned(sync, busy):
    stop = threading.Event()

    def block(investigation):
        while busy and not stop.is_set():
            time.sleep(0)  # gives way to others, as any bytecode boundary does
        stop.wait(30)

    async def block_async(investigation):
        block(investigation)

    try:
        result = await run(block if sync else block_async, case=limited(0.05))
    finally:
        stop.set()

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    assert "no diagnosis within 0.05 s" in result.reason
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("otel-diag"))


async def test_an_analyzer_cancelled_before_it_began_never_begins(monkeypatch):
    begun, hold = threading.Event(), threading.Event()
    start = threading.Thread.start

    def late(thread):
        if thread.name == "otel-diag analyzer":
            thread._target, work = (lambda handed: (hold.wait(10), work(handed))), thread._target
        start(thread)

    async def begins(investigation):
        begun.set()

    monkeypatch.setattr(threading.Thread, "start", late)
    await run(begins, case=limited(0.05))
    hold.set()
    for thread in threading.enumerate():
        if thread.name == "otel-diag analyzer":
            await asyncio.to_thread(thread.join, 10)

    assert not begun.is_set()


async def test_an_analyzer_that_refuses_to_be_cancelled_is_abandoned():
    release = threading.Event()

    async def stubborn(investigation):
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        return FINE

    result = await run(stubborn, case=limited(0.05))
    release.set()

    assert result.blame is Blame.ANALYZER


async def test_a_cancelled_session_stops_its_analyzer():
    cancelled, watcher, target = threading.Event(), Watcher(), FakeTarget()
    started = threading.Event()

    async def sleeps(investigation):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.ensure_future(engine(target, sleeps, watcher=watcher).run(plan()))
    assert await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await asyncio.to_thread(cancelled.wait, 5)
    assert target.restored and watcher.results[0].reason == "cancelled during investigate"


async def test_the_handle_of_an_abandoned_analyzer_is_revoked():
    seen, go, asked = [], threading.Event(), threading.Event()

    def late(investigation):
        go.wait(10)
        try:
            asyncio.run(investigation.telemetry.query("SELECT 1"))
        except BudgetExceeded as error:
            seen.append(str(error))
        asked.set()

    target = FakeTarget()
    await run(late, target, case=limited(0.05))
    before = target.trouble.passed["telemetry.query"]
    go.set()
    assert await asyncio.to_thread(asked.wait, 5)

    assert seen == ["the investigation is over; this telemetry handle was for its time only"]
    assert target.trouble.passed["telemetry.query"] == before


def test_a_handle_kept_beyond_the_loop_is_refused():
    target = FakeTarget()

    async def make():
        return connect(investigation_over(target.telemetry))

    handle = AnalyzerTelemetry(asyncio.run(make()).analyzer_end)

    with pytest.raises(BudgetExceeded, match="the session is over"):
        asyncio.run(handle.schema())


async def test_a_sync_function_may_query_with_asyncio_run():
    def asks(investigation):
        table = asyncio.run(investigation.telemetry.query("SELECT ServiceName FROM otel_logs"))
        assert len(table) == 4
        assert asyncio.run(investigation.telemetry.schema()).has("otel_logs")
        assert asyncio.run(investigation.telemetry.latest()) <= investigation.clock.now()
        assert len(asyncio.run(investigation.telemetry.call_edges(investigation.incident))) == 3
        return FINE

    result = await run(asks)

    assert result.status is Status.SCORED
    assert [query.data_sources for query in result.queries] == [("logs",), ("traces",)]
    assert result.queries[0].rows == 4 and result.queries[0].sql == "SELECT ServiceName FROM otel_logs"
    assert result.queries[1].sql.startswith("call_edges(20")


async def test_the_analyzer_may_let_time_pass():
    async def waits(investigation):
        before = investigation.clock.now()
        await investigation.clock.sleep(7)
        assert investigation.clock.now() - before == 7_000_000_000
        return FINE

    assert (await run(waits)).status is Status.SCORED


async def test_a_query_that_fails_is_recorded_and_the_analyzer_goes_on():
    target = FakeTarget()

    async def tries(investigation):
        try:
            await investigation.telemetry.query("SELECT nope FROM otel_traces")
        except QueryFailed:
            return FINE

    target.trouble.raising("telemetry.query", QueryFailed("no column nope", 47), times=1)
    result = await run(tries, target)

    assert result.status is Status.SCORED
    (query,) = result.queries
    assert query.error == "QueryFailed: no column nope" and query.rows == 0


async def test_an_unreadable_store_lets_the_analyzer_fail_with_its_reason():
    target, watcher = FakeTarget(), Watcher()
    gone = TelemetryUnavailable("connection refused")
    watcher.when[Phase.INVESTIGATE] = lambda: (
        target.trouble.raising("telemetry.service_health", gone) and None
    )

    result = await engine(target, blames_payment, watcher=watcher).run(plan())

    assert "the analyzer raised TelemetryUnavailable: connection refused (session_fakes.py" in result.reason
    assert target.restored


async def test_more_queries_than_the_budget_are_refused():
    async def greedy(investigation):
        while True:
            await investigation.telemetry.query("SELECT 1")

    result = await run(greedy, budget=Budget(queries=5))

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    assert result.reason == "investigate: the budget of 5 queries is used up; answer with what you have"
    assert len(result.queries) == 5


async def test_an_analyzer_may_answer_with_what_the_budget_gave():
    async def frugal(investigation):
        asked = 0
        try:
            while True:
                await investigation.telemetry.service_health(investigation.incident, 5.0)
                asked += 1
        except BudgetExceeded:
            return {"detected": True, "summary": str(asked)}

    result = await run(frugal, budget=Budget(queries=3))

    assert result.status is Status.SCORED
    assert result.diagnosis is not None and result.diagnosis.summary == "3"


async def test_a_query_gets_no_more_time_than_is_left():
    target, limits = FakeTarget(), []
    query = target.telemetry.query

    async def noting(sql, parameters=None, given=None):
        limits.append(given and given.time_s)
        return await query(sql, parameters, given)

    async def asks(investigation):
        assert investigation.budget.time_s == 2.0
        await investigation.telemetry.query("SELECT 1")
        await investigation.telemetry.query("SELECT 1", None, QueryLimits(time_s=0.5))
        return FINE

    target.telemetry.query = noting
    await run(asks, target, budget=Budget(time_s=2.0))

    assert 0 < limits[0] <= 2.0
    assert limits[1] == 0.5


async def limits_given(wanted):
    target, seen = FakeTarget(), []
    query = target.telemetry.query

    async def noting(sql, parameters=None, given=None):
        seen.append(given)
        return await query(sql, parameters, given)

    target.telemetry.query = noting
    metered = MeteredTelemetry(target.telemetry, Budget(time_s=1e6), monotonic=lambda: 0.0)
    await metered.query("SELECT 1", None, wanted)
    return seen[0]


@pytest.mark.parametrize("unlimited", [0, -1, 10**18])
async def test_an_analyzer_cannot_lift_its_limits(unlimited):
    wanted = QueryLimits(time_s=unlimited, result_rows=unlimited, read_rows=unlimited, memory_bytes=unlimited)
    assert await limits_given(wanted) == QueryLimits(
        time_s=300.0, result_rows=1_000_000, read_rows=10_000_000_000, memory_bytes=4_000_000_000
    )


async def test_a_time_limit_that_is_no_number_is_the_most():
    assert (await limits_given(QueryLimits.model_construct(time_s=float("nan")))).time_s == 300.0


async def test_limits_within_the_most_are_the_analyzers_own():
    wanted = QueryLimits(time_s=120.0, result_rows=7, read_rows=8, memory_bytes=9)
    assert await limits_given(wanted) == wanted
    assert await limits_given(None) == QueryLimits()


async def test_a_query_after_the_time_budget_is_refused():
    ticks = iter([0.0, 11.0])
    target = FakeTarget()
    metered = MeteredTelemetry(target.telemetry, Budget(time_s=10), monotonic=lambda: next(ticks))

    with pytest.raises(BudgetExceeded, match="budget of 10 s is used up"):
        await metered.call_edges(Window(start_ns=0, end_ns=1))
    assert metered.records == ()


@pytest.mark.parametrize(
    ("sql", "sources"),
    [
        ("SELECT 1", ()),
        ("SELECT * FROM otel_traces", ("traces",)),
        ("WITH x AS (SELECT 1 FROM otel_traces_slim) SELECT * FROM x, otel_logs", ("logs", "traces")),
        ("SELECT 'otel_logs' -- otel_metrics_sum\n/* otel_traces */", ()),
        ("SELECT 'it''s \\' otel_logs' FROM db.`otel_metrics_gauge`", ("metrics",)),
        ("SELECT * FROM otel_traces_other", ()),
    ],
)
def test_data_sources_are_the_tables_a_statement_names(sql, sources):
    assert data_sources(sql) == sources


def test_the_session_id_an_analyzer_sees_is_opaque_and_stable():
    assert opaque_id("paymentFailure") == opaque_id("paymentFailure") != opaque_id("adFailure")
    assert "payment" not in opaque_id("paymentFailure\ud800")


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(st.characters(codec=None, categories=None)))
def test_whatever_text_an_analyzer_sends_the_result_can_be_written(text):
    async def odd(investigation):
        await investigation.telemetry.query(text)
        raise ValueError(text)

    target = FakeTarget()
    target.trouble.raising("telemetry.query", QueryFailed(text), times=1)
    for _ in range(2):  # the first query fails, the second one passes
        result = asyncio.run(engine(target, odd).run(plan()))
        assert result.blame is Blame.ANALYZER
        assert type(result).model_validate_json(result.model_dump_json()) == result


def test_an_answer_that_is_too_long_to_keep_is_refused():
    long = Diagnosis(detected=True, summary="x" * (MOST_BYTES + 1))
    with pytest.raises(AnalyzerError, match=r"is 4\.0 MB long, at most 4 MB are kept; leave rows"):
        as_diagnosis(long)
