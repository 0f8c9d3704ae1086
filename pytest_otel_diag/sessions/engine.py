"""Runs sessions: the flow from preflight to record, and the undo that happens whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from pytest_otel_diag.errors import RestoreFailed, ScenarioError
from pytest_otel_diag.model.events import SessionEvent
from pytest_otel_diag.model.session import Blame, Phase, SessionResult, Status
from pytest_otel_diag.ports import Analyzer, Target, waiting
from pytest_otel_diag.sessions.cleanup import CleaningUp, Closing
from pytest_otel_diag.sessions.concurrency import shared_of
from pytest_otel_diag.sessions.faults.injection import scenario_mistakes
from pytest_otel_diag.sessions.faults.schedule import schedule_mistakes
from pytest_otel_diag.sessions.log import SessionLog, SessionStopped, describe
from pytest_otel_diag.sessions.session import Tools, Workflow
from pytest_otel_diag.sessions.settings import RECOVERY_COMMAND, EngineSettings, Judge, SessionPlan


def _ignore(_: object) -> None:
    """Drop an event or a result that the caller does not ask for."""


class SessionEngine:
    """Runs sessions of one target with one analyzer; the same code in virtual and in wall time.

    Sessions of an exclusive target take turns, whichever engine of this process runs them. *emit* gets
    every event as it happens, on the engine's event loop, and must not block; one that raises is logged and
    never ends a session. *keep* stores the finished result, exactly once a session, cancelled sessions
    included; when it raises, the session ends as an infrastructure error.
    """

    def __init__(
        self,
        target: Target,
        analyzer: Analyzer,
        judge: Judge,
        *,
        emit: Callable[[SessionEvent], None] | None = None,
        keep: Callable[[SessionResult], None] | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        self._target = target
        self._emit = emit or _ignore
        self._keep = keep or _ignore
        self._settings = settings or EngineSettings()
        self._tools = Tools(analyzer=analyzer, judge=judge, settings=self._settings, wall=self._settings.wall)
        self._shared = shared_of(target)
        self._most = 1 if target.exclusive else self._settings.max_sessions

    async def run(self, plan: SessionPlan) -> SessionResult:
        """Run one session and store its result with *keep*, exactly once.

        Raises nothing but CancelledError, KeyboardInterrupt and SystemExit (and what else is no
        Exception), and these only after the flags are back and the finished result (ERROR,
        "cancelled ...") was handed over.
        """
        log = SessionLog(plan, self._target.name, self._emit, self._settings.wall)
        interrupt: BaseException | None = None
        try:
            log.started()
            async with self._shared.turn(self._most, log.waits), AsyncExitStack() as stack:
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
                await self._phases(log, stack, _Patience(limit, log))
        except TimeoutError as error:
            log.end(_took_too_long(log, limit_s) if limit.expired() else error)
        except Exception as error:
            log.end(error)
        except BaseException as error:
            log.end(error)
            raise
        else:
            log.scored()

    async def _phases(self, log: SessionLog, stack: AsyncExitStack, patience: _Patience) -> None:
        with log.phase(Phase.PREFLIGHT):
            flow = await self._open(log, stack, patience)
            await flow.preflight()
            await self._well(flow)
        with log.phase(Phase.BASELINE) as note:
            await flow.baseline(note)
        with log.phase(Phase.INJECT) as note:
            await flow.inject(note)
        with log.phase(Phase.WITNESS) as note:
            await flow.witness(note)
        with log.phase(Phase.IMPACT) as note:
            await flow.impact(note)
        if self._settings.setup_only:
            raise flow.set_up()
        with log.phase(Phase.INVESTIGATE):
            diagnosis = await flow.investigate()
            await flow.undisturbed()
        with log.phase(Phase.JUDGE):
            await flow.judge(diagnosis)
            await flow.undisturbed_to_the_end()

    async def _well(self, flow: Workflow) -> None:
        """Refuse a target that an earlier session left sick: its baseline would be none."""
        unwell = self._shared.unwell
        if unwell is None:
            return
        if sick := await flow.still_sick(unwell):
            raise SessionStopped(
                Status.ERROR,
                f"preflight: the target has not recovered from {unwell.cause}: {sick}; restart what is sick, "
                "or give a longer timing.recover_timeout_s",
                Blame.INFRASTRUCTURE,
            )
        self._shared.unwell = None

    async def _open(self, log: SessionLog, stack: AsyncExitStack, patience: _Patience) -> Workflow:
        """Open the target; from here on the stack takes back the faults, then closes it."""
        scenario = log.plan.scenario
        own = (*scenario_mistakes(scenario), *schedule_mistakes(scenario))
        mistakes = [*own, *self._target.validate(scenario)]
        if mistakes:
            raise ScenarioError("; ".join(mistakes))
        context = self._target.open(scenario, log.plan.session_id)
        listening = waiting.set(patience.waits)
        try:
            session = await context.__aenter__()
        except RestoreFailed as error:  # what a killed run left on could not be taken back
            log.restore_failed(error, RECOVERY_COMMAND)
            raise
        finally:
            waiting.reset(listening)
            patience.waits("")
        recovery_command = session.recovery_command or RECOVERY_COMMAND
        stack.push_async_exit(Closing(context, log, self._settings.close_timeout_s, recovery_command))
        log.attach(session)
        flow = Workflow(session, log, self._tools)
        shared = self._shared if self._target.exclusive else None
        stack.push_async_exit(CleaningUp(session, flow, log, self._settings, shared))
        return flow

    def _hand_over(self, log: SessionLog) -> SessionResult:
        with log.phase(Phase.RECORD):
            pass  # the record must hold this phase too, so it ends before it is written
        result = log.result()
        try:
            self._keep(result)
        except Exception as error:
            reason = f"record: the result could not be kept: {describe(error)}"
            result = result.model_copy(
                update={"status": Status.ERROR, "blame": Blame.INFRASTRUCTURE, "reason": reason}
            )
        log.ended(result)
        return result


def _took_too_long(log: SessionLog, limit_s: float | None) -> SessionStopped:
    blame = Blame.ANALYZER if log.current is Phase.INVESTIGATE else Blame.INFRASTRUCTURE
    return SessionStopped(Status.ERROR, f"{log.current}: the session took longer than {limit_s:g} s", blame)


class _Patience:
    """Stops the clock of the session's time limit while the target waits for others."""

    def __init__(self, limit: asyncio.Timeout, log: SessionLog) -> None:
        self._limit = limit
        self._log = log
        self._left_s: float | None = None

    def waits(self, text: str) -> None:
        """Note what is waited for; an empty text lets the time run again."""
        self._log.waits(text)
        if self._limit.expired():
            return
        now_s, end_s = asyncio.get_running_loop().time(), self._limit.when()
        if text and end_s is not None:
            self._left_s = end_s - now_s
            self._limit.reschedule(None)
        elif not text and self._left_s is not None:
            self._limit.reschedule(now_s + self._left_s)
            self._left_s = None
