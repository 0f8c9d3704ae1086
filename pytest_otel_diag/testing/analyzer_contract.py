"""The contract that every analyzer fulfils.

Subclass it in a test module and provide the fixture ``analyzer``, in any form that a session accepts: an
object or class with ``diagnose``, or a function, sync or async::

    class TestMine(AnalyzerContract):
        @pytest.fixture
        def analyzer(self):
            return MyAgent(model="...")

Set ``deterministic = False`` if the analyzer may answer the same question differently. Override the
fixture ``telemetry_of`` (see :mod:`.telemetry_contract`) to use another store than the embedded one. The
contract covers behaviour; suites measure how often the diagnosis is right.
The test methods are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import pytest

from pytest_otel_diag.errors import BudgetExceeded, TelemetryError, TelemetryUnavailable
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.questions import Question
from pytest_otel_diag.model.session import Budget
from pytest_otel_diag.model.telemetry import QueryLimits, Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Analyzer, Investigation, Telemetry
from pytest_otel_diag.sessions.investigation.answer import as_diagnosis
from pytest_otel_diag.sessions.investigation.loading import as_analyzer
from pytest_otel_diag.sessions.investigation.metering import MeteredTelemetry
from pytest_otel_diag.sessions.investigation.run import run_analyzer
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.telemetry_contract import (
    ODD_NAME,
    SECOND_NS,
    START_NS,
    TelemetryOf,
    span,
    traces_table,
)

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

BASELINE = Window(start_ns=START_NS, end_ns=START_NS + 60 * SECOND_NS)
INCIDENT = Window(start_ns=BASELINE.end_ns, end_ns=BASELINE.end_ns + 60 * SECOND_NS)
TIMEOUT_S = 60.0


class StandingClock:
    """A clock that stands at the end of the incident; sleeping returns immediately."""

    def now(self) -> Nanos:
        """Return the end of the incident."""
        return INCIDENT.end_ns

    async def sleep(self, seconds: float) -> None:  # noqa: ARG002 - the port
        """Return immediately."""
        await asyncio.sleep(0)


class BrokenTelemetry(Telemetry):
    """An unreachable store that counts queries; with ``hang`` they never return."""

    def __init__(self, *, hang: bool = False) -> None:
        self.asked = 0
        self._hang = hang

    async def _fail(self) -> NoReturn:
        self.asked += 1
        if self._hang:
            await asyncio.Event().wait()
        raise TelemetryUnavailable("the store at host:8123 refuses connections")

    async def query(
        self,
        sql: str,  # noqa: ARG002 - the port
        parameters: Mapping[str, Any] | None = None,  # noqa: ARG002
        limits: QueryLimits | None = None,  # noqa: ARG002
    ) -> Table:
        """Fail."""
        await self._fail()

    async def schema(self) -> TelemetrySchema:
        """Fail."""
        await self._fail()

    async def ask(self, question: Question[T]) -> T:  # noqa: ARG002 - the port
        """Fail."""
        await self._fail()


def incident_traces() -> pyarrow.Table:
    """Return two minutes of traces, two a second: front → middle → a service with an odd name.

    In the second minute the last service takes ten times as long and fails every other call.
    """
    rows: list[dict[str, Any]] = []
    for number in range(240):
        at_s, wobble = number / 2, number * 7919 % 11
        faulty = at_s >= 60
        slow, failing = (500.0, number % 2 == 0) if faulty else (50.0, False)
        back = slow + wobble
        trace = f"{number:032x}"
        ids = [f"{number * 8 + index + 1:016x}" for index in range(4)]
        rows += [
            span(trace, ids[0], operation="GET /", at_s=at_s, ms=back + 40 + wobble, error=failing),
            span(trace, ids[1], ids[0], operation="call", kind="Client", at_s=at_s + 0.005, ms=back + 25),
            span(trace, ids[2], ids[1], service="middle", at_s=at_s + 0.01, ms=back + 15, error=failing),
            span(trace, ids[3], ids[2], service=ODD_NAME, at_s=at_s + 0.015, ms=back, error=failing),
        ]
    return traces_table(rows)


def dirty_traces() -> pyarrow.Table:
    """Return traces as broken instrumentation writes them, before and during the incident.

    Missing parents, cycles, spans that are their own parent, duplicate ids, children before their
    parents and without duration, empty names.
    """
    rows: list[dict[str, Any]] = []
    for number in range(120):
        at_s, trace = float(number), f"{number:032x}"
        a, b, c, d = (f"{number * 8 + index + 1:016x}" for index in range(4))
        rows += [
            span(trace, a, b, at_s=at_s, ms=10),
            span(trace, b, a, service="middle", at_s=at_s, ms=10),
            span(trace, c, c, service="selfish", at_s=at_s, ms=0),
            span(trace, d, "00000000deadbeef", service="orphan", at_s=at_s, ms=5),
            span(trace, d, "", service="", operation="", kind="", at_s=at_s - 0.5, ms=3, error=True),
            span(trace, d, d, service=ODD_NAME, operation=ODD_NAME, at_s=at_s + 0.2, ms=3),
        ]
    return traces_table(rows)


def one_service_traces() -> pyarrow.Table:
    """Return two minutes of traces of a system with a single service."""
    return traces_table(
        [span(f"{n:032x}", f"{n + 1:016x}", at_s=float(n), ms=20 + n % 7) for n in range(120)]
    )


def investigation_of(telemetry: Telemetry, **changes: Any) -> Investigation:
    """Return the question about the second minute, with the first as baseline."""
    question = Investigation(
        session_id="contract",
        incident=INCIDENT,
        baseline=BASELINE,
        reference=(),
        telemetry=telemetry,
        clock=StandingClock(),
        budget=Budget(time_s=TIMEOUT_S),
        seed=7,
    )
    return replace(question, **changes)


class AnalyzerContract:
    """Subclass this to test an analyzer."""

    deterministic: ClassVar[bool] = True

    @pytest.fixture
    def telemetry_of(self) -> Iterator[TelemetryOf]:
        """Stores of the embedded engine."""
        store = _embedded()
        with ExitStack() as stack:

            def make(
                tables: Mapping[str, pyarrow.Table],
                *,
                now: Callable[[], Nanos] | None = None,
                visible: Sequence[Window] | None = None,
            ) -> Telemetry:
                database = f"analyzer_contract_{uuid.uuid4().hex[:12]}"
                store.create_database(database)
                stack.callback(store.drop_database, database)
                for table, rows in tables.items():
                    store.ingest_arrow(database, table, rows)
                telemetry = store.telemetry(database, now=now, visible=visible)
                stack.callback(telemetry.close)
                return telemetry

            yield make

    @pytest.fixture
    def adapted(self, analyzer: object) -> Analyzer:
        """The analyzer in the form that a session uses."""
        return as_analyzer(analyzer)

    @pytest.fixture
    def incident(self, telemetry_of: TelemetryOf) -> Telemetry:
        """Telemetry with a visible fault."""
        return telemetry_of({"otel_traces": incident_traces()})

    async def test_it_returns_a_diagnosis_that_can_be_stored(
        self, adapted: Analyzer, incident: Telemetry
    ) -> None:
        """It runs on a separate thread and event loop, as in a session."""
        question = investigation_of(MeteredTelemetry(incident, Budget(), monotonic=_loop_time))
        answer = await run_analyzer(adapted, question, timeout_s=TIMEOUT_S, grace_s=1.0)
        assert Diagnosis.model_validate_json(answer.model_dump_json()) == answer

    async def test_it_names_services_as_telemetry_does(self, adapted: Analyzer, incident: Telemetry) -> None:
        """Names match telemetry exactly, quotes included; any other name scores as wrong."""
        answer = await _answer(adapted, investigation_of(incident))
        known = {"front", "middle", ODD_NAME}
        assert {cause.service for cause in answer.root_causes} <= known
        assert {anomaly.service for anomaly in answer.anomalies} <= known
        assert {service for path in answer.critical_paths for service in path.services} <= known

    async def test_its_query_runs_unchanged(self, adapted: Analyzer, incident: Telemetry) -> None:
        """The query is read-only, stays within the limits, needs no parameters and returns a row."""
        answer = await _answer(adapted, investigation_of(incident))
        if answer.query is not None:
            assert len(await incident.query(answer.query.sql)) > 0

    async def test_the_same_question_gets_the_same_answer(
        self, adapted: Analyzer, incident: Telemetry
    ) -> None:
        """Equal seeds give equal diagnoses; skipped unless the analyzer is deterministic."""
        if not self.deterministic:
            pytest.skip("this analyzer says it is not deterministic")
        first = await _answer(adapted, investigation_of(incident))
        second = await _answer(adapted, investigation_of(incident))
        assert first == second

    @pytest.mark.parametrize(
        "changes",
        [
            {"baseline": None},
            {"baseline": None, "reference": (BASELINE,)},
            {"reference": (Window(start_ns=0, end_ns=SECOND_NS),)},
            {"baseline": Window(start_ns=START_NS, end_ns=START_NS)},
            {"incident": Window(start_ns=INCIDENT.end_ns, end_ns=INCIDENT.end_ns)},
            {"incident": Window(start_ns=2 * START_NS, end_ns=2 * START_NS + SECOND_NS)},
        ],
        ids=["no-baseline", "reference-only", "empty-reference", "no-time", "no-incident", "wrong-time"],
    )
    async def test_odd_windows_are_answered(
        self, adapted: Analyzer, incident: Telemetry, changes: Mapping[str, Any]
    ) -> None:
        """It returns a diagnosis for windows without telemetry, and without a baseline."""
        assert isinstance(await _answer(adapted, investigation_of(incident, **changes)), Diagnosis)

    @pytest.mark.parametrize("kind", ["one-service", "dirty", "empty"])
    async def test_odd_telemetry_is_answered(
        self, adapted: Analyzer, telemetry_of: TelemetryOf, kind: str
    ) -> None:
        """It returns a diagnosis or raises TelemetryError that names what is missing."""
        tables: dict[str, pyarrow.Table] = {}
        if kind != "empty":
            tables["otel_traces"] = one_service_traces() if kind == "one-service" else dirty_traces()
        try:
            assert isinstance(await _answer(adapted, investigation_of(telemetry_of(tables))), Diagnosis)
        except TelemetryError as error:
            assert str(error)

    async def test_a_broken_store_is_not_mistaken_for_a_healthy_system(self, adapted: Analyzer) -> None:
        """An unavailable store is an error, never the diagnosis that nothing is wrong."""
        broken = BrokenTelemetry()
        try:
            await _answer(adapted, investigation_of(broken))
        except TelemetryError:
            return
        assert broken.asked == 0

    async def test_a_small_budget_is_respected(self, adapted: Analyzer, incident: Telemetry) -> None:
        """It returns a diagnosis from partial data, or lets BudgetExceeded propagate."""
        budget = Budget(queries=1, time_s=TIMEOUT_S)
        metered = MeteredTelemetry(incident, budget, monotonic=_loop_time)
        try:
            answer = await _answer(adapted, investigation_of(metered, budget=budget))
        except BudgetExceeded:
            pass
        else:
            assert isinstance(answer, Diagnosis)
        assert len(metered.records) <= 1

    async def test_it_can_be_cancelled(self, adapted: Analyzer) -> None:
        """Cancelling ends it while it waits for a query that never returns."""
        hanging = BrokenTelemetry(hang=True)
        task = asyncio.ensure_future(adapted.diagnose(investigation_of(hanging)))
        await asyncio.wait({task}, timeout=0.5)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=TIMEOUT_S)
        assert done


@cache
def _embedded() -> Store:
    """Return one store for the whole process, because opening the engine takes longer than a test."""
    return Store.open("chdb://memory")


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


async def _answer(analyzer: Analyzer, question: Investigation) -> Diagnosis:
    return as_diagnosis(await asyncio.wait_for(analyzer.diagnose(question), TIMEOUT_S))
