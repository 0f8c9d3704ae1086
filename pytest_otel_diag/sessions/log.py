"""Records one session as it runs, emits its events, and builds its result at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from pytest_otel_diag.errors import RestoreFailed, SpendingLimitReached
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.events import (
    BaselineMeasured,
    DiagnosisReceived,
    DisturbanceMade,
    FaultsUndone,
    FlagServed,
    ImpactMeasured,
    PhaseEnded,
    PhaseStarted,
    ServiceSample,
    SessionEnded,
    SessionEvent,
    SessionStarted,
    SessionWaiting,
    TargetOpened,
    VerdictReached,
)
from pytest_otel_diag.model.exhibits import Exhibits
from pytest_otel_diag.model.session import (
    Attempt,
    Blame,
    Cleanup,
    DisturbanceMoment,
    FlagMoment,
    Impact,
    LeakAudit,
    Phase,
    PhaseRecord,
    QueryRecord,
    SessionResult,
    SessionWindows,
    Status,
    Witness,
)
from pytest_otel_diag.model.transcript import TranscriptSummary
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import Sightings, TargetSession
from pytest_otel_diag.sessions.ending import AnalyzerCrashed, SessionStopped, blame_for, describe, writable
from pytest_otel_diag.sessions.settings import SessionPlan, WallTime

_LOG = logging.getLogger(__name__)

_SAME_CLOCK_S = 5.0
"""A target whose clock is no further from this machine's than this runs in wall time."""


@dataclass
class PhaseNote:
    """Outcome and detail that a running phase sets for its record."""

    outcome: Literal["ok", "failed", "skipped"] = "ok"
    detail: str = ""

    def skip(self, why: str) -> None:
        """Mark the phase as skipped."""
        self.outcome, self.detail = "skipped", why


class SessionLog:
    """Collects what happens in one session; :meth:`result` is the outcome so far."""

    def __init__(
        self, plan: SessionPlan, target_name: str, emit: Callable[[SessionEvent], None], wall: WallTime
    ) -> None:
        self.plan = plan
        self._emit = emit
        self._target_name = plan.target_name or target_name
        self._wall = wall
        self._wall_start = wall.monotonic()
        self._started_at_ns = wall.now_ns()
        self._session: TargetSession | None = None
        self._phases: list[PhaseRecord] = []
        self._status = Status.ERROR
        self._reason = ""
        self._blame: Blame | None = Blame.INFRASTRUCTURE
        self._trace = ""
        self._interrupted = False
        self._fault_active = ""
        self._waited_s = 0.0
        self._waiting: tuple[str, float] | None = None
        self._notes: list[str] = []
        self.current: Phase = Phase.PREFLIGHT
        self.windows = SessionWindows()
        self.witnesses: tuple[Witness, ...] = ()
        self.flag_timeline: tuple[FlagMoment, ...] = ()
        self.disturbances: tuple[DisturbanceMoment, ...] = ()
        self.impact: Impact | None = None
        self.diagnosis: Diagnosis | None = None
        self.verdict: Verdict | None = None
        self.queries: tuple[QueryRecord, ...] = ()
        self.sightings: Sightings | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.transcript: TranscriptSummary | None = None
        self.leaks: LeakAudit | None = None
        self.cleanup: Cleanup | None = None
        self.exhibits: Exhibits | None = None

    def emit(self, event: SessionEvent) -> None:
        """Send an event; a reader that fails is logged, since it must not end a session."""
        try:
            self._emit(event)
        except Exception:
            _LOG.exception("the reader of session events failed on %s", event.kind)

    def _stamp(self) -> dict[str, Any]:
        """Return the fields that every event has."""
        return {"session_id": self.plan.session_id, "at_ns": self.now(), "wall_ns": self._wall.now_ns()}

    def started(self) -> None:
        """Emit that the session begins."""
        plan = self.plan
        self.emit(
            SessionStarted(
                **self._stamp(),
                scenario_id=plan.scenario.id,
                faults=tuple(map(str, plan.scenario.faults)),
                control=plan.scenario.control,
                target=self._target_name,
                analyzer=plan.analyzer_name,
                test_id=plan.test_id,
                repeat=plan.repeat,
                seed=plan.seed,
                ungated=plan.scenario.ungated,
            )
        )

    def ended(self, result: SessionResult) -> None:
        """Emit that the session is over."""
        self.emit(
            SessionEnded(
                **self._stamp(),
                scenario_id=result.scenario.id,
                status=result.status,
                reason=result.reason,
                blame=result.blame,
                outcome=result.summary,
                wall_s=result.wall_s,
            )
        )

    def attach(self, session: TargetSession) -> None:
        """Take the times of everything that follows from the target's clock."""
        self._session = session
        stamp = self._stamp()
        apart_s = abs(stamp["wall_ns"] - stamp["at_ns"]) / NANOS_PER_SECOND
        self.emit(TargetOpened(**stamp, virtual=apart_s > _SAME_CLOCK_S))

    def now(self) -> Nanos:
        """Return the target's time; wall time before the target is open."""
        if self._session is not None:
            with suppress(Exception):  # a clock that fails must not cost the record
                return self._session.clock.now()
        return self._wall.now_ns()

    def waits(self, text: str) -> None:
        """Record that the session waits for *text*, or, with an empty text, that the wait is over.

        The wait counts neither for a phase nor for the duration of the session.
        """
        now_s = self._wall.monotonic()
        if self._waiting is not None and not text:
            what, since_s = self._waiting
            self._waited_s += now_s - since_s
            self._waiting = None
            self.note(f"waited {now_s - since_s:.1f} s: {what}")
        elif text:
            self._waiting = (text, self._waiting[1] if self._waiting else now_s)
        else:
            return
        self.emit(SessionWaiting(**self._stamp(), reason=writable(text)))

    def note(self, text: str) -> None:
        """Add a note that changes no outcome; repeated notes are kept once."""
        if writable(text) not in self._notes:
            self._notes.append(writable(text))

    def span(self) -> Window:
        """Return the window from the end of the first phase until now, on the target's clock."""
        end_ns = self.now()
        start_ns = self._phases[0].end_ns if self._phases else end_ns
        return Window(start_ns=min(start_ns, end_ns), end_ns=end_ns)

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[PhaseNote]:
        """Record a phase with its times and outcome; errors are raised on."""
        opened = self._session is not None
        start_ns, wall_start = self.now(), self._wall.monotonic() - self._waited_s
        self.current = phase
        self.emit(PhaseStarted(**self._stamp(), phase=phase))
        note = PhaseNote()
        try:
            yield note
        except BaseException as error:
            note.outcome = "failed"
            note.detail = describe(error)
            raise
        finally:
            end_ns = self.now()
            # Opening the target changes the clock, which may be years away from the wall clock.
            start_ns = start_ns if opened or self._session is None else end_ns
            record = PhaseRecord(
                phase=phase,
                start_ns=start_ns,
                end_ns=end_ns,
                wall_s=self._wall.monotonic() - self._waited_s - wall_start,
                outcome=note.outcome,
                detail=note.detail,
            )
            self._phases.append(record)
            self.emit(PhaseEnded(**self._stamp(), record=record))

    def set_windows(self, **windows: Window | tuple[Window, ...] | None) -> None:
        """Set windows of the session by name."""
        self.windows = self.windows.model_copy(update=windows)

    def baseline_measured(self, samples: Sequence[ServiceSample]) -> None:
        """Emit the series of the baseline."""
        self.emit(BaselineMeasured(**self._stamp(), samples=tuple(samples)))

    def impact_measured(self, impact: Impact, samples: Sequence[ServiceSample]) -> None:
        """Emit one look at telemetry."""
        self.emit(ImpactMeasured(**self._stamp(), impact=impact, samples=tuple(samples)))

    def diagnosed(self, diagnosis: Diagnosis, elapsed_s: float) -> None:
        """Keep the analyzer's answer, which took *elapsed_s* wall seconds."""
        self.diagnosis = diagnosis
        causes = tuple(cause.service for cause in diagnosis.root_causes)
        stamp, detected = self._stamp(), diagnosis.detected
        self.emit(DiagnosisReceived(**stamp, detected=detected, root_causes=causes, elapsed_s=elapsed_s))

    def judged(self, verdict: Verdict) -> None:
        """Keep the verdict."""
        self.verdict = verdict
        self.emit(
            VerdictReached(
                **self._stamp(),
                detected=verdict.detected,
                fault_present=verdict.fault_present,
                service_rank=verdict.service_rank,
                solved=verdict.solved,
            )
        )

    def undone(self, cleanup: Cleanup) -> None:
        """Keep how the undo ended."""
        self.cleanup = cleanup
        self.emit(FaultsUndone(**self._stamp(), cleanup=cleanup))

    def served(self, *proofs: Witness) -> None:
        """Add confirmed proofs to the timeline of flags."""
        proven = sorted((proof for proof in proofs if proof.confirmed), key=lambda proof: proof.at_ns)
        self.flags_answered(
            FlagMoment(at_ns=proof.at_ns, flag=proof.flag, variant=proof.variant) for proof in proven
        )

    def flags_answered(self, moments: Iterable[FlagMoment]) -> None:
        """Add to the timeline of the scenario's flags."""
        for moment in moments:
            self.flag_timeline = (*self.flag_timeline, moment)
            self.emit(FlagServed(**self._stamp(), moment=moment))

    def disturbed(self, moment: DisturbanceMoment) -> None:
        """Record a harmless change of the scenario that the target made."""
        self.disturbances = (*self.disturbances, moment)
        self.emit(DisturbanceMade(**self._stamp(), moment=moment))

    def scored(self) -> None:
        """Mark the session as scored."""
        self._status, self._reason, self._blame = Status.SCORED, "", None

    def end(self, error: BaseException) -> None:
        """Set status, reason and blame by the error that ended the session; the first interrupt wins.

        An interrupt of a scored session only cuts its cleanup short, so it stays scored.
        """
        if self._interrupted:
            return
        self._interrupted = not isinstance(error, Exception)
        if isinstance(error, SessionStopped):
            self._status, self._reason, self._blame = error.status, error.reason, error.blame
        elif isinstance(error, SpendingLimitReached):
            self._status, self._reason, self._blame = Status.SKIPPED, describe(error), None
        elif isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
            cause = _cancellation_cause(error)
            kind = "" if isinstance(error, asyncio.CancelledError) else f" ({type(error).__name__})"
            reason = f"{cause or f'cancelled{kind}'} during {self.current}"
            if self._status is Status.SCORED:
                self.note(f"{reason}, after the diagnosis had been judged")
                return
            # A cancellation without a cause comes from the user; a signal of the system names itself.
            self._status, self._blame = Status.ERROR, Blame.INFRASTRUCTURE if cause else Blame.USER
            self._reason = reason
        else:
            self._status, self._blame = Status.ERROR, blame_for(error)
            self._reason = f"{self.current}: {describe(error)}"
            self._trace = error.trace if isinstance(error, AnalyzerCrashed) else ""

    def mark_fault_active(self, reason: str) -> None:
        """Record that a fault may still be on; overrules every other outcome."""
        self._fault_active = reason

    def restore_failed(self, error: RestoreFailed, recovery_command: str) -> None:
        """Record an undo that failed beside the session's own: as the target was opened or closed."""
        detail = describe(error)
        cleanup = self.cleanup or Cleanup(restored=False, verified=False)
        self.cleanup = cleanup.model_copy(
            update={
                "restored": False,
                "verified": False,
                "left_on": (),
                "detail": detail,
                "recovery_command": recovery_command,
            }
        )
        self.mark_fault_active(f"A FAULT MAY STILL BE ON: {detail}; restore it with: {recovery_command}")

    def remark(self, detail: str) -> None:
        """Add a detail to the cleanup that changes no outcome."""
        cleanup = self.cleanup or Cleanup(restored=True, verified=True)
        both = "; ".join(part for part in (cleanup.detail, detail) if part)
        self.cleanup = cleanup.model_copy(update={"detail": both})

    def result(self) -> SessionResult:
        """Return the result as far as it is known."""
        plan = self.plan
        status, reason, blame = self._status, self._reason, self._blame
        if self._fault_active:
            before = f" (before that: {reason})" if reason else ""
            status, reason, blame = Status.ERROR, self._fault_active + before, Blame.INFRASTRUCTURE
        return SessionResult(
            session_id=plan.session_id,
            run_id=plan.run_id,
            test_id=plan.test_id,
            repeat=plan.repeat,
            seed=plan.seed,
            scenario=plan.scenario,
            target=self._target_name,
            analyzer=plan.analyzer_name,
            status=status,
            reason=reason,
            trace=self._trace,
            blame=blame,
            started_at_ns=self._started_at_ns,
            wall_s=self._wall.monotonic() - self._waited_s - self._wall_start,
            windows=self.windows,
            phases=tuple(self._phases),
            witnesses=self.witnesses,
            flag_timeline=self.flag_timeline,
            disturbances=self.disturbances,
            impact=self.impact,
            diagnosis=self.diagnosis,
            verdict=self.verdict,
            queries=self.queries,
            transcript=self.transcript,
            leaks=self.leaks,
            attempts=self.attempts,
            cleanup=self.cleanup,
            exhibits=self.exhibits,
            notes=tuple(self._notes),
            provenance=self._provenance(),
        )

    def _provenance(self) -> dict[str, str]:
        provenance = self._session.provenance if self._session else {}
        return {writable(str(key)): writable(str(value)) for key, value in provenance.items()}


def _cancellation_cause(error: BaseException) -> str:
    """Return the message of a cancellation, '' where it has none."""
    if isinstance(error, asyncio.CancelledError) and error.args and isinstance(error.args[0], str):
        return writable(error.args[0])
    return ""
