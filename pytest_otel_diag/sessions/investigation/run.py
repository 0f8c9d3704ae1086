"""Runs the analyzer in a thread that the session can abandon, and validates its diagnosis."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pytest_otel_diag.config.concealment import CONCEALMENT
from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import (
    AnalyzerError,
    BudgetExceeded,
)
from pytest_otel_diag.model.diagnosis import Diagnosis, Usage
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.ports import Analyzer, Investigation
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.investigation.answer import as_diagnosis
from pytest_otel_diag.sessions.investigation.children import left_behind, running_children
from pytest_otel_diag.sessions.investigation.closed_line import AnalyzerEnd, Ended
from pytest_otel_diag.sessions.investigation.endings import diagnosis_of, ending_of
from pytest_otel_diag.sessions.investigation.exits import refuse_silent_exits
from pytest_otel_diag.sessions.investigation.guidance import Guide
from pytest_otel_diag.sessions.investigation.handles import (
    AnalyzerClock,
    AnalyzerGuidance,
    AnalyzerTelemetry,
    AnalyzerTranscript,
    connect,
)
from pytest_otel_diag.sessions.investigation.leaks import FlagReading, injected_flags
from pytest_otel_diag.sessions.investigation.metering import MeteredTelemetry
from pytest_otel_diag.sessions.investigation.transcript import SessionTranscript


async def investigate(context: SessionContext, analyzer: Analyzer, guide: Guide) -> tuple[Diagnosis, float]:
    """Let the analyzer answer within its budget; return its diagnosis and the wall seconds it took itself.

    Its queries, its attempts and its diagnosis are recorded. Prompts of *guide* count, whatever the analyzer
    says of them. Raises what :func:`run_analyzer` raises.
    """
    log, plan, settings = context.log, context.log.plan, context.settings
    timeout_s = min(context.timing.analyze_timeout_s, plan.budget.time_s)
    budget = plan.budget.model_copy(update={"time_s": timeout_s})
    monotonic = settings.wall.monotonic
    reading = FlagReading(injected_flags(context.scenario))
    metered = MeteredTelemetry(context.system.telemetry, budget, monotonic=monotonic, reading=reading)
    assert log.windows.incident is not None, "set when the wait for the impact ended"
    windows = log.windows.model_copy(deep=True)
    transcript = SessionTranscript(_writer(context), settings.wall)
    investigation = Investigation(
        session_id=opaque_id(plan.session_id),
        incident=windows.incident or log.windows.incident,
        baseline=windows.baseline,
        reference=windows.reference,
        telemetry=metered,
        clock=context.system.clock,
        budget=budget.model_copy(),
        seed=plan.seed,
        guidance=guide,
        transcript=transcript,
    )
    refuse_silent_exits()
    children = running_children()
    started_s = monotonic()
    try:
        with CONCEALMENT.during_investigation():
            diagnosis = await run_analyzer(
                analyzer, investigation, timeout_s=timeout_s, grace_s=settings.cancel_grace_s
            )
    finally:
        log.queries, log.sightings = metered.records, metered.sightings
        log.attempts, log.transcript = guide.attempts, transcript.summary
        elapsed_s = monotonic() - started_s - guide.replying_s
        if left := left_behind(children):
            log.note(left)
    diagnosis = guide.counted(diagnosis)
    _refuse_negative(diagnosis.usage)  # else it would lower the sums of the run
    log.diagnosed(diagnosis, elapsed_s)
    if diagnosis.usage.cost_usd > budget.cost_usd:
        raise BudgetExceeded(
            f"the analyzer says it cost {diagnosis.usage.cost_usd:g} USD, "
            f"the budget is {budget.cost_usd:g} USD"
        )
    return diagnosis, elapsed_s


def _refuse_negative(usage: Usage) -> None:
    amounts = usage.model_dump(exclude={"model"})
    if below := [f"{name}={amount}"[:40] for name, amount in amounts.items() if amount < 0]:
        raise AnalyzerError(f"the analyzer reports negative usage: {', '.join(below)}; report amounts from 0")


def _writer(context: SessionContext) -> Callable[[TranscriptEntry], None] | None:
    transcribe = context.settings.transcribe
    return None if transcribe is None else partial(transcribe, context.log.plan.session_id)


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
    """Return the analyzer's diagnosis; raises what :func:`diagnosis_of` raises.

    The analyzer runs in a daemon thread with its own event loop, so that an analyzer which blocks cannot stop
    the session. What it returns or raises is converted to text there, within its time. It is cancelled after
    *timeout_s* wall seconds and abandoned after *grace_s* more. Python cannot kill a thread: a busy loop uses
    CPU until the process ends, but the session goes on.

    It gets the telemetry, clock and transcript of *investigation* as handles that lead nowhere else and are
    of no use after this call. The context variables of the session stay with the session.
    """
    line = connect(investigation)
    run = _Run()
    end = line.analyzer_end
    given = replace(
        investigation,
        telemetry=AnalyzerTelemetry(end),
        clock=AnalyzerClock(end),
        guidance=AnalyzerGuidance(end),
        transcript=AnalyzerTranscript(end),
    )
    start_thread(partial(Context().run, _analyze, analyzer, given, run, end), "otel-diag analyzer")
    try:
        done, _ = await asyncio.wait({line.ended}, timeout=timeout_s)
        if not done:
            line.aside(run.cancel)
            await asyncio.wait({line.ended}, timeout=grace_s)
            raise AnalyzerError(f"no diagnosis within {timeout_s:g} s; the analyzer was stopped")
        return diagnosis_of(line.ended.result())
    finally:
        if not line.ended.done():
            line.aside(run.cancel)
        line.close("the investigation is over; this telemetry handle was for its time only")


def _analyze(analyzer: Analyzer, investigation: Investigation, run: _Run, end: AnalyzerEnd) -> None:
    """Run the analyzer in this thread and post how it ended."""

    async def main() -> Ended:
        run.begin()
        answer = await analyzer.diagnose(investigation)
        return Ended(answer=as_diagnosis(answer).model_dump_json())

    end.post(ending_of(lambda: asyncio.run(main())))
