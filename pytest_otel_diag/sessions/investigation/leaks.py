"""Whether telemetry named the injected flag, and whether the analyzer read that."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from pytest_otel_diag.model.questions import FlagMentions
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import Blame, LeakAudit, QueryRecord, Status
from pytest_otel_diag.model.telemetry import Table
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.ending import SessionStopped, describe

_EVALUATIONS = ("feature_flag", "featureflag")
"""In a statement: the attributes, events and metrics that OpenTelemetry gives evaluations of flags."""
_ROWS_READ = 10_000


def injected_flags(scenario: Scenario) -> tuple[str, ...]:
    """Return the keys of the flags that the faults set, in recordings those of the recorded incident."""
    return tuple(dict.fromkeys([*(fault.flag for fault in scenario.faults), *scenario.expectation.flags]))


class FlagReading:
    """Recognises queries that read flags; upper and lower case are the same."""

    def __init__(self, flags: Iterable[str]) -> None:
        self._flags = tuple(flag.lower() for flag in flags if flag)

    def statement(self, sql: str, parameters: object) -> bool:
        """Whether the statement asks for evaluations of flags, or names an injected one."""
        if not self._flags:
            return False
        text = f"{sql}\n{parameters!r}".lower()
        return any(name in text for name in (*_EVALUATIONS, *self._flags))

    def answer(self, result: object) -> bool:
        """Whether the first :data:`_ROWS_READ` rows of a result name an injected flag."""
        if not self._flags:
            return False
        if isinstance(result, Table):
            return any(self._named(column[:_ROWS_READ]) for column in result.columns)
        if not isinstance(result, Sequence) or not result:
            return False
        return any(
            self._named(list({getattr(row, name) for row in result[:_ROWS_READ]}))
            for name, kind in inspect.get_annotations(type(result[0])).items()
            if kind in {"str", str}
        )

    def _named(self, values: Sequence[Any]) -> bool:
        first = next((value for value in values if value is not None), None)
        if first is None or isinstance(first, int | float):
            return False
        try:
            text = "\n".join(values)
        except TypeError:  # maps, arrays and texts that may be missing
            text = repr(values)
        text = text.lower()
        return any(name in text for name in self._flags)


async def refuse_leaks(context: SessionContext) -> None:
    """Raise SessionStopped where the policy is to refuse, and telemetry names the flag or cannot say."""
    if context.settings.leaks != "refuse" or not injected_flags(context.scenario):
        return
    try:
        audit = await _audit(context)
    except Exception as error:
        raise SessionStopped(
            Status.ERROR,
            f"investigate: whether telemetry names the flag is unknown: {describe(error)}",
            Blame.INFRASTRUCTURE,
        ) from error
    context.log.leaks = audit
    if audit.rows:
        raise SessionStopped(
            Status.INVALID,
            f"telemetry names the injected flag in {audit.described}, which --otel-diag-leaks=refuse does "
            "not allow; run with redact to hide it, or with keep to accept it",
        )


async def audit_leaks(context: SessionContext) -> None:
    """Record the rows that name the injected flag and the queries that read it; what fails becomes a note.

    A session without a flag, or whose analyzer has read nothing, is left alone.
    """
    log = context.log
    if not injected_flags(context.scenario) or not log.queries:
        return
    try:
        audit = log.leaks or await _audit(context)
    except Exception as error:
        log.note(f"whether telemetry names the flag is unknown: {describe(error)}")
        return
    log.leaks = audit.model_copy(
        update={
            "queries_asked": _count(log.queries, "statement"),
            "queries_answered": _count(log.queries, "answer"),
        }
    )


def _count(queries: Iterable[QueryRecord], place: str) -> int:
    return sum(place in query.names_flag for query in queries)


async def _audit(context: SessionContext) -> LeakAudit:
    incident = context.log.windows.incident
    assert incident is not None, "set when the wait for the impact ended"
    question = FlagMentions(incident, injected_flags(context.scenario))
    async with asyncio.timeout(context.settings.judge_timeout_s):
        found = await context.system.telemetry.ask(question)
    return LeakAudit(policy=context.settings.leaks, rows={each.kind: each.rows for each in found})
