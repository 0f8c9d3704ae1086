"""Values of the fixtures: sessions of a test, and access to flags and telemetry of the target."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, NoReturn

import pytest

from pytest_otel_diag.errors import ScenarioError, ScenarioRejected
from pytest_otel_diag.model.base import Nanos, to_json
from pytest_otel_diag.model.flags import FlagChange, FlagDocument, FlagValue, ServedFlag
from pytest_otel_diag.model.scenario import Expectation, Fault, Scenario
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.model.telemetry import QueryLimits, Table
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.plugin import scenarios
from pytest_otel_diag.plugin.loop_thread import Pending
from pytest_otel_diag.plugin.markers import OtelScenario
from pytest_otel_diag.plugin.retained_target import RetainedTarget
from pytest_otel_diag.plugin.runtime import Runtime, runtime_of
from pytest_otel_diag.plugin.scenarios import NO_SCENARIO
from pytest_otel_diag.plugin.xdist import SPOOL
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.runs.runner import PreparedScenario
from pytest_otel_diag.scoring.assertions import DiagnosedSession, SessionNotScored
from pytest_otel_diag.scoring.measures import time_to_root_cause_s
from pytest_otel_diag.scoring.reasons import reason_of
from pytest_otel_diag.scoring.text import visible

SESSIONS: pytest.StashKey[list[SessionResult]] = pytest.StashKey()
"""On an item: its sessions that ended, in order."""

RETAINED: pytest.StashKey[RetainedTarget] = pytest.StashKey()
"""On an item: the target with its sessions still open, for a test that looks at them."""

HELD: pytest.StashKey[bool] = pytest.StashKey()
"""On an item: it holds an exclusive target open, to look at it or to set flags."""

PROPERTY = "otel_diag."
"""Begins the name of each property of a test that this plugin writes."""

_ACCESS_FIXTURES = {"otel_telemetry", "otel_flags"}


def describe(result: SessionResult) -> str:
    """Return why a session was not scored, as a message for a person."""
    blame = f" (by {result.blame.value})" if result.blame else ""
    lines = [f"session not scored: {result.status.value}{blame}: {result.reason}"]
    lines += [f"  {phase.phase.value:<12}{phase.outcome:<8}{phase.detail}" for phase in result.phases]
    if result.trace:
        lines += ["", *result.trace.rstrip().splitlines()]
    if result.cleanup is not None and result.cleanup.failed:
        lines.append(f"  A FAULT MAY STILL BE ON: {result.cleanup.detail}")
    return visible("\n".join(lines))


class PendingDiagnosis:
    """A running session: ``await`` it, or call :meth:`result` in a sync test.

    Both raise SessionNotScored for a session that ended as invalid or error, and skip the test for a session
    that was skipped.
    """

    def __init__(self, pending: Pending[SessionResult]) -> None:
        self._pending = pending

    def result(self) -> DiagnosedSession:
        """Wait for the answer."""
        __tracebackhide__ = True
        return _answer(self._pending.result())

    def __await__(self) -> Generator[Any, None, DiagnosedSession]:
        __tracebackhide__ = True
        return self._wait().__await__()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{name!r} belongs to the answer, and this session still runs: await it, or call .result() first"
        )

    async def _wait(self) -> DiagnosedSession:
        __tracebackhide__ = True
        return _answer(await self._pending)


class Diagnose:
    """Runs sessions for one test; the value of the fixture ``diagnose``."""

    def __init__(self, item: pytest.Item, repeat: int) -> None:
        self._item = item
        self._repeat = repeat
        self._runtime: Runtime = runtime_of(item.config)
        self._started: list[Pending[SessionResult]] = []
        self._retained: RetainedTarget | None = None
        if self._runtime.target.seeded and _ACCESS_FIXTURES & set(getattr(item, "fixturenames", ())):
            self._retained = item.stash[RETAINED] = RetainedTarget(self._runtime.target)

    def __call__(
        self,
        faults: Sequence[str | Fault] = (),
        *,
        scenario: Scenario | str | None = None,
        expectation: Expectation | None = None,
        analyzer: str | None = None,
        timing: Mapping[str, float] | None = None,
    ) -> PendingDiagnosis:
        """Start a session with *faults* (``"flag"`` or ``"flag=variant"``), or a whole *scenario*.

        *timing* changes how long its phases may take, in seconds, by the names of the marker otel_timing.
        Without any fault the session is a control. Raises ScenarioError with every mistake, before any flag
        is touched.
        """
        chosen = scenarios.timed(self._scenario(faults, scenario), timing or {})
        if expectation is not None:
            chosen = chosen.expecting(expectation)
        prepared = self._runtime.prepare(chosen, repeat=self._repeat, test_id=self._item.nodeid)
        return self.start(prepared, analyzer)

    def start(self, prepared: PreparedScenario, analyzer: str | None = None) -> PendingDiagnosis:
        """Start a session.

        Raises ScenarioError when the test itself holds an exclusive target: the session would wait for ever.
        """
        if self._item.stash.get(HELD, False):
            raise ScenarioError(
                f"the test holds the target {self._runtime.target.name} by otel_flags or otel_telemetry: "
                "it takes one session at a time; run diagnoses first, or use a separate test"
            )
        pending = self._runtime.start(prepared, self._keep, analyzer=analyzer, target=self._retained)
        self._started.append(pending)
        return PendingDiagnosis(pending)

    def marked(self) -> PendingDiagnosis:
        """Start the session that the test's markers describe."""
        prepared = scenarios.prepared_of(self._item)
        if prepared is None:
            raise ScenarioError(NO_SCENARIO)
        return self.start(prepared)

    def close(self) -> None:
        """Cancel sessions that still run, and wait until each has undone its fault."""
        for pending in self._started:
            pending.cancel()
        if self._retained is not None:
            self._runtime.loop.run(self._retained.release())

    def _scenario(self, faults: Sequence[str | Fault], scenario: Scenario | str | None) -> Scenario:
        if isinstance(scenario, Scenario):
            return scenario
        target = self._runtime.target
        if scenario is not None:
            found, mistakes = scenarios.from_markers([OtelScenario(scenario)], "", target)
            if found is None:
                raise ScenarioRejected(mistakes)
            return found
        if isinstance(faults, str):
            raise ScenarioError(f"faults={faults!r}: pass a list, for example [{faults!r}]")
        return scenarios.for_faults([_fault(fault) for fault in faults], self._item.nodeid, target)

    def _keep(self, result: SessionResult) -> None:
        """Keep a result until the test's report carries it, in a worker on disk as well."""
        self._item.stash.setdefault(SESSIONS, []).append(result)
        self._runtime.unreported[result.session_id] = result
        if SPOOL in self._item.config.stash:
            self._item.config.stash[SPOOL].add(to_json(result))
        self._item.user_properties.extend(properties(result))


def properties(result: SessionResult) -> list[tuple[str, str]]:
    """Return the session's outcome as properties of the test, as junit reports show them."""
    verdict = result.verdict
    usage = result.usage
    tokens, cost_usd = usage.input_tokens + usage.output_tokens, usage.cost_usd
    named = result.diagnosis.root_causes[0] if result.diagnosis and result.diagnosis.root_causes else None
    values = {
        "session": result.session_id,
        "scenario": result.scenario.id,
        "analyzer": result.analyzer,
        "status": result.status.value,
        "verdict": result.summary,
        "reason": reason_of(result),
        "detected": verdict and verdict.detected,
        "root_cause": named and named.service,
        "root_cause_rank": verdict and verdict.service_rank,
        "evidence": verdict and verdict.grounding and verdict.grounding.described,
        "session_s": result.wall_s,
        "time_to_impact_s": verdict and verdict.time_to_impact_s,
        "time_to_diagnosis_s": verdict and verdict.time_to_diagnosis_s,
        "time_to_root_cause_s": verdict and time_to_root_cause_s(verdict),
        "prompts": usage.prompts or None,
        "human_prompts": usage.human_prompts or None,
        "steps": usage.steps or None,
        "tokens": tokens or None,
        "cost_usd": cost_usd or None,
    }
    return [(f"{PROPERTY}{name}", str(value)) for name, value in values.items() if value not in (None, "")]


def _fault(fault: str | Fault) -> Fault:
    if isinstance(fault, Fault):
        return fault
    flag, separator, variant = fault.partition("=")
    return Fault(flag=flag, variant=variant if separator else None)


def _answer(result: SessionResult) -> DiagnosedSession:
    __tracebackhide__ = True
    if result.status is Status.SKIPPED:
        pytest.skip(result.reason)
    if result.status is not Status.SCORED:
        raise SessionNotScored(describe(result), result.status)
    return DiagnosedSession(result)


class TargetAccess:
    """A session with the target for the test's own use, opened by the first use and closed after the test."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._runtime = runtime_of(item.config)
        self._stack = AsyncExitStack()
        self._session: TargetSession | None = None
        self._before: FlagDocument | None = None

    async def session(self) -> TargetSession:
        """Return the open session, its clock at the end of the test's last diagnosis if there is one.

        On a simulated system that is the diagnosis' own session, after undo and recovery.
        """
        retained = self._item.stash.get(RETAINED, None)
        if retained is not None and retained.last is not None:
            return retained.last
        if self._session is None:
            opened = self._runtime.target.open(
                self._prepared().scenario, f"access-{abs(hash(self._item.nodeid)):x}"
            )
            self._session = await self._stack.enter_async_context(opened)
            self._item.stash[HELD] = self._runtime.target.exclusive
        await self._catch_up(self._session)
        return self._session

    async def document(self) -> TargetSession:
        """Return the open session with its flags noted for the restore after the test."""
        session = await self.session()
        if self._before is None:
            self._before = await session.flags.document()
            self._stack.push_async_callback(session.flags.restore, self._before)
        return session

    def close(self) -> None:
        """Restore the flags and close the session."""
        self._runtime.loop.run(self._stack.aclose())

    def pending(self, coroutine: Any) -> Pending[Any]:
        """Run the coroutine on the thread of sessions."""
        return self._runtime.loop.submit(coroutine)

    def _prepared(self) -> PreparedScenario:
        prepared = scenarios.prepared_of(self._item)
        if prepared is not None:
            return prepared
        quiet = Scenario(id=self._item.nodeid, expectation=Expectation(healthy=True))
        try:
            return self._runtime.prepare(quiet, test_id=self._item.nodeid)
        except ScenarioRejected:
            raise ScenarioError(
                f"target {self._runtime.target.name} opens for a scenario: {NO_SCENARIO}"
            ) from None

    async def _catch_up(self, session: TargetSession) -> None:
        windows = [result.windows.incident for result in self._item.stash.get(SESSIONS, [])]
        ends = [window.end_ns for window in windows if window is not None]
        if ends and session.clock.now() < max(ends):
            await session.clock.sleep((max(ends) - session.clock.now()) / NANOS_PER_SECOND)


class FlagAccess:
    """Flags of the target for one test; the plugin restores them after the test.

    Every method returns something to ``await``, or to call ``.result()`` on in a sync test.
    """

    def __init__(self, target: TargetAccess) -> None:
        self._target = target

    def set(self, key: str, variant: str) -> Pending[None]:
        """Set a flag to a variant; raises FlagError for unknown names."""
        return self._target.pending(self._set(key, variant))

    def served(self, key: str, context: Mapping[str, FlagValue] | None = None) -> Pending[ServedFlag]:
        """Return what the flag evaluates to now."""
        return self._target.pending(self._served(key, context or {}))

    def document(self) -> Pending[FlagDocument]:
        """Return all flags."""
        return self._target.pending(self._document())

    async def _set(self, key: str, variant: str) -> None:
        session = await self._target.document()
        await session.flags.apply(FlagChange(key=key, variant=variant))

    async def _served(self, key: str, context: Mapping[str, FlagValue]) -> ServedFlag:
        return await (await self._target.session()).flags.served(key, context)

    async def _document(self) -> FlagDocument:
        return await (await self._target.session()).flags.document()


class TelemetryAccess:
    """Telemetry of the target for one test, up to the end of the test's last diagnosis.

    Every method returns something to ``await``, or to call ``.result()`` on in a sync test.
    """

    def __init__(self, target: TargetAccess) -> None:
        self._target = target

    def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, limits: QueryLimits | None = None
    ) -> Pending[Table]:
        """Run one SELECT, as an analyzer could."""
        return self._target.pending(self._query(sql, parameters, limits))

    def now(self) -> Pending[Nanos]:
        """Return the instant up to which telemetry is visible."""
        return self._target.pending(self._now())

    def advance(self, seconds: float) -> Pending[None]:
        """Let time pass on the target's clock."""
        return self._target.pending(self._advance(seconds))

    async def _query(
        self, sql: str, parameters: Mapping[str, Any] | None, limits: QueryLimits | None
    ) -> Table:
        return await (await self._target.session()).telemetry.query(sql, parameters, limits)

    async def _now(self) -> Nanos:
        return (await self._target.session()).clock.now()

    async def _advance(self, seconds: float) -> None:
        await (await self._target.session()).clock.sleep(seconds)
