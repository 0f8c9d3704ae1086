"""The phases of a session, from preflight to judge. Cleanup belongs to the engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from random import Random

from pytest_otel_diag.errors import BudgetExceeded, ScenarioError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis, Signal
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import Blame, ImpactReason, Status
from pytest_otel_diag.model.telemetry import TelemetrySchema
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Analyzer, Investigation, JudgeFacts, TargetSession
from pytest_otel_diag.sessions.concurrency import Unwell
from pytest_otel_diag.sessions.exhibits.facts import edges_in, known_windows, service_windows, services_in
from pytest_otel_diag.sessions.faults.external_changes import FlagGuard, foreign_faults, refuse_foreign
from pytest_otel_diag.sessions.faults.injection import Undo, contexts_of, resolve_faults, served_now
from pytest_otel_diag.sessions.faults.not_served import disabled
from pytest_otel_diag.sessions.faults.schedule import Timeline, timeline
from pytest_otel_diag.sessions.faults.scheduler import Conductor
from pytest_otel_diag.sessions.impact.assess import Comparison, looks
from pytest_otel_diag.sessions.impact.baseline import Baseline, bucket_seconds, learn, sickness
from pytest_otel_diag.sessions.impact.evidence import Quiet
from pytest_otel_diag.sessions.impact.recovery import recover
from pytest_otel_diag.sessions.impact.wait import Wait, likeness
from pytest_otel_diag.sessions.investigation.metering import HomeLoop, InvestigationClock, MeteredTelemetry
from pytest_otel_diag.sessions.investigation.run import opaque_id, run_analyzer
from pytest_otel_diag.sessions.investigation.threads import both
from pytest_otel_diag.sessions.log import PhaseNote, SessionLog, SessionStopped, describe
from pytest_otel_diag.sessions.settings import EngineSettings, Judge, WallTime

_NEEDS: dict[Signal, tuple[str, ...]] = {
    Signal.LOGS: ("logs",),
    **dict.fromkeys((Signal.CPU, Signal.MEMORY, Signal.GC, Signal.METRIC), ("metrics",)),
}


@dataclass(frozen=True)
class Tools:
    """What the workflow works with beside the target: the analyzer, the judge, knobs and wall time."""

    analyzer: Analyzer
    judge: Judge
    settings: EngineSettings
    wall: WallTime


class Workflow:
    """One session on an open target; each method is one phase, in the order of the file."""

    def __init__(self, session: TargetSession, log: SessionLog, tools: Tools) -> None:
        self._session = session
        self._log = log
        self._tools = tools
        self._settings = tools.settings
        self._scenario: Scenario = log.plan.scenario
        self._timing = log.plan.scenario.timing
        self._changes: tuple[FlagChange, ...] = ()
        self._baseline: Baseline | None = None
        self._fault_start_ns: Nanos = 0
        self._diagnosis_s = 0.0
        self._prepared: Undo | None = None
        self._conductor = Conductor(session, log, Timeline(), tools.settings)
        self.undo: Undo | None = None
        """What takes the faults back, from the moment before the first one is set."""

    async def preflight(self) -> None:
        """Check flags and signals before anything is touched; prepares the undo."""
        document = await self._session.flags.document()
        faults, contexts = self._scenario.faults, contexts_of(self._scenario.faults)
        self._changes = resolve_faults(faults, document)
        self._check_disturbances()
        off = [disabled(flag) for flag in (document.flags[c.key] for c in self._changes) if not flag.enabled]
        if off:
            raise self._conductor.refusal("; ".join(off))
        refuse_foreign(
            await foreign_faults(self._session, document, self._settings, contexts=contexts.values())
        )
        self._check_signals(await self._session.telemetry.schema())
        before = await served_now(self._session, self._changes, self._settings, contexts=contexts)
        course = timeline(self._scenario, self._changes, before)
        guard = FlagGuard(self._session, self._settings, document, contexts)
        self._conductor = Conductor(self._session, self._log, course, self._settings, contexts, guard)
        self._conductor.found(before)
        if self._changes:
            self._prepared = Undo(self._session, document, before, self._settings, contexts=contexts)

    def _check_disturbances(self) -> None:
        if self._scenario.disturbances and self._session.disturb is None:
            kinds = ", ".join(sorted({one.kind for one in self._scenario.disturbances}))
            raise ScenarioError(
                f"scenario {self._scenario.id!r} has disturbances ({kinds}), which this target cannot make; "
                "take them out or use a target that can"
            )

    def _check_signals(self, schema: TelemetrySchema) -> None:
        present = schema.signals()
        wanted = {a.signal for a in self._scenario.expectation.anomalies if a.signal is not None}
        missing = sorted({s for signal in wanted for s in _NEEDS.get(signal, ()) if s not in present})
        if not present:
            raise SessionStopped(
                Status.ERROR,
                f"preflight: no telemetry tables in database {schema.database!r}; point the target at the "
                "database the collector's ClickHouse exporter writes to",
                Blame.INFRASTRUCTURE,
            )
        if missing:
            raise SessionStopped(
                Status.ERROR,
                f"preflight: the scenario expects anomalies in {', '.join(missing)}, the store has "
                f"{', '.join(present)} only; export the missing signals or drop the expectation",
                Blame.INFRASTRUCTURE,
            )

    async def baseline(self, note: PhaseNote) -> None:
        """Let the baseline pass and learn it; a sick one stops sessions that need to see the impact."""
        clock = self._session.clock
        start_ns = clock.now()
        await clock.sleep(self._timing.baseline_s)
        self._baseline = await learn(
            self._session.telemetry,
            Window(start_ns=start_ns, end_ns=clock.now()),
            self._session.reference,
            expectation=self._scenario.expectation,
            base=self._plain(),
        )
        self._log.baseline_measured(self._baseline.samples)
        update = {"baseline": self._baseline.window, "reference": self._session.reference}
        self._log.windows = self._log.windows.model_copy(update=update)
        note.detail = sickness(self._baseline, self._settings, control=self._scenario.control)
        if note.detail and self._scenario.require_impact:
            raise SessionStopped(Status.ERROR, f"baseline: {note.detail}", Blame.INFRASTRUCTURE)

    def _plain(self) -> Comparison:
        settings = self._settings
        count = looks(self._timing, self._impact_timeout_s)
        return Comparison(
            loads={},
            expected=frozenset(),
            watched=frozenset(),
            bucket_s=bucket_seconds(self._timing),
            alpha=settings.alpha / count,
            power=settings.power,
            effect=settings.min_error_ratio,
            quiet=Quiet(alpha=settings.alpha, looks=count, wait_s=self._impact_timeout_s),
        )

    async def inject(self, note: PhaseNote) -> None:
        """Set the flags and make the disturbances that are due at once; the schedule counts from here."""
        if not self._changes:
            note.skip("control without a fault")
            await self._session.clock.sleep(self._timing.guard_s)
        self.undo = self._prepared
        await self._conductor.begin()

    async def witness(self, note: PhaseNote) -> None:
        """Prove that the first faults are served, waiting for one that comes late; sets the fault's start."""
        self._fault_start_ns = self._session.clock.now()
        if not self._changes:
            note.skip("control without a fault")
            return
        await self._conductor.prove()
        if not self._log.witnesses:
            await self._conductor.first_fault()
            self._move_baseline()
        # The first of the confirming reads: from there on the first fault was really in force.
        self._fault_start_ns = min(proof.at_ns for proof in self._log.witnesses)

    def _move_baseline(self) -> None:
        """Let the baseline end where a late fault begins: the gap would tell it from other sessions.

        A disturbance that came before the fault must not become part of what is normal.
        """
        baseline, late_ns = self._log.windows.baseline, self._conductor.timeline.first_fault_ns
        if baseline is None or not late_ns or self._log.disturbances:
            return
        update = {
            "baseline": baseline.moved(late_ns),
            # what ends where the baseline began moves with it: that gap would tell as much
            "reference": tuple(
                window.moved(late_ns) if window.end_ns == baseline.start_ns else window
                for window in self._log.windows.reference
            ),
        }
        self._log.windows = self._log.windows.model_copy(update=update)

    @property
    def _impact_timeout_s(self) -> float:
        """How long to wait: no longer than the incident is observed when the impact is not required."""
        timing = self._timing
        return (
            timing.impact_timeout_s
            if self._scenario.require_impact
            else min(timing.impact_timeout_s, timing.observe_s)
        )

    async def impact(self, note: PhaseNote) -> None:
        """Wait until telemetry shows the fault and it was observed long enough; freezes the window."""
        wait = self._wait()
        if self._scenario.control:
            note.skip("control: nothing to see")
        else:
            assert self._baseline is not None
            impact = await wait.for_impact(self._baseline.comparison)
            self._log.impact = impact
            note.detail = f"{impact.reason}: {impact.detail}"
            required = self._scenario.require_impact and not self._settings.setup_only
            if impact.reason is not ImpactReason.VISIBLE and required:
                raise SessionStopped(Status.INVALID, note.detail)
        if self._scenario.control and self._scenario.require_impact:
            await self._pass_as_a_control(wait)
        else:
            await wait.until(self._timing.observe_s)
        await self.undisturbed()
        incident = Window(start_ns=self._fault_start_ns, end_ns=self._session.clock.now())
        self._log.windows = self._log.windows.model_copy(update={"incident": incident})

    async def undisturbed(self) -> None:
        """Refuse a session whose flags, or those of others, somebody else changed; see the conductor."""
        await self._conductor.undisturbed()
        await self._conductor.still_served()

    async def undisturbed_to_the_end(self) -> None:
        """Look a last time before the undo; a verdict on a disturbed session is none."""
        try:
            await self.undisturbed()
        except BaseException:
            self._log.verdict = None
            raise

    def on(self) -> tuple[str, ...]:
        """Return ``flag=variant`` of what this session has on now."""
        return self._conductor.on()

    def set_up(self) -> SessionStopped:
        """Return what ends a session that was to set up its fault only."""
        impact = self._log.impact
        faults = ", ".join(self.on()) or "no fault"
        found = f"{impact.reason}: {impact.detail}" if impact is not None else "nothing to wait for"
        return SessionStopped(
            Status.SKIPPED, f"setup only: {faults} is served; {found}; no analysis was made"
        )

    def _wait(self) -> Wait:
        return Wait(
            self._session,
            self._conductor,
            self._log,
            self._settings,
            self._timing,
            self._fault_start_ns,
            self._impact_timeout_s,
        )

    async def _pass_as_a_control(self, wait: Wait) -> None:
        """Take as long as a session with a fault: its length must not tell the two apart."""
        rng = Random(f"{self._log.plan.session_id}/{self._log.plan.seed}")  # noqa: S311 - no secret
        await wait.until(likeness(self._timing, self._settings, rng))

    async def investigate(self) -> Diagnosis:
        """Let the analyzer answer within its budget; raises AnalyzerError or BudgetExceeded."""
        plan, wall = self._log.plan, self._tools.wall
        timeout_s = min(self._timing.analyze_timeout_s, plan.budget.time_s)
        home = HomeLoop()
        budget = plan.budget.model_copy(update={"time_s": timeout_s})
        metered = MeteredTelemetry(self._session.telemetry, budget, home, monotonic=wall.monotonic)
        windows = self._log.windows
        assert windows.incident is not None
        investigation = Investigation(
            session_id=opaque_id(plan.session_id),
            incident=windows.incident,
            baseline=windows.baseline,
            reference=windows.reference,
            telemetry=metered,
            clock=InvestigationClock(self._session.clock, home),
            budget=budget,
            seed=plan.seed,
        )
        started_s = wall.monotonic()
        try:
            diagnosis = await run_analyzer(
                self._tools.analyzer,
                investigation,
                timeout_s=timeout_s,
                grace_s=self._settings.cancel_grace_s,
            )
        finally:
            home.revoke("the investigation is over; this telemetry handle was for its time only")
            self._log.queries = metered.records
            self._diagnosis_s = wall.monotonic() - started_s
        self._log.diagnosed(diagnosis, self._diagnosis_s)
        if diagnosis.usage.cost_usd > budget.cost_usd:
            raise BudgetExceeded(
                f"the analyzer says it cost {diagnosis.usage.cost_usd:g} USD, "
                f"the budget is {budget.cost_usd:g} USD"
            )
        return diagnosis

    async def judge(self, diagnosis: Diagnosis) -> None:
        """Compare with the expectation; a judge that fails is infrastructure, whatever it raises."""
        try:
            async with asyncio.timeout(self._settings.judge_timeout_s):
                facts = await self._facts()
                verdict = await self._tools.judge(diagnosis, self._scenario, facts)
                if not isinstance(verdict, Verdict):
                    raise TypeError(f"returned {type(verdict).__name__}, not a Verdict")
                self._log.judged(verdict)
        except Exception as error:
            raise SessionStopped(Status.ERROR, f"judge: {describe(error)}", Blame.INFRASTRUCTURE) from error

    async def _facts(self) -> JudgeFacts:
        telemetry, windows = self._session.telemetry, self._log.windows
        known = self._baseline.edges if self._baseline else ()
        edges, services = await both(
            lambda: edges_in(telemetry, known_windows(windows)[1 if known else 0 :], known),
            lambda: services_in(telemetry, service_windows(windows)),
        )
        return JudgeFacts(
            telemetry=telemetry,
            queries=self._log.queries,
            impact=self._log.impact,
            time_to_diagnosis_s=self._diagnosis_s,
            known_services=tuple(sorted({*services, *(e.caller for e in edges), *(e.callee for e in edges)})),
            edges=edges,
            windows=windows,
        )

    async def still_sick(self, unwell: Unwell) -> str:
        """Look once more whether the target is back to what it was before an earlier session; say why not.

        Only calls count: memory that stays used is part of what is normal from now on.
        """
        calls = replace(unwell.comparison, quiet=Quiet())
        recovered, detail = await recover(self._session, calls, unwell.timing, since_ns=unwell.since_ns)
        return detail if recovered is False else ""

    def recovery(self) -> Comparison | None:
        """Return what the target must look like again; None when no baseline was learnt.

        One look, one question: the level is not divided by the looks, so that "recovered" is harder
        to reach than "not visibly broken".
        """
        comparison = self._baseline.comparison if self._baseline else None
        if comparison is None or not (comparison.loads or comparison.quiet.seen):
            return None
        quiet = replace(comparison.quiet, alpha=self._settings.alpha, looks=1)
        return replace(comparison, alpha=self._settings.alpha, quiet=quiet)
