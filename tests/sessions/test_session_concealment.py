"""A hostile analyzer: what it can follow from what it is given, and what it cannot do to the session."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_otel_diag.config.concealment import CONCEALED, Concealment, without_test
from pytest_otel_diag.errors import BudgetExceeded, QueryFailed, QueryRejected
from pytest_otel_diag.model.questions import CallEdges, ServiceHealthOf
from pytest_otel_diag.model.session import Blame, Budget, Status
from pytest_otel_diag.model.telemetry import QueryLimits
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.sessions.investigation.closed_line import AnalyzerEnd, Cancelled, Ended, Request
from pytest_otel_diag.sessions.investigation.exits import refuse_silent_exits
from pytest_otel_diag.sessions.investigation.handles import plain_arguments
from pytest_otel_diag.sessions.investigation.metering import data_sources
from tests.sessions.session_fakes import FakeTarget, engine, plan, scenario
from tests.support.deadlines import deadline_s

SECRETS = ("paymentFailure", "50%", "test_the_fault_of_payment")
NODE = "tests/test_shop.py::test_the_fault_of_payment (call)"
FINE = {"detected": True, "root_causes": [{"service": "payment"}]}


def reachable(*roots: object) -> Iterator[tuple[str, object]]:
    """Yield everything that attributes, closures, bindings, frames of coroutines and containers lead to.

    Modules and classes are the process, which every analyzer can import, and frames of other threads are
    left out as the documentation says.
    """
    seen, todo = set(), [(f"#{number}", root) for number, root in enumerate(roots)]
    while todo:
        path, value = todo.pop()
        if id(value) in seen or isinstance(value, types.ModuleType | type):
            continue
        seen.add(id(value))
        yield path, value
        if isinstance(value, str | bytes | int | float | bool | None):
            continue
        todo += [(f"{path}.{name}", part) for name, part in parts(value)]


def parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping | contextvars.Context):
        for key, item in list(value.items()):
            yield "key", key
            yield str(key), item
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((str(number), item) for number, item in enumerate(list(value)))
    if isinstance(value, types.CoroutineType) and value.cr_frame is not None:
        yield "locals", value.cr_frame.f_locals
    if isinstance(value, types.TracebackType):
        yield "locals", value.tb_frame.f_locals
    names = {*getattr(type(value), "__slots__", ()), "__self__", "__func__", "__wrapped__", "__closure__"}
    names |= {"__defaults__", "__kwdefaults__", "__cause__", "__context__", "__traceback__", "__dict__"}
    names |= {"__notes__", "args", "cell_contents", "tb_next", "_inner", "_target", "_args", "_kwargs"}
    for name in names:
        with suppress(Exception):
            yield name, getattr(value, name)
    if isinstance(value, asyncio.Task):
        yield "coroutine", value.get_coro()
        yield "name", value.get_name()


def named(*roots: object) -> list[str]:
    return [
        f"{path}: {text[:200]}"
        for path, value in reachable(*roots)
        if isinstance(value, str | bytes)
        for text in [value if isinstance(value, str) else value.decode(errors="replace")]
        if any(secret in text for secret in SECRETS)
    ]


def surroundings() -> list[object]:
    return [dict(os.environ), sys.argv, sys.orig_argv, threading.enumerate(), contextvars.copy_context()]


async def spying(investigation, found):
    telemetry = investigation.telemetry
    errors = []
    try:
        await telemetry.query("SELECT refused")
    except QueryFailed as error:
        errors.append(error)
    asked = asyncio.ensure_future(telemetry.call_edges(investigation.incident))
    await asyncio.sleep(0)
    around = [*surroundings(), asyncio.all_tasks(), sys._getframe().f_locals]
    found += named(investigation, errors, *around)
    answers = [await asked, await telemetry.schema(), await telemetry.latest()]
    found += named(answers, investigation.clock.now())
    child = [sys.executable, "-c", "import os, sys; print(dict(os.environ), sys.argv)"]
    done = await asyncio.to_thread(subprocess.run, child, capture_output=True, check=True)
    found += named(done.stdout)
    with ThreadPoolExecutor(1) as pool:
        found += named(*pool.submit(surroundings).result())
    frame = sys._getframe()
    while frame is not None:  # of this thread only
        found += named(frame.f_locals)
        frame = frame.f_back
    return FINE


@pytest.mark.parametrize("sync", [False, True])
async def test_nothing_that_an_analyzer_is_given_leads_to_the_scenario(sync, monkeypatch):
    monkeypatch.setenv("PYTEST_CURRENT_TEST", NODE)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k paymentFailure")
    monkeypatch.setenv("OTEL_DIAG_TARGET", "replay:recordings/paymentFailure")
    monkeypatch.setattr(sys, "argv", sys.argv)
    sys.argv.append(NODE)
    found: list[str] = []
    target = FakeTarget()
    target.trouble.raising("telemetry.query", QueryFailed("no such column"), times=1)

    async def analyzer(investigation):
        return await spying(investigation, found)

    def blocking(investigation):
        return asyncio.run(spying(investigation, found))

    outer = contextvars.ContextVar[str]("outer")
    outer.set("paymentFailure=50%")
    result = await engine(target, blocking if sync else analyzer).run(plan())
    argv = sys.argv.pop()

    assert (result.status, result.reason) == (Status.SCORED, "")
    assert found == []
    assert os.environ["PYTEST_CURRENT_TEST"] == argv == NODE
    assert os.environ["PYTEST_ADDOPTS"] == "-k paymentFailure"
    assert os.environ["OTEL_DIAG_TARGET"] == "replay:recordings/paymentFailure"


def test_the_search_itself_finds_what_is_hidden_badly():
    def closure(text=NODE):
        return lambda: text

    class Holder:
        def __init__(self):
            self._inner = closure()

    try:
        raise ValueError("x")
    except ValueError as error:
        caught = error
    thread = threading.Thread(target=closure())
    for value in (Holder(), Holder()._inner, [{"a": (NODE,)}], {NODE: 1}, thread, caught):
        assert named(value) or value is caught


def test_overlapping_investigations_conceal_until_the_last_one_ends():
    environ, arguments = {"PYTEST_CURRENT_TEST": NODE, "OTEL_DIAG_TARGET": "x"}, ["pytest", "-k", "x"]
    concealment = Concealment(environ, [arguments])
    concealment.renew()
    assert environ["PYTEST_CURRENT_TEST"] == NODE

    with concealment.during_investigation():
        with concealment.during_investigation():
            assert environ == {"PYTEST_CURRENT_TEST": CONCEALED, "OTEL_DIAG_TARGET": ""}
        assert environ["PYTEST_CURRENT_TEST"] == CONCEALED and arguments == ["pytest"]
        environ["PYTEST_CURRENT_TEST"] = NODE.replace("call", "teardown")
        concealment.renew()
        assert environ["PYTEST_CURRENT_TEST"] == CONCEALED
    assert environ == {"PYTEST_CURRENT_TEST": NODE.replace("call", "teardown"), "OTEL_DIAG_TARGET": "x"}
    assert arguments == ["pytest", "-k", "x"]


def test_processes_that_outlive_a_phase_start_without_what_names_the_test():
    environ = {"PYTEST_CURRENT_TEST": NODE, "PYTEST_ADDOPTS": "-k x", "OTEL_DIAG_TARGET": "x", "HOME": "/"}
    assert without_test(environ) == {"HOME": "/"}
    assert "PYTEST_CURRENT_TEST" not in without_test()


def test_a_test_that_has_ended_meanwhile_is_not_named_again():
    environ = {"PYTEST_CURRENT_TEST": NODE}
    concealment = Concealment(environ, [])
    with concealment.during_investigation():
        del environ["PYTEST_CURRENT_TEST"]
        with concealment.during_investigation():
            pass
    assert environ == {}


async def test_what_an_analyzer_changes_in_its_copies_changes_nothing_in_the_session():
    target = FakeTarget()
    kept = await target.telemetry.ask(CallEdges(Window(start_ns=0, end_ns=1)))
    asked, callers = target.telemetry.ask, [edge.caller for edge in kept]

    async def answer(question):
        return kept if isinstance(question, CallEdges) else await asked(question)

    async def analyzer(investigation):
        budget, incident = investigation.budget, investigation.incident
        budget.__dict__["queries"] = 10**9
        edges = await investigation.telemetry.call_edges(incident)
        edges[0].__dict__["caller"] = "nobody"
        edges.clear()
        (await investigation.telemetry.schema()).tables.clear()
        incident.__dict__["start_ns"] = 0
        for _ in range(9):
            await investigation.telemetry.query("SELECT 1")

    target.telemetry.ask = answer
    result = await engine(target, analyzer).run(plan(budget=Budget(queries=5)))

    assert "the budget of 5 queries is used up" in result.reason
    assert [edge.caller for edge in kept] == callers
    assert result.windows.incident is not None and result.windows.incident.start_ns > 0


class Hostile(str):
    """Text whose methods run code of the analyzer."""

    def __str__(self):
        raise AssertionError("code of the analyzer")

    __hash__ = str.__hash__
    __eq__ = __contains__ = __len__ = __iter__ = lambda self, *_: Hostile.__str__(self)


def test_arguments_are_plain_before_the_session_uses_them():
    class Map(dict):
        def keys(self):
            raise AssertionError("never asked")

    sent = {Hostile("a"): [Hostile("b"), (1, {"c": Map(d=2.0)})]}
    sql, parameters, limits, tool = plain_arguments(
        "query", (Hostile("SELECT 1"), sent, QueryLimits(), Hostile("x" * 200))
    )
    assert type(tool) is str and tool == "x" * 100
    assert type(sql) is str and parameters == {"a": ["b", (1, {"c": {"d": 2.0}})]}
    assert type(next(iter(parameters))) is str and limits == QueryLimits()
    assert plain_arguments("sleep", (3,)) == (3.0,)
    assert plain_arguments("schema", ()) == ()

    class Sleepy(ServiceHealthOf):
        signals = property(lambda self: time.sleep(100))

    window = Window(start_ns=1, end_ns=2)
    asked = ServiceHealthOf(window, 5)
    assert plain_arguments("ask", (asked, None)) == (asked, "")
    for question in (Sleepy(window, 5.0), 7, type("CallEdges", (), {})()):
        with pytest.raises(QueryRejected, match="is no question to telemetry"):
            plain_arguments("ask", (question, ""))
    nested: list[object] = []
    nested.append(nested)
    with pytest.raises(QueryRejected, match="nested too deep"):
        plain_arguments("query", ("SELECT 1", {"a": nested}, None, ""))
    with pytest.raises(TypeError, match="limits must be QueryLimits, these are dict"):
        plain_arguments("query", ("SELECT 1", None, {}, ""))


def slow_mapping(seconds: float):
    class Slow(dict):
        def __iter__(self):
            time.sleep(seconds)
            return super().__iter__()

    return Slow(FINE)


def endless_mapping():
    class Endless(Mapping):
        def __getitem__(self, key):
            return 1

        def __iter__(self):
            return (f"k{number}" for number in iter(int, 1))

        def __len__(self):
            return 1

    return Endless()


def cyclic():
    answer = {"detected": True}
    answer["usage"] = answer
    return answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (endless_mapping, "not a valid Diagnosis: "),
        (cyclic, "usage.detected: unknown field"),
        (lambda: {"detected": True, "summary": "x" * 5_000_000}, "5.0 MB long"),
        (lambda: {"detected": True, "confidence": float("nan")}, "confidence: "),
        (lambda: {"detected": True, "usage": {"cost_usd": float("inf")}}, "usage.cost_usd: "),
        (lambda: {"detected": True, "anomalies": object()}, "anomalies: "),
    ],
)
async def test_a_hostile_answer_is_an_error_of_the_analyzer(answer, says):
    result = await engine(FakeTarget(), lambda investigation: answer()).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    assert says in result.reason
    assert type(result).model_validate_json(result.model_dump_json()) == result


async def test_the_answer_is_read_within_the_time_of_the_analyzer():
    case = scenario("paymentFailure=50%", timing={"analyze_timeout_s": 0.2})
    answer = slow_mapping(deadline_s(5))
    ticks = 0

    async def others() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.02)
            ticks += 1

    task = asyncio.ensure_future(others())
    result = await engine(FakeTarget(), lambda _: answer).run(plan(case))
    task.cancel()

    assert result.reason == "investigate: no diagnosis within 0.2 s; the analyzer was stopped"
    assert ticks > 1  # the loop of the session was free meanwhile


class Sleepy(BudgetExceeded):
    def __str__(self):
        raise KeyError("again")


@pytest.mark.parametrize("error", [Sleepy("x"), BudgetExceeded("y" * 9000)])
async def test_an_error_that_runs_code_when_it_is_shown_stays_in_the_analyzers_thread(error):
    def analyzer(investigation):
        raise error

    result = await engine(FakeTarget(), analyzer).run(plan())

    assert result.blame is Blame.ANALYZER
    assert "raised Sleepy, showing it raised KeyError" in result.reason or "yyy…" in result.reason
    assert len(result.reason) < 1200


async def test_rubbish_on_the_line_disturbs_nobody():
    async def analyzer(investigation):
        end: AnalyzerEnd = investigation.telemetry._line
        request = Request("drop everything", (), lambda value, error: None)
        rubbish = [None, 7, "x", Cancelled(request), request, Ended(answer=7), Ended]  # type: ignore[arg-type]
        for item in rubbish:
            end.post(item)
        end.post(Request("query", (), lambda value, error: sys.exit(error)))
        table = await investigation.telemetry.query("SELECT 1")
        return {**FINE, "summary": str(len(table))}

    result = await engine(FakeTarget(), analyzer).run(plan())

    assert result.status is Status.SCORED
    assert result.diagnosis is not None and result.diagnosis.summary == "4"


async def test_a_query_whose_wait_is_cancelled_ends_and_one_at_the_end_is_refused():
    target, late, asked = FakeTarget(), [], threading.Semaphore(0)

    async def hang() -> None:
        if target.trouble.passed["telemetry.query"] <= 2:  # later ones are the judge's
            asked.release()
            await asyncio.Event().wait()

    target.trouble.at["telemetry.query"] = hang

    async def analyzer(investigation):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await investigation.telemetry.query("SELECT 1")

        def lasting():
            try:
                asyncio.run(investigation.telemetry.query("SELECT 2"))
            except BudgetExceeded as error:
                late.append(str(error))

        thread = threading.Thread(target=lasting, daemon=True)
        thread.start()
        late.append(thread)
        for _ in range(2):
            await asyncio.to_thread(asked.acquire)
        return FINE

    result = await engine(target, analyzer).run(plan())
    await asyncio.to_thread(late[0].join, deadline_s(5))

    assert result.status is Status.SCORED
    assert "CancelledError" in str(result.queries[0].error)
    assert late[1:] == ["the investigation is over; this telemetry handle was for its time only"]


@pytest.mark.parametrize(
    "leave",
    [
        lambda: os._exit(0),
        lambda: sys.modules[os.name]._exit(status=0),
        lambda: os.execvp(sys.executable, [sys.executable, "-c", ""]),
        lambda: os.execve("/bin/true", ["true"], {}),
    ],
)
async def test_an_analyzer_cannot_end_the_run_as_if_it_had_passed(leave):
    result = await engine(FakeTarget(), lambda investigation: leave()).run(plan())

    assert result.blame is Blame.ANALYZER
    assert "would have ended the run without a result" in result.reason


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists children by /proc")
async def test_child_processes_that_an_analyzer_leaves_behind_are_noted():
    children = []

    def leaves(investigation):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        child = os.fork()
        if not child:
            time.sleep(deadline_s(60))
            os._exit(0)
        children.append(child)
        return FINE

    result = await engine(FakeTarget(), leaves).run(plan())
    os.kill(children[0], signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, children[0], 0)

    assert result.status is Status.SCORED
    assert result.notes == (
        f"1 child process of the investigation still running after it (process id {children[0]}); "
        "let the analyzer end what it starts",
    )


def test_exits_that_nobody_takes_for_success_are_passed_on():
    refuse_silent_exits()
    refuse_silent_exits()
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    calls = []
    guarded = type(os._exit)("_exit", calls.append, os.getpid())
    thread = threading.Thread(target=guarded, args=(3,))
    thread.start()
    thread.join()
    guarded(0)
    assert calls == [3, 0]  # another thread with an error, and the main thread


@pytest.mark.parametrize("text", ["'a\\" * 50_000, "/*" * 50_000, "'" * 50_001, "-" * 50_001])
def test_reading_the_sources_of_a_statement_takes_linear_time(text):
    assert data_sources(text) == ()
