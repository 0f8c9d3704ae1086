"""The ``diagnosis`` and ``diagnose`` fixtures' work: run sessions of a test and hand out the answers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NoReturn

import pytest

from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.scenario import Expectation, Fault, Scenario
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.plugin import scenarios
from pytest_otel_diag.plugin.loop_thread import Pending
from pytest_otel_diag.plugin.markers import OtelScenario
from pytest_otel_diag.plugin.retained_target import KeepingTarget
from pytest_otel_diag.plugin.runtime import Runtime, runtime_of
from pytest_otel_diag.plugin.stash import HELD, KEPT, SESSIONS, SPOOL
from pytest_otel_diag.runs.directory import to_json
from pytest_otel_diag.scoring.assertions import DiagnosedSession, SessionNotScored

NO_SCENARIO = (
    "the test names no scenario; mark it with otel_flag(key, variant), "
    "otel_control(), otel_scenario(id) or otel_recorded(kind)"
)


def describe(result: SessionResult) -> str:
    """Return why a session was not scored, for a person."""
    blame = f" (by {result.blame.value})" if result.blame else ""
    lines = [f"session not scored: {result.status.value}{blame}: {result.reason}"]
    lines += [f"  {phase.phase.value:<12}{phase.outcome:<8}{phase.detail}" for phase in result.phases]
    if result.trace:
        lines += ["", *result.trace.rstrip().splitlines()]
    if result.cleanup is not None and result.cleanup.failed:
        lines.append(f"  A FAULT MAY STILL BE ON: {result.cleanup.detail}")
    return "\n".join(lines)


LOOKING = {"otel_telemetry", "otel_flags"}
"""Fixtures by which a test looks into the system after the diagnosis."""


class PendingDiagnosis:
    """A session that runs: ``await`` it, or call :meth:`result` in a sync test.

    Both raise SessionNotScored for a session that ended as invalid or error, and skip the test where it was
    skipped.
    """

    def __init__(self, pending: Pending[SessionResult]) -> None:
        self._pending = pending

    def result(self) -> DiagnosedSession:
        """Wait for the answer."""
        return _answer(self._pending.result())

    def __await__(self) -> Generator[Any, None, DiagnosedSession]:
        return self._wait().__await__()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{name!r} belongs to the answer, and this session still runs: await it, or call .result() first"
        )

    async def _wait(self) -> DiagnosedSession:
        return _answer(await self._pending)


class Diagnose:
    """Runs sessions for one test; the value of the fixture ``diagnose``."""

    def __init__(self, item: pytest.Item, repeat: int) -> None:
        self._item = item
        self._repeat = repeat
        self._runtime: Runtime = runtime_of(item.config)
        self._started: list[Pending[SessionResult]] = []
        self._kept: KeepingTarget | None = None
        if self._runtime.target.seeded and LOOKING & set(getattr(item, "fixturenames", ())):
            self._kept = item.stash[KEPT] = KeepingTarget(self._runtime.target)

    def __call__(
        self,
        faults: Sequence[str | Fault] = (),
        *,
        scenario: Scenario | str | None = None,
        expectation: Expectation | None = None,
        analyzer: str | None = None,
    ) -> PendingDiagnosis:
        """Start a session with *faults* (``"flag"`` or ``"flag=variant"``), or a whole *scenario*.

        No fault at all is a control. Raises ScenarioError with every mistake, before any flag is
        touched.
        """
        chosen = self._scenario(faults, scenario)
        if expectation is not None:
            chosen = chosen.model_copy(update={"expectation": expectation})
        if mistakes := scenarios.checked(chosen, self._runtime.target):
            raise ScenarioError("; ".join(mistakes))
        return self.start(chosen, analyzer)

    def start(self, scenario: Scenario, analyzer: str | None = None) -> PendingDiagnosis:
        """Start a session of a scenario that is already validated.

        Raises ScenarioError where the test holds the only place of the target itself: it would wait for ever.
        """
        if self._item.stash.get(HELD, False):
            raise ScenarioError(
                f"the test holds the target {self._runtime.target.name} by otel_flags or otel_telemetry: "
                "it takes one session at a time; ask for diagnoses first, or look in a test of its own"
            )
        pending = self._runtime.start(
            scenario,
            self._ended,
            test_id=self._item.nodeid,
            repeat=self._repeat,
            analyzer=analyzer,
            target=self._kept,
        )
        self._started.append(pending)
        return PendingDiagnosis(pending)

    def close(self) -> None:
        """Give up on sessions that still run, and let each undo its fault."""
        for pending in self._started:
            pending.cancel()
        if self._kept is not None:
            self._runtime.background.run(self._kept.close())

    def marked(self) -> PendingDiagnosis:
        """Start the session that the test's markers describe."""
        scenario, mistakes = scenarios.of_item(self._item, self._runtime.target)
        if scenario is None or mistakes:
            raise ScenarioError("; ".join(mistakes) or NO_SCENARIO)
        return self.start(scenario)

    def _scenario(self, faults: Sequence[str | Fault], scenario: Scenario | str | None) -> Scenario:
        if isinstance(scenario, Scenario):
            return scenario
        target = self._runtime.target
        if scenario is not None:
            found, mistakes = scenarios.from_markers([OtelScenario(scenario)], "", target)
            if found is None:
                raise ScenarioError("; ".join(mistakes))
            return found
        if isinstance(faults, str):
            raise ScenarioError(f"faults={faults!r}: give a list, for example [{faults!r}]")
        return scenarios.for_faults([_fault(fault) for fault in faults], self._item.nodeid, target)

    def _ended(self, result: SessionResult) -> None:
        self._item.stash.setdefault(SESSIONS, []).append(result)
        self._runtime.unreported[result.session_id] = result
        if SPOOL in self._item.config.stash:
            self._item.config.stash[SPOOL].add(to_json(result))
        self._item.user_properties.extend(properties(result))


def properties(result: SessionResult) -> list[tuple[str, str]]:
    """Return the session's outcome as properties of the test, as junit reports show them."""
    verdict = result.verdict
    named = result.diagnosis.root_causes[0] if result.diagnosis and result.diagnosis.root_causes else None
    values = {
        "session": result.session_id,
        "scenario": result.scenario.id,
        "analyzer": result.analyzer,
        "status": result.status.value,
        "verdict": result.outcome,
        "reason": result.reason,
        "detected": verdict and verdict.detected,
        "root_cause": named and named.service,
        "root_cause_rank": verdict and verdict.service_rank,
        "time_to_diagnosis_s": verdict and verdict.time_to_diagnosis_s,
    }
    return [(f"otel_diag.{name}", str(value)) for name, value in values.items() if value not in (None, "")]


def _fault(fault: str | Fault) -> Fault:
    if isinstance(fault, Fault):
        return fault
    flag, separator, variant = fault.partition("=")
    return Fault(flag=flag, variant=variant if separator else None)


def _answer(result: SessionResult) -> DiagnosedSession:
    if result.status is Status.SKIPPED:
        pytest.skip(result.reason)
    if result.status is not Status.SCORED:
        raise SessionNotScored(describe(result), result.status)
    return DiagnosedSession(result)
