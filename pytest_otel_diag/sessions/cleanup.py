"""The end of a session, whatever happened in it: faults off and proven off, target well, target closed."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from pytest_otel_diag.errors import RestoreFailed
from pytest_otel_diag.model.session import Cleanup, Phase
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.concurrency import Shared, Unwell
from pytest_otel_diag.sessions.exhibits.collect import exhibits_of
from pytest_otel_diag.sessions.faults.injection import Undo
from pytest_otel_diag.sessions.impact.recovery import recover
from pytest_otel_diag.sessions.log import PhaseNote, SessionLog, describe
from pytest_otel_diag.sessions.protection import protected
from pytest_otel_diag.sessions.session import Workflow
from pytest_otel_diag.sessions.settings import RECOVERY_COMMAND, EngineSettings


class Closing:
    """Closes the target; what goes wrong there is noted, since the session itself is over."""

    def __init__(
        self,
        context: AbstractAsyncContextManager[TargetSession],
        log: SessionLog,
        timeout_s: float,
        recovery_command: str,
    ) -> None:
        self._context = context
        self._recovery_command = recovery_command
        self._log = log
        self._timeout_s = timeout_s

    async def __call__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Close; hides nothing of what ended the session."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._context.__aexit__(kind, error, trace)
        except RestoreFailed as problem:
            self._log.restore_failed(problem, self._recovery_command)
        except Exception as problem:
            self._log.remark(f"closing the target failed: {describe(problem)}")
        return False


class CleaningUp:
    """Takes back the faults, whatever happened, then waits until the target is well again.

    *shared* is the state of a target that outlives the session, None for others.
    """

    def __init__(
        self,
        session: TargetSession,
        flow: Workflow,
        log: SessionLog,
        settings: EngineSettings,
        shared: Shared | None,
    ) -> None:
        self._session = session
        self._flow = flow
        self._log = log
        self._settings = settings
        self._shared = shared

    async def __call__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Take back and wait; raises an interrupt that arrived meanwhile, hides nothing."""
        log, undo = self._log, self._flow.undo
        interrupt: BaseException | None = None
        with log.phase(Phase.UNDO) as note:
            if undo is None:
                note.skip("nothing was set")
            elif not self._leave_on(note):
                interrupt = await self._undo(undo, note)
                if error is None and interrupt is None:
                    await self._residue(note)
        if interrupt is not None:
            log.end(interrupt)
        with log.phase(Phase.RECOVER) as note:
            await self._recover(note, interrupted=error is not None or interrupt is not None)
        if interrupt is not None:
            raise interrupt
        if error is None:
            limit_s = self._settings.close_timeout_s
            log.exhibits = await exhibits_of(self._session.telemetry, log, timeout_s=limit_s)
            await self._capture()
        return False

    def _leave_on(self, note: PhaseNote) -> bool:
        """Whether the user wants the faults to stay on, in a system that outlives the session."""
        left_on = self._flow.on()
        if not (self._settings.skip_cleanup and self._shared is not None and left_on):
            return False
        recovery_command = self._session.recovery_command or RECOVERY_COMMAND
        detail = f"left on, as asked: {', '.join(left_on)}; take it back with: {recovery_command}"
        self._log.undone(
            Cleanup(
                restored=False,
                verified=False,
                left_on=left_on,
                recovery_command=recovery_command,
                detail=detail,
            )
        )
        note.skip(detail)
        return True

    async def _undo(self, undo: Undo, note: PhaseNote) -> BaseException | None:
        """Return the interrupt that arrived meanwhile."""
        limit_s = max(self._settings.undo_timeout_s, self._session.undo_timeout_s)
        cleanup, cancelled = await protected(undo.run(), timeout_s=limit_s, give_up=undo.give_up)
        if cleanup is None:
            cleanup = Cleanup(
                restored=False, verified=False, detail=f"the undo took longer than {limit_s:g} s"
            )
        if cleanup.failed:
            cleanup = cleanup.model_copy(
                update={"recovery_command": self._session.recovery_command or RECOVERY_COMMAND}
            )
            note.outcome, note.detail = "failed", cleanup.detail
            self._log.mark_fault_active(undo.way_out(cleanup))
        elif cleanup.detail:
            self._log.note(cleanup.detail)
        self._log.served(*undo.proofs)
        self._log.undone(cleanup)
        return undo.interrupt or cancelled

    async def _residue(self, note: PhaseNote) -> None:
        """Let the target restart what outlives the flag, and keep what it says stays."""
        residue, cleanup = self._session.residue, self._log.cleanup
        if residue is None or cleanup is None or cleanup.failed:
            return
        limit_s = self._settings.residue_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                found = tuple(await residue(self._log.plan.scenario.faults))
        except TimeoutError:
            found = (f"what stays of the fault was not known within {limit_s:g} s",)
        except Exception as error:
            found = (f"what stays of the fault is not known: {describe(error)}",)
        self._log.cleanup = cleanup.model_copy(update={"residue": found})
        note.detail = "; ".join(found)

    async def _recover(self, note: PhaseNote, *, interrupted: bool) -> None:
        comparison, timing = self._flow.recovery(), self._log.plan.scenario.timing
        cleanup = self._log.cleanup
        why = (
            (cleanup is None and "nothing was set")
            or (interrupted and "cancelled")
            or (cleanup and cleanup.left_on and "the fault was left on")
            or (cleanup and not cleanup.verified and "the undo did not go through")
            or (comparison is None and "no baseline to return to")
            or (not timing.recover_timeout_s and "timing.recover_timeout_s is 0")
        )
        if why or cleanup is None or comparison is None:
            note.skip(why or "")
            return
        since_ns = self._session.clock.now()
        try:
            # The clock of a session may be virtual; this bounds a telemetry that hangs.
            async with asyncio.timeout(timing.recover_timeout_s + self._settings.close_timeout_s):
                recovered, detail = await recover(self._session, comparison, timing, since_ns=since_ns)
        except Exception as error:
            recovered, detail = None, f"cannot tell: {describe(error)}"
        note.outcome, note.detail = ("ok" if recovered is not False else "failed"), detail
        self._log.cleanup = cleanup.model_copy(update={"recovered": recovered, "detail": detail})
        if recovered is False and self._shared is not None:
            faults = " + ".join(map(str, self._log.plan.scenario.faults))
            cause = f"{faults} of session {self._log.plan.session_id}"
            self._shared.unwell = Unwell(cause, comparison, timing, since_ns)

    async def _capture(self) -> None:
        capture, limit_s = self._settings.capture, self._settings.capture_timeout_s
        if capture is None:
            return
        try:
            async with asyncio.timeout(limit_s):
                await capture(self._session, self._log.result())
        except TimeoutError:
            self._log.note(f"recording: not done within {limit_s:g} s")
        except Exception as error:
            self._log.note(f"recording: {describe(error)}")
