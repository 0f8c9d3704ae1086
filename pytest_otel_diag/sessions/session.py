"""One session from preflight to recovery, in the order of this file.

:func:`run_session` is the table of contents: each phase is one method of :class:`Session`, and
:meth:`Session.clean_up` undoes the faults and waits for recovery, whatever happened before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from types import TracebackType

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.session import Blame, Cleanup, ImpactReason, Phase, Status
from pytest_otel_diag.model.windows import Window, iso
from pytest_otel_diag.ports import Analyzer, Target
from pytest_otel_diag.sessions.concurrency import TargetState, Unrecovered
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.ending import SessionStopped, describe
from pytest_otel_diag.sessions.exhibits.collect import exhibits_of
from pytest_otel_diag.sessions.faults.protection import protected
from pytest_otel_diag.sessions.faults.scheduler import FaultScheduler
from pytest_otel_diag.sessions.faults.undo import FaultUndo
from pytest_otel_diag.sessions.impact.baseline import Baseline, learn, sickness
from pytest_otel_diag.sessions.impact.recovery import RecoveryGoal, recover
from pytest_otel_diag.sessions.impact.wait import ImpactWait, control_duration_s
from pytest_otel_diag.sessions.investigation.leaks import audit_leaks, refuse_leaks
from pytest_otel_diag.sessions.investigation.run import investigate
from pytest_otel_diag.sessions.judging import guide_of, judge_diagnosis
from pytest_otel_diag.sessions.log import PhaseNote, SessionLog
from pytest_otel_diag.sessions.opening import command_of, open_target
from pytest_otel_diag.sessions.preflight import prepare_analyzer, prepare_faults
from pytest_otel_diag.sessions.settings import EngineSettings, Judge


@dataclass(frozen=True)
class SessionParts:
    """What sessions of one engine have in common.

    ``state`` is what all sessions of the target share in this process.
    """

    target: Target
    analyzer: Analyzer
    judge: Judge
    settings: EngineSettings
    state: TargetState


async def run_session(
    parts: SessionParts, log: SessionLog, stack: AsyncExitStack, waits: Callable[[str], None]
) -> None:
    """Run the phases from preflight to judge; *stack* then undoes the faults and closes the target.

    *waits* gets the reason while the target waits to be opened, and '' once it no longer does. What ends the
    session early is raised: SessionStopped, an error of this package, of the target or of the analyzer.
    """
    settings = parts.settings
    with log.phase(Phase.PREFLIGHT):
        if not settings.setup_only:
            await prepare_analyzer(parts.analyzer, log, settings)
        system = await open_target(
            parts.target, log, stack, waits=waits, close_timeout_s=settings.close_timeout_s
        )
        session = Session(SessionContext(system, log, settings), parts)
        stack.push_async_exit(session.clean_up)
        faults = await session.preflight()
    with log.phase(Phase.BASELINE) as note:
        baseline = await session.learn_baseline(note)
    with log.phase(Phase.INJECT) as note:
        await session.inject(faults, note)
    with log.phase(Phase.WITNESS) as note:
        start_ns = await session.witness(faults, note)
    with log.phase(Phase.IMPACT) as note:
        await session.wait_for_impact(faults, baseline, start_ns, note)
    if settings.setup_only:
        raise session.set_up_only(faults)
    with log.phase(Phase.INVESTIGATE):
        await refuse_leaks(session.context)
        diagnosis, elapsed_s = await investigate(
            session.context, parts.analyzer, guide_of(session.context, parts.judge, baseline.edges)
        )
        await faults.check_undisturbed()
    with log.phase(Phase.JUDGE):
        await audit_leaks(session.context)
        await session.judge(faults, baseline, diagnosis, elapsed_s)


class Session:
    """One session on an open target."""

    def __init__(self, context: SessionContext, parts: SessionParts) -> None:
        self.context = context
        self._parts = parts
        self._system = context.system
        self._log = context.log
        self._settings = context.settings
        self._scenario = context.scenario
        self._timing = context.timing
        # Where the target outlives its sessions, the next one may find what this one left.
        self._outlived = parts.target.exclusive
        self._faults: FaultScheduler | None = None
        self._goal: RecoveryGoal | None = None

    async def preflight(self) -> FaultScheduler:
        """Check everything before anything is touched; raises what :func:`prepare_faults` raises."""
        self._faults = await prepare_faults(self.context)
        await self._check_recovered()
        return self._faults

    async def _check_recovered(self) -> None:
        """Refuse a target that has not recovered from an earlier session: its baseline would be sick."""
        earlier = self._parts.state.unrecovered
        if earlier is None:
            return
        recovered, why = await recover(self._system, earlier.goal.of_calls(), since_ns=earlier.since_ns)
        if recovered is False:
            raise SessionStopped(
                Status.ERROR,
                f"preflight: the target has not recovered from {earlier.cause}: {why}; restart what is sick, "
                "or give a longer timing.recover_timeout_s",
                Blame.INFRASTRUCTURE,
            )
        self._parts.state.unrecovered = None

    async def learn_baseline(self, note: PhaseNote) -> Baseline:
        """Let the baseline pass and learn it; a sick one stops sessions that need to see the impact."""
        start_ns = self.context.now()
        await self._system.clock.sleep(self._timing.baseline_s)
        baseline = await learn(self.context, Window(start_ns=start_ns, end_ns=self.context.now()))
        self._goal = RecoveryGoal.after(baseline.comparison, self._timing, alpha=self._settings.alpha)
        self._log.baseline_measured(baseline.samples)
        self._log.set_windows(baseline=baseline.window, reference=self._system.reference)
        note.detail = sickness(baseline, self._settings, control=self._scenario.control)
        if note.detail and self._scenario.require_impact:
            raise SessionStopped(Status.ERROR, f"baseline: {note.detail}", Blame.INFRASTRUCTURE)
        return baseline

    async def inject(self, faults: FaultScheduler, note: PhaseNote) -> None:
        """Set the flags and make the disturbances that are due at once; the schedule starts here."""
        if not self._scenario.faults:
            note.skip(self._scenario.external or "control without a fault")
            await self._system.clock.sleep(self._timing.guard_s)
        await faults.start()

    async def witness(self, faults: FaultScheduler, note: PhaseNote) -> Nanos:
        """Prove that the first faults are served, waiting for one that comes late; return their start.

        That is the first of the confirming reads: from then on the first fault was in force.
        """
        if not self._scenario.faults:
            note.skip("no flag to be served")
            return self.context.now()
        await faults.prove()
        if not self._log.witnesses:
            await faults.first_fault()
            self._move_baseline(faults.schedule.first_fault_ns or 0)
        return min(proof.at_ns for proof in self._log.witnesses)

    def _move_baseline(self, late_ns: Nanos) -> None:
        """Let the baseline end where a fault begins that comes *late_ns* after the injection.

        A gap between the two would reveal the fault to the analyzer, and so would one between a reference
        window and the baseline that follows it. After a disturbance nothing moves: it must not become part of
        the baseline.
        """
        baseline = self._log.windows.baseline
        if baseline is None or not late_ns or self._log.disturbances:
            return
        self._log.set_windows(
            baseline=baseline.moved(late_ns),
            reference=tuple(
                window.moved(late_ns) if window.end_ns == baseline.start_ns else window
                for window in self._log.windows.reference
            ),
        )

    async def wait_for_impact(
        self, faults: FaultScheduler, baseline: Baseline, start_ns: Nanos, note: PhaseNote
    ) -> None:
        """Wait until telemetry shows the fault and it was observed long enough; sets the incident window."""
        observe_s = self._timing.observe_s
        if self._scenario.control:
            note.skip("control: no impact to wait for")
            if self._scenario.require_impact:
                plan = self._log.plan
                rng = Random(f"{plan.session_id}/{plan.seed}")  # noqa: S311 - no secret
                observe_s = control_duration_s(self._timing, self._settings, rng)
        else:
            impact = await ImpactWait(self.context, faults, baseline.comparison, start_ns=start_ns).run()
            self._log.impact = impact
            note.detail = f"{impact.reason}: {impact.detail}"
            required = self._scenario.require_impact and not self._settings.setup_only
            if impact.reason is not ImpactReason.VISIBLE and required:
                raise SessionStopped(Status.INVALID, note.detail)
        await faults.sleep(max(0.0, observe_s - self.context.seconds_since(start_ns)))
        await faults.check_undisturbed()
        await self._check_telemetry_since(start_ns)
        self._log.set_windows(incident=Window(start_ns=start_ns, end_ns=self.context.now()))

    async def _check_telemetry_since(self, start_ns: Nanos) -> None:
        """Raise SessionStopped without telemetry of the incident: no answer could be right but by chance."""
        impact = self._log.impact
        seen = impact is not None and impact.reason is not ImpactReason.NOT_YET_EXPORTED
        if seen or self._settings.setup_only:
            return
        latest = await self.context.system.telemetry.latest()
        if latest is None or latest <= start_ns:
            detail = f"no telemetry is newer than the start of the incident at {iso(start_ns)}"
            raise SessionStopped(Status.INVALID, f"{ImpactReason.NOT_YET_EXPORTED}: {detail}")

    def set_up_only(self, faults: FaultScheduler) -> SessionStopped:
        """Return what ends a session that only sets up its fault."""
        impact = self._log.impact
        served = ", ".join(faults.faults_on()) or "no fault"
        found = f"{impact.reason}: {impact.detail}" if impact is not None else "no impact to wait for"
        return SessionStopped(
            Status.SKIPPED, f"setup only: {served} is served; {found}; no analysis was made"
        )

    async def judge(
        self, faults: FaultScheduler, baseline: Baseline, diagnosis: Diagnosis, elapsed_s: float
    ) -> None:
        """Judge the diagnosis; a session that was disturbed meanwhile keeps no verdict."""
        verdict = await judge_diagnosis(
            self.context, self._parts.judge, diagnosis, edges=baseline.edges, elapsed_s=elapsed_s
        )
        await faults.check_undisturbed()
        self._log.judged(verdict)

    async def clean_up(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Undo the faults, wait for recovery, and collect what pictures and recordings need.

        *error* is an interrupt; everything that may take long is then left out. Raises an interrupt that
        arrived during the undo, and hides none.
        """
        log, interrupt = self._log, error
        with log.phase(Phase.UNDO) as note:
            undo = self._faults.undo if self._faults is not None else None
            if undo is None:
                note.skip("nothing was set")
            elif not self._leave_on(note):
                arrived = await self._undo(undo, note)
                interrupt = arrived or interrupt
                if interrupt is None:
                    await self._find_residue(note)
                    await self._restart_unfelt()
        if interrupt is not error and interrupt is not None:
            log.end(interrupt)
        with log.phase(Phase.RECOVER) as note:
            await self._recover(note, interrupted=interrupt is not None)
        if interrupt is not error and interrupt is not None:
            raise interrupt
        if error is None:
            timeout_s = self._settings.close_timeout_s
            log.exhibits = await exhibits_of(self._system.telemetry, log, timeout_s=timeout_s)
            await self._capture()
        return False

    def _leave_on(self, note: PhaseNote) -> bool:
        """Whether the user asked to leave the faults on, in a system that outlives the session."""
        left_on = self._faults.faults_on() if self._faults is not None else ()
        if not (self._settings.skip_cleanup and self._outlived and left_on):
            return False
        command = command_of(self._system)
        detail = f"left on, as requested: {', '.join(left_on)}; restore it with: {command}"
        self._log.undone(
            Cleanup(restored=False, verified=False, left_on=left_on, recovery_command=command, detail=detail)
        )
        note.skip(detail)
        return True

    async def _undo(self, undo: FaultUndo, note: PhaseNote) -> BaseException | None:
        """Undo the faults; return an interrupt that arrived meanwhile."""
        limit_s = max(self._settings.undo_timeout_s, self._system.undo_timeout_s)
        cleanup, cancelled = await protected(undo.run(), timeout_s=limit_s, give_up=undo.give_up)
        if cleanup is None:
            late = f"the undo took longer than {limit_s:g} s"
            cleanup = Cleanup(restored=False, verified=False, detail=late)
        if cleanup.failed:
            cleanup = cleanup.model_copy(update={"recovery_command": command_of(self._system)})
            note.outcome, note.detail = "failed", cleanup.detail
            self._log.mark_fault_active(undo.remedy(cleanup))
        elif cleanup.detail:
            self._log.note(cleanup.detail)
        self._log.served(*undo.proofs)
        self._log.undone(cleanup)
        return undo.interrupt or cancelled

    async def _restart_unfelt(self) -> None:
        """Restart the service that a served fault did not reach, so that the next session finds it well.

        After the undo: a restart under the fault would be a second change for the analyzer to explain.
        """
        restart, impact = self._system.restart, self._log.impact
        if (
            restart is None
            or impact is None
            or impact.reason is not ImpactReason.NOT_FELT
            or not impact.service
        ):
            return
        try:
            async with asyncio.timeout(self._settings.residue_timeout_s):
                problem = await restart(impact.service)
        except TimeoutError:
            problem = f"that took longer than {self._settings.residue_timeout_s:g} s"
        except Exception as error:
            problem = describe(error)
        self._log.note(
            f"{impact.service} was not restarted: {problem}"
            if problem
            else f"restarted {impact.service}, which a served flag did not reach"
        )

    async def _find_residue(self, note: PhaseNote) -> None:
        """Let the target restart what outlives the flag, and record what it says stays."""
        residue, cleanup = self._system.residue, self._log.cleanup
        if residue is None or cleanup is None or cleanup.failed:
            return
        limit_s = self._settings.residue_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                found = tuple(await residue(self._scenario.faults))
        except TimeoutError:
            found = (f"residual effects not determined within {limit_s:g} s",)
        except Exception as error:
            found = (f"residual effects not determined: {describe(error)}",)
        self._log.cleanup = cleanup.model_copy(update={"residue": found})
        note.detail = "; ".join(found)

    async def _recover(self, note: PhaseNote, *, interrupted: bool) -> None:
        """Wait until the target looks like its baseline again; note for the next session when it does not."""
        cleanup, goal = self._log.cleanup, self._goal
        why = self._nothing_to_recover(cleanup, goal, interrupted=interrupted)
        if why or cleanup is None or goal is None:
            note.skip(why)
            return
        since_ns = self.context.now()
        try:
            # The target's clock may be virtual; this bounds telemetry that hangs.
            async with asyncio.timeout(self._timing.recover_timeout_s + self._settings.close_timeout_s):
                recovered, detail = await recover(self._system, goal, since_ns=since_ns)
        except Exception as error:
            recovered, detail = None, f"unknown: {describe(error)}"
        note.outcome, note.detail = ("ok" if recovered is not False else "failed"), detail
        self._log.cleanup = cleanup.model_copy(update={"recovered": recovered, "detail": detail})
        if recovered is False and self._outlived:
            faults = " + ".join(map(str, self._scenario.faults))
            cause = f"{faults} of session {self._log.plan.session_id}"
            self._parts.state.unrecovered = Unrecovered(cause, goal, since_ns)

    def _nothing_to_recover(
        self, cleanup: Cleanup | None, goal: RecoveryGoal | None, *, interrupted: bool
    ) -> str:
        """Return why there is no recovery to wait for, '' where there is."""
        reasons = (
            ("nothing was set", cleanup is None),
            ("cancelled", interrupted),
            ("the fault was left on", cleanup is not None and bool(cleanup.left_on)),
            ("the undo did not go through", cleanup is not None and not cleanup.verified),
            ("no baseline to return to", goal is None),
            ("timing.recover_timeout_s is 0", not self._timing.recover_timeout_s),
        )
        return next((reason for reason, holds in reasons if holds), "")

    async def _capture(self) -> None:
        """Record the telemetry where the settings ask for it; a failure is a note."""
        capture, limit_s = self._settings.capture, self._settings.capture_timeout_s
        if capture is None:
            return
        try:
            async with asyncio.timeout(limit_s):
                await capture(self._system, self._log.result())
        except TimeoutError:
            self._log.note(f"recording: not done within {limit_s:g} s")
        except Exception as error:
            self._log.note(f"recording: {describe(error)}")
