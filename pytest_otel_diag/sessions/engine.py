"""Runs sessions: the flow from preflight to record, and the undo that happens whatever happens."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from types import TracebackType

from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.session import Blame, Cleanup, Phase, SessionResult, Status
from pytest_otel_diag.ports import Analyzer, Target, TargetSession
from pytest_otel_diag.sessions.exhibits import exhibits_of
from pytest_otel_diag.sessions.injection import Undo, scenario_mistakes
from pytest_otel_diag.sessions.observer import NullObserver, Observer
from pytest_otel_diag.sessions.plan import EngineSettings, Judge, SessionPlan, WallTime
from pytest_otel_diag.sessions.protection import protected
from pytest_otel_diag.sessions.record import PhaseNote, SessionLog, SessionStopped, describe
from pytest_otel_diag.sessions.recovery import recover
from pytest_otel_diag.sessions.schedule import schedule_mistakes
from pytest_otel_diag.sessions.workflow import Tools, Workflow


class SessionEngine:
    """Drives sessions of one target with one analyzer; the same code in virtual and in wall time.

    Sessions of an exclusive target take turns.
    """

    def __init__(
        self,
        target: Target,
        analyzer: Analyzer,
        judge: Judge,
        *,
        observer: Observer | None = None,
        settings: EngineSettings | None = None,
        wall: WallTime | None = None,
    ) -> None:
        self._target = target
        self._observer = observer or NullObserver()
        self._settings = settings or EngineSettings()
        self._wall = wall or WallTime()
        self._tools = Tools(analyzer=analyzer, judge=judge, settings=self._settings, wall=self._wall)
        self._turn = asyncio.Lock() if target.exclusive else None

    async def run(self, plan: SessionPlan) -> SessionResult:
        """Run one session and hand its result to the observer, exactly once.

        Raises nothing but CancelledError, KeyboardInterrupt and SystemExit (and what else is no
        Exception), and these only after the flags are back and the finished result (ERROR,
        "cancelled ...") was handed over.
        """
        log = SessionLog(plan, self._target.name, self._observer, self._wall)
        interrupt: BaseException | None = None
        try:
            async with self._turn or nullcontext(), AsyncExitStack() as stack:
                await self._to_the_end(log, stack)
        except BaseException as error:
            log.end(error)
            interrupt = None if isinstance(error, Exception) else error
        result = self._hand_over(log)
        if interrupt is not None:
            raise interrupt
        return result

    async def _to_the_end(self, log: SessionLog, stack: AsyncExitStack) -> None:
        """Run the phases; an error becomes the outcome, an interrupt passes on to the cleanup."""
        limit_s = self._settings.session_timeout_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                await self._phases(log, stack)
        except TimeoutError as error:
            log.end(_took_too_long(log, limit_s) if limit.expired() else error)
        except Exception as error:
            log.end(error)
        except BaseException as error:
            log.end(error)
            raise
        else:
            log.scored()

    async def _phases(self, log: SessionLog, stack: AsyncExitStack) -> None:
        with log.phase(Phase.PREFLIGHT):
            flow = await self._open(log, stack)
            await flow.preflight()
        with log.phase(Phase.BASELINE) as note:
            await flow.baseline(note)
        with log.phase(Phase.INJECT) as note:
            await flow.inject(note)
        with log.phase(Phase.WITNESS) as note:
            await flow.witness(note)
        with log.phase(Phase.IMPACT) as note:
            await flow.impact(note)
        with log.phase(Phase.INVESTIGATE):
            diagnosis = await flow.investigate()
        with log.phase(Phase.JUDGE):
            await flow.judge(diagnosis)

    async def _open(self, log: SessionLog, stack: AsyncExitStack) -> Workflow:
        """Open the target; from here on the stack takes back the faults, then closes it."""
        scenario = log.plan.scenario
        own = (*scenario_mistakes(scenario), *schedule_mistakes(scenario))
        mistakes = [*own, *self._target.validate(scenario)]
        if mistakes:
            raise ScenarioError("; ".join(mistakes))
        context = self._target.open(scenario, log.plan.session_id)
        session = await context.__aenter__()
        stack.push_async_exit(_Closing(context, log, self._settings.close_timeout_s))
        log.attach(session)
        flow = Workflow(session, log, self._tools)
        stack.push_async_exit(_CleaningUp(session, flow, log, self._settings))
        return flow

    def _hand_over(self, log: SessionLog) -> SessionResult:
        with log.phase(Phase.RECORD):
            pass  # the record must hold this phase too, so it ends before it is written
        result = log.result()
        try:
            self._observer.session_ended(result)
        except Exception as error:
            reason = f"record: the result could not be kept: {describe(error)}"
            result = result.model_copy(
                update={"status": Status.ERROR, "blame": Blame.INFRASTRUCTURE, "reason": reason}
            )
        return result


def _took_too_long(log: SessionLog, limit_s: float | None) -> SessionStopped:
    blame = Blame.ANALYZER if log.current is Phase.INVESTIGATE else Blame.INFRASTRUCTURE
    return SessionStopped(Status.ERROR, f"{log.current}: the session took longer than {limit_s:g} s", blame)


class _Closing:
    """Closes the target; what goes wrong there is noted, since the session itself is over."""

    def __init__(
        self, context: AbstractAsyncContextManager[TargetSession], log: SessionLog, timeout_s: float
    ) -> None:
        self._context = context
        self._log = log
        self._timeout_s = timeout_s

    async def __call__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._context.__aexit__(kind, error, trace)
        except Exception as problem:
            self._log.remark(f"closing the target failed: {describe(problem)}")
        return False


class _CleaningUp:
    """Takes back the faults, whatever happened, then waits until the target is well again."""

    def __init__(
        self, session: TargetSession, flow: Workflow, log: SessionLog, settings: EngineSettings
    ) -> None:
        self._session = session
        self._flow = flow
        self._log = log
        self._settings = settings

    async def __call__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        log, undo = self._log, self._flow.undo
        interrupt: BaseException | None = None
        with log.phase(Phase.UNDO) as note:
            if undo is None:
                note.skip("nothing was set")
            else:
                interrupt = await self._undo(undo, note)
        if interrupt is not None:
            log.end(interrupt)
        with log.phase(Phase.RECOVER) as note:
            await self._recover(note, interrupted=error is not None or interrupt is not None)
        if interrupt is not None:
            raise interrupt
        if error is None:
            limit_s = self._settings.close_timeout_s
            log.exhibits = await exhibits_of(self._session.telemetry, log, timeout_s=limit_s)
        return False

    async def _undo(self, undo: Undo, note: PhaseNote) -> BaseException | None:
        """Return the interrupt that arrived meanwhile."""
        limit_s = self._settings.undo_timeout_s
        cleanup, cancelled = await protected(undo.run(), timeout_s=limit_s, give_up=undo.give_up)
        if cleanup is None:
            cleanup = Cleanup(
                restored=False, verified=False, detail=f"the undo took longer than {limit_s:g} s"
            )
        self._log.cleanup = cleanup
        self._log.served(*undo.proofs)
        if not (cleanup.restored and cleanup.verified):
            note.outcome, note.detail = "failed", cleanup.detail
            self._log.scream(undo.way_out(cleanup))
        return undo.interrupt or cancelled

    async def _recover(self, note: PhaseNote, *, interrupted: bool) -> None:
        comparison, timing = self._flow.recovery(), self._log.plan.scenario.timing
        cleanup = self._log.cleanup
        why = (
            (cleanup is None and "nothing was set")
            or (interrupted and "cancelled")
            or (cleanup and not cleanup.verified and "the undo did not go through")
            or (comparison is None and "no baseline to return to")
            or (not timing.recover_timeout_s and "timing.recover_timeout_s is 0")
        )
        if why or cleanup is None or comparison is None:
            note.skip(why or "")
            return
        try:
            # The clock of a session may be virtual; this bounds a telemetry that hangs.
            async with asyncio.timeout(timing.recover_timeout_s + self._settings.close_timeout_s):
                recovered, detail = await recover(
                    self._session, comparison, timing, since_ns=self._session.clock.now()
                )
        except Exception as error:
            recovered, detail = None, f"cannot tell: {describe(error)}"
        note.outcome, note.detail = ("ok" if recovered is not False else "failed"), detail
        self._log.cleanup = cleanup.model_copy(update={"recovered": recovered, "detail": detail})
