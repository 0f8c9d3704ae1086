"""Runs the analyzer in a thread that the session can abandon, and validates its diagnosis."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from pytest_otel_diag.errors import AnalyzerError, BudgetExceeded
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.ports import Analyzer, Investigation
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.ending import describe
from pytest_otel_diag.sessions.investigation.crash import crashed
from pytest_otel_diag.sessions.investigation.metering import HomeLoop, InvestigationClock, MeteredTelemetry
from pytest_otel_diag.sessions.investigation.threads import start_daemon

_SHOWN_ERRORS = 5

MOST_BYTES = 4_000_000
"""Size limit of a diagnosis as JSON: it travels with the test report and is one line of the run."""


async def investigate(context: SessionContext, analyzer: Analyzer) -> tuple[Diagnosis, float]:
    """Let the analyzer answer within its budget; return its diagnosis and the wall seconds it took.

    Its queries and its diagnosis are recorded. Raises AnalyzerError or BudgetExceeded.
    """
    log, plan, settings = context.log, context.log.plan, context.settings
    timeout_s = min(context.timing.analyze_timeout_s, plan.budget.time_s)
    home = HomeLoop()
    budget = plan.budget.model_copy(update={"time_s": timeout_s})
    monotonic = settings.wall.monotonic
    metered = MeteredTelemetry(context.system.telemetry, budget, home, monotonic=monotonic)
    assert log.windows.incident is not None, "set when the wait for the impact ended"
    investigation = Investigation(
        session_id=opaque_id(plan.session_id),
        incident=log.windows.incident,
        baseline=log.windows.baseline,
        reference=log.windows.reference,
        telemetry=metered,
        clock=InvestigationClock(context.system.clock, home),
        budget=budget,
        seed=plan.seed,
    )
    started_s = monotonic()
    try:
        diagnosis = await run_analyzer(
            analyzer, investigation, timeout_s=timeout_s, grace_s=settings.cancel_grace_s
        )
    finally:
        home.revoke("the investigation is over; this telemetry handle was for its time only")
        log.queries = metered.records
        elapsed_s = monotonic() - started_s
    log.diagnosed(diagnosis, elapsed_s)
    if diagnosis.usage.cost_usd > budget.cost_usd:
        raise BudgetExceeded(
            f"the analyzer says it cost {diagnosis.usage.cost_usd:g} USD, "
            f"the budget is {budget.cost_usd:g} USD"
        )
    return diagnosis, elapsed_s


def opaque_id(session_id: str) -> str:
    """Return a digest of the session id for the analyzer: the id itself may name the fault."""
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass
class _Run:
    """Handle on the analyzer's own event loop, set from its thread."""

    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[Any] | None = None
    cancelled: bool = False

    def begin(self) -> None:
        """Note loop and task; raises CancelledError when the run was cancelled before."""
        self.loop, self.task = asyncio.get_running_loop(), asyncio.current_task()
        if self.cancelled:
            raise asyncio.CancelledError

    def cancel(self) -> None:
        """Cancel the analyzer's task; an analyzer that blocks does not notice."""
        self.cancelled = True
        if self.loop is not None and self.task is not None:
            with suppress(RuntimeError):  # its loop is closed: it has already ended
                self.loop.call_soon_threadsafe(self.task.cancel)


async def run_analyzer(
    analyzer: Analyzer, investigation: Investigation, *, timeout_s: float, grace_s: float
) -> Diagnosis:
    """Return the analyzer's diagnosis; raises AnalyzerError or BudgetExceeded.

    The analyzer runs in a daemon thread with its own event loop, so that an analyzer which blocks cannot stop
    the session. It is cancelled after *timeout_s* wall seconds and abandoned after *grace_s* more. Python
    cannot kill a thread: a busy loop uses CPU until the process ends, but the session goes on and the caller
    revokes the telemetry handle.
    """
    run = _Run()

    async def main() -> Any:
        run.begin()
        return await analyzer.diagnose(investigation)

    future = asyncio.wrap_future(start_daemon(lambda: asyncio.run(main()), "otel-diag analyzer"))
    try:
        done, _ = await asyncio.wait({future}, timeout=timeout_s)
        if not done:
            run.cancel()
            await asyncio.wait({future}, timeout=grace_s)
            raise AnalyzerError(f"no diagnosis within {timeout_s:g} s; the analyzer was stopped")
        answer = _result(future)
    finally:
        _release(future, run)
    return as_diagnosis(answer)


def _release(future: asyncio.Future[Any], run: _Run) -> None:
    if not future.done():
        run.cancel()
        future.cancel()
    elif not future.cancelled():
        future.exception()  # retrieved, or asyncio logs that it never was


def _result(future: asyncio.Future[Any]) -> Any:
    try:
        return future.result()
    except (BudgetExceeded, AnalyzerError):
        raise
    except Exception as error:
        raise crashed(error) from error


def as_diagnosis(answer: object) -> Diagnosis:
    """Return *answer* as a valid diagnosis; raises AnalyzerError saying what is wrong with it.

    Dictionaries are validated. Diagnoses are validated again, since ``model_construct`` and ``model_copy``
    skip the checks, and an invalid one could not be written to the record.
    """
    if not isinstance(answer, Diagnosis | Mapping):
        hint = "; is a return missing?" if answer is None else ""
        raise AnalyzerError(
            f"the analyzer returned {_short(answer)} ({type(answer).__name__}), not a Diagnosis{hint}"
        )
    try:
        raw = answer.model_dump(warnings=False) if isinstance(answer, Diagnosis) else dict(answer)
        diagnosis = Diagnosis.model_validate(raw)
        size = len(diagnosis.model_dump_json())
    except ValidationError as error:
        raise AnalyzerError(f"the analyzer's answer is not a valid Diagnosis: {_readable(error)}") from error
    except (PydanticSerializationError, UnicodeError, AttributeError, TypeError, ValueError) as error:
        raise AnalyzerError(f"the analyzer's answer cannot be written down: {describe(error)}") from error
    if size > MOST_BYTES:
        raise AnalyzerError(
            f"the analyzer's answer is {size / 1e6:.1f} MB long, at most {MOST_BYTES / 1e6:g} MB are kept; "
            "leave rows of telemetry out of evidence, explanations and hypotheses"
        )
    return diagnosis


def _readable(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)
    lines = [
        f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in found[:_SHOWN_ERRORS]
    ]
    more = f"; and {len(found) - _SHOWN_ERRORS} more" if len(found) > _SHOWN_ERRORS else ""
    return "; ".join(lines) + more


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        return "an object whose repr fails"
    return text if len(text) <= 80 else text[:77] + "..."
