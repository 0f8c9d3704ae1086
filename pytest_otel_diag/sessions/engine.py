"""Runs sessions: takes a turn on the target, limits the time, and hands the result over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from pytest_otel_diag.model.base import without_credentials
from pytest_otel_diag.model.events import SessionEvent
from pytest_otel_diag.model.session import Blame, Phase, SessionResult, Status
from pytest_otel_diag.ports import Analyzer, Target
from pytest_otel_diag.sessions.concurrency import state_of
from pytest_otel_diag.sessions.ending import SessionStopped, describe
from pytest_otel_diag.sessions.log import SessionLog
from pytest_otel_diag.sessions.session import SessionParts, run_session
from pytest_otel_diag.sessions.settings import EngineSettings, Judge, SessionPlan


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
        self._settings = settings or EngineSettings()
        self._parts = SessionParts(target, analyzer, judge, self._settings, state_of(target))
        self._emit = emit or _ignore
        self._keep = keep or _ignore
        self._most = 1 if target.exclusive else self._settings.max_sessions

    async def run(self, plan: SessionPlan) -> SessionResult:
        """Run one session and store its result with *keep*, exactly once.

        Raises nothing but CancelledError, KeyboardInterrupt and SystemExit (any BaseException that is no
        Exception), and these only after the flags are restored and the result (ERROR, "cancelled ...") is
        stored.
        """
        log = SessionLog(plan, self._parts.target.name, self._emit, self._settings.wall)
        interrupt: BaseException | None = None
        try:
            log.started()
            async with self._parts.state.turn(self._most, log.waits), AsyncExitStack() as stack:
                await self._run_limited(log, stack)
        except BaseException as error:
            log.end(error)
            interrupt = None if isinstance(error, Exception) else error
        result = self._hand_over(log)
        if interrupt is not None:
            raise interrupt
        return result

    async def _run_limited(self, log: SessionLog, stack: AsyncExitStack) -> None:
        """Run the phases within the time limit; an error becomes the outcome, an interrupt is raised."""
        limit_s = self._settings.session_timeout_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                await run_session(self._parts, log, stack, PausableTimeout(limit, log).waits)
        except TimeoutError as error:
            log.end(_took_too_long(log, limit_s) if limit.expired() else error)
        except Exception as error:
            log.end(error)
        except BaseException as error:
            log.end(error)
            raise
        else:
            log.scored()

    def _hand_over(self, log: SessionLog) -> SessionResult:
        with log.phase(Phase.RECORD):
            pass  # the result must hold this phase too, so it ends before the result is stored
        result = without_credentials(log.result())
        try:
            self._keep(result)
        except Exception as error:
            reason = f"record: the result could not be stored: {describe(error)}"
            result = result.model_copy(
                update={"status": Status.ERROR, "blame": Blame.INFRASTRUCTURE, "reason": reason}
            )
        log.ended(result)
        return result


def _took_too_long(log: SessionLog, limit_s: float | None) -> SessionStopped:
    blame = Blame.ANALYZER if log.current is Phase.INVESTIGATE else Blame.INFRASTRUCTURE
    return SessionStopped(Status.ERROR, f"{log.current}: the session took longer than {limit_s:g} s", blame)


class PausableTimeout:
    """Pauses the time limit of a session while its target waits to be opened."""

    def __init__(self, limit: asyncio.Timeout, log: SessionLog) -> None:
        self._limit = limit
        self._log = log
        self._left_s: float | None = None

    def waits(self, reason: str) -> None:
        """Pause for *reason*; an empty one resumes."""
        self._log.waits(reason)
        if self._limit.expired():
            return
        now_s, end_s = asyncio.get_running_loop().time(), self._limit.when()
        if reason and end_s is not None:
            self._left_s = end_s - now_s
            self._limit.reschedule(None)
        elif not reason and self._left_s is not None:
            self._limit.reschedule(now_s + self._left_s)
            self._left_s = None
