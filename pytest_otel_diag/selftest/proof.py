"""Proves the oracle of a scenario on its target: false when healthy, true under the fault, false after it.

It uses the target directly, without the session workflow, so that bugs of the workflow cannot affect it. The
phases on the target's clock are a quiet window, a healthy window as long as the incident, the faults by their
schedule, the undo with a pause for requests in flight, and a window after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.flags import FlagChange, FlagDocument
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionWindows
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import JudgeFacts, Target, TargetSession
from pytest_otel_diag.scoring.judge import describe_expected, judge
from pytest_otel_diag.selftest.chains import real_path
from pytest_otel_diag.selftest.measure import Measured, measure
from pytest_otel_diag.selftest.reference import faults_of, mutants, reference
from pytest_otel_diag.sessions.exhibits.facts import edges_in, services_in
from pytest_otel_diag.sessions.faults.injection import resolve_faults
from pytest_otel_diag.sessions.faults.schedule import Schedule, schedule_of

MORE_LOOKS = 4
"""Maximal repetitions of the observation until every claim is visible."""

SETTLE_S = 90.0
"""Pause after the undo, for requests in flight and one more export of counters."""


@dataclass(frozen=True)
class ProofPhase:
    """Measurements of the claims in one phase; ``visible`` are the claims that hold."""

    window: Window
    measured: tuple[Measured, ...] = ()

    @property
    def visible(self) -> tuple[Measured, ...]:
        """Claims that hold in this phase."""
        return tuple(one for one in self.measured if one.visible)


@dataclass(frozen=True)
class Mutation:
    """A wrong answer and the reasons why the judge rejected it; without reasons it was accepted."""

    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Proof:
    """The proof of one scenario's oracle; ``problems`` is empty when it holds.

    ``residue`` is the declared residual effect after the undo.
    """

    scenario: str
    healthy: ProofPhase | None = None
    faulted: ProofPhase | None = None
    undone: ProofPhase | None = None
    paths: Mapping[tuple[str, ...], tuple[str, ...] | None] = field(default_factory=dict)
    mutations: tuple[Mutation, ...] = ()
    residue: str = ""
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the scenario may judge analyzers."""
        return not self.problems


async def prove(scenario: Scenario, target: Target, residue: str = "") -> Proof:
    """Prove the oracle of *scenario*; an error that prevents the proof becomes a problem of it.

    *residue* is the residual effect after the undo that the catalog declares; empty: none is allowed.
    """
    try:
        if mistakes := target.validate(scenario):
            return Proof(scenario.id, problems=tuple(mistakes))
        async with target.open(scenario, f"self-test-{scenario.id}") as session:
            return await _Trial(scenario, session, residue).run()
    except OtelDiagError as error:
        return Proof(scenario.id, problems=(f"cannot be proven: {error}",))


class _Trial:
    """One scenario on an open target."""

    def __init__(self, scenario: Scenario, session: TargetSession, residue: str) -> None:
        self._scenario = scenario
        self._expectation = scenario.expectation
        self._session = session
        self._residue = residue
        self._problems: list[str] = []
        self._quiet = Window(start_ns=0, end_ns=0)
        self._known: dict[Window, JudgeFacts] = {}

    async def run(self) -> Proof:
        timing = self._scenario.timing
        self._quiet = await self._pass(timing.baseline_s)
        healthy = await self._phase(await self._pass(timing.observe_s))
        self._complain("shows without the fault", healthy.visible)
        if self._expectation.healthy:
            return await self._control(healthy)
        # The healthy window is quiet as well; a longer quiet window makes later comparisons more sensitive.
        self._quiet = Window(start_ns=self._quiet.start_ns, end_ns=healthy.window.end_ns)
        document = await self._session.flags.document()
        faulted = await self._faulted(document)
        self._complain("does not show under the fault", _missing(faulted))
        paths = {path: await self._real(path, faulted.window) for path in self._expectation.paths}
        self._problems += [f"no real trace runs {' → '.join(p)}" for p, real in paths.items() if real is None]
        chains = [real for real in paths.values() if real is not None]
        answer = reference(self._expectation, chains, faulted.window)
        mutations = await self._judged(answer, healthy.window, faulted.window)
        await self._session.flags.restore(document)
        await self._session.clock.sleep(SETTLE_S)
        undone = await self._phase(await self._pass(timing.observe_s))
        left = [describe_expected(one.claim) for one in undone.visible]
        if not self._residue:
            self._complain("still shows after the undo", undone.visible)
        return Proof(
            scenario=self._scenario.id,
            healthy=healthy,
            faulted=faulted,
            undone=undone,
            paths=paths,
            mutations=mutations,
            residue=self._residue if left else "",
            problems=tuple(self._problems),
        )

    async def _control(self, healthy: ProofPhase) -> Proof:
        """Prove a control: the right answer is that nothing is wrong, and an alarm is rejected."""
        document = await self._session.flags.document()
        window = await self._scheduled(self._plan(document))
        right = Diagnosis(detected=False, confidence=0.9)
        alarm = Diagnosis(detected=True, confidence=0.9)
        if faults := faults_of(await self._verdict(right, window, self._scenario)):
            self._problems += [f"the right answer is rejected: {reason}" for reason in faults]
        reasons = tuple(faults_of(await self._verdict(alarm, window, self._scenario)))
        if not reasons:
            self._problems.append("a false alarm is accepted")
        return Proof(
            scenario=self._scenario.id,
            healthy=healthy,
            mutations=(Mutation("a false alarm", reasons),),
            problems=tuple(self._problems),
        )

    def _plan(self, document: FlagDocument) -> Schedule:
        changes = resolve_faults(self._scenario.faults, document)
        rest = {key: flag.default_variant for key, flag in document.flags.items()}
        return schedule_of(self._scenario, changes, rest)

    async def _faulted(self, document: FlagDocument) -> ProofPhase:
        """Run the faults until every claim is visible, or until a limit."""
        phase = await self._phase(await self._scheduled(self._plan(document)))
        for _ in range(MORE_LOOKS):
            if not _missing(phase):
                break
            window = Window(
                start_ns=phase.window.start_ns,
                end_ns=(await self._pass(self._scenario.timing.observe_s)).end_ns,
            )
            phase = await self._phase(window)
        return phase

    async def _scheduled(self, plan: Schedule) -> Window:
        """Observe for one window while the schedule runs."""
        clock, session = self._session.clock, self._session
        start_ns, done_ns = clock.now(), -1
        end_ns = start_ns + round(self._scenario.timing.observe_s * NANOS_PER_SECOND)
        current: dict[str, str] = {}
        while True:
            offset_ns = clock.now() - start_ns
            for key, variant in plan.at(offset_ns).items():
                if current.get(key) != variant:
                    await session.flags.apply(FlagChange(key=key, variant=variant))
                    current[key] = variant
            for disturbance in plan.disturbances_in(done_ns, offset_ns):
                if session.disturb is not None:
                    await session.disturb(disturbance)
            done_ns = offset_ns
            due = plan.next(offset_ns)
            stop_ns = end_ns if due is None else min(end_ns, start_ns + due)
            await clock.sleep((stop_ns - clock.now()) / NANOS_PER_SECOND)
            if stop_ns >= end_ns:
                return Window(start_ns=start_ns, end_ns=clock.now())

    async def _judged(self, answer: Diagnosis, healthy: Window, faulted: Window) -> tuple[Mutation, ...]:
        """Judge the reference answer with and without the fault, then its mutations."""
        if faults := faults_of(await self._verdict(answer, faulted, self._scenario)):
            self._problems += [f"the reference answer is rejected: {reason}" for reason in faults]
        quiet = self._expectation.model_copy(update={"healthy": True, "root_causes": (), "anomalies": ()})
        control = self._scenario.model_copy(update={"faults": (), "expectation": quiet})
        if not faults_of(await self._verdict(answer, healthy, control)):
            self._problems.append("the reference answer is accepted although nothing is wrong")
        facts = await self._facts(faulted)
        tried = []
        for name, mutant in mutants(self._expectation, answer, facts.known_services):
            reasons = tuple(faults_of(await judge(mutant, self._scenario, facts)))
            tried.append(Mutation(name, reasons))
            if not reasons:
                self._problems.append(f"a wrong answer is accepted: {name}")
        return tuple(tried)

    async def _verdict(self, answer: Diagnosis, window: Window, scenario: Scenario) -> Verdict:
        return await judge(answer, scenario, await self._facts(window))

    async def _facts(self, incident: Window) -> JudgeFacts:
        if incident not in self._known:
            self._known[incident] = await self._asked(incident)
        return self._known[incident]

    async def _asked(self, incident: Window) -> JudgeFacts:
        windows = [self._quiet, incident]
        telemetry = self._session.telemetry
        return JudgeFacts(
            telemetry=telemetry,
            known_services=await services_in(telemetry, windows),
            edges=await edges_in(telemetry, windows),
            windows=SessionWindows(baseline=self._quiet, incident=incident),
        )

    async def _pass(self, seconds: float) -> Window:
        clock = self._session.clock
        start_ns = clock.now()
        await clock.sleep(seconds)
        return Window(start_ns=start_ns, end_ns=clock.now())

    async def _phase(self, window: Window) -> ProofPhase:
        telemetry = self._session.telemetry
        claims = self._expectation.anomalies
        measured = [await measure(telemetry, claim, self._quiet, window) for claim in claims]
        return ProofPhase(window, tuple(measured))

    async def _real(self, path: tuple[str, ...], window: Window) -> tuple[str, ...] | None:
        """Search the incident, and the time before it for a path that the fault interrupts."""
        telemetry = self._session.telemetry
        return await real_path(telemetry, path, window) or await real_path(telemetry, path, self._quiet)

    def _complain(self, what: str, claims: Sequence[Measured]) -> None:
        self._problems += [f"{what}: {describe_expected(one.claim)}: {one.detail}" for one in claims]


def _missing(phase: ProofPhase) -> tuple[Measured, ...]:
    return tuple(one for one in phase.measured if not one.visible)
