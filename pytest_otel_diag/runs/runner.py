"""Runs sessions under the settings of a run: the one way that pytest, commands and functions share."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ScenarioRejected
from pytest_otel_diag.model.events import SessionEvent
from pytest_otel_diag.model.scenario import Environment, Scenario
from pytest_otel_diag.model.session import LeakPolicy, SessionResult
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.ports import Analyzer, DescribedAnalyzer, Person, Target, TargetSession
from pytest_otel_diag.recordings.capture import Capture
from pytest_otel_diag.runs.analyzers import identity_of
from pytest_otel_diag.runs.entry_points import shown as shown_spec
from pytest_otel_diag.runs.isolation.isolated import IsolatedAnalyzer
from pytest_otel_diag.runs.kept_telemetry import TelemetryKeeper
from pytest_otel_diag.runs.manifest import AnalyzerIdentity
from pytest_otel_diag.runs.opening import close_analyzer, open_analyzer, open_capture, open_target
from pytest_otel_diag.runs.transcripts import TranscriptFolder
from pytest_otel_diag.scoring.judge import judge
from pytest_otel_diag.sessions.engine import SessionEngine
from pytest_otel_diag.sessions.investigation.loading import described
from pytest_otel_diag.sessions.settings import EngineSettings, SessionPlan
from pytest_otel_diag.sessions.validation import ValidScenario, validated

if TYPE_CHECKING:
    from pytest_otel_diag.runs.spending import RunSpending

_SEED_STRIDE = 1_000_003
"""Scenarios have base seeds below 100,000; repeats move by more, so that no two sessions share a seed."""


@dataclass(frozen=True)
class PreparedScenario:
    """A validated scenario with the user's timing and the seed of its repeat, as one session runs it.

    :meth:`Runner.prepare` is the only place that makes one.
    """

    scenario: ValidScenario
    repeat: int = 0
    test_id: str = ""


class Runner:
    """Opens the target and analyzers of a run on first use, prepares scenarios and runs their sessions.

    *worker* names this process among the parallel ones of the run. *target* replaces the one that the
    settings name; the caller closes it. *analyzers* are looked up by name before entry points are.
    *capture* replaces the recording that ``settings.record`` asks for. *folder* is that of the run, for
    transcripts, and for telemetry where the settings ask to keep it. Use it as a context manager, or call
    :meth:`close`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        worker: str = "main",
        target: Target | None = None,
        analyzers: Mapping[str, Analyzer] | None = None,
        capture: Capture | None = None,
        folder: Path | None = None,
    ) -> None:
        self.settings = settings if folder is None else replace(settings, run_folder=folder)
        self._worker = worker
        self._given = target
        self._analyzers = {name: described(one) for name, one in (analyzers or {}).items()}
        self._opened: dict[str, DescribedAnalyzer] = {}
        self._specs: dict[str, str] = {}  # by the form that results show
        self._identities: dict[str, AnalyzerIdentity] = {}
        self._capture = capture
        keeps = folder is not None and settings.keep != "none"
        self._keeper = TelemetryKeeper(folder) if folder is not None and keeps else None
        self._transcribe: Callable[[str, TranscriptEntry], None] | None = (
            TranscriptFolder(folder) if folder is not None else None
        )
        self._person: Person | None = None

    def attended(
        self, transcribe: Callable[[str, TranscriptEntry], None], person: Person | None = None
    ) -> None:
        """Let somebody follow sessions as they run: *transcribe* gets transcripts instead of the folder.

        A *person* guides analyzers with messages, which replace hints and count as they do.
        """
        self._transcribe, self._person = transcribe, person

    @cached_property
    def target(self) -> Target:
        """The system under fault; raises ConfigurationError when the settings name none or an unknown one."""
        return self._given or open_target(self.settings, self._worker)

    @cached_property
    def capture(self) -> Capture | None:
        """What records the telemetry of sessions; raises ConfigurationError for a replay."""
        return self._capture or open_capture(self.settings)

    def analyzer(self, spec: str) -> DescribedAnalyzer:
        """Return the analyzer that *spec* names, opened once; raises ConfigurationError."""
        if spec in self._analyzers:
            return self._analyzers[spec]
        if spec not in self._opened:
            self._opened[spec] = open_analyzer(spec, self.settings)
        return self._opened[spec]

    def identity(self, spec: str) -> AnalyzerIdentity:
        """Return what identifies the analyzer that *spec* names, also where its credentials are masked.

        That is module, version, source hash and what it reports about itself.
        """
        spec = self._specs.get(spec, spec)
        if spec not in self._identities:
            analyzer = self.analyzer(spec)
            if isinstance(analyzer, IsolatedAnalyzer):  # what it runs was never imported here
                self._identities[spec] = analyzer.identity
            else:
                self._identities[spec] = identity_of(shown_spec(spec), analyzer)
        return self._identities[spec]

    def prepare(self, scenario: Scenario, *, repeat: int = 0, test_id: str = "") -> PreparedScenario:
        """Return the scenario ready to run; raises ScenarioRejected with every mistake in it."""
        update: dict[str, object] = {"timing": self.settings.timing(scenario.timing)}
        if self.target.seeded:
            update["environment"] = seeded_environment(scenario, self.settings.seed + repeat, test_id)
        scenario = scenario.model_copy(update=update)
        return PreparedScenario(validated(scenario, self.target), repeat, test_id)

    def prepare_each(self, work: Iterable[tuple[Scenario, int]]) -> list[PreparedScenario]:
        """Return each scenario of a repeat ready to run; raises ScenarioRejected with the mistakes of all."""
        prepared: list[PreparedScenario] = []
        mistakes: list[str] = []
        for scenario, repeat in work:
            try:
                prepared.append(self.prepare(scenario, repeat=repeat))
            except ScenarioRejected as rejected:
                mistakes += rejected.mistakes
        if mistakes:
            raise ScenarioRejected(dict.fromkeys(mistakes))
        return prepared

    def repeated(self, scenarios: Iterable[Scenario]) -> Iterator[tuple[Scenario, int]]:
        """Yield each scenario with the number of each of its repeats."""
        for scenario in scenarios:
            yield from ((scenario, repeat) for repeat in range(self.settings.repeat))

    async def run(
        self,
        prepared: PreparedScenario,
        keep: Callable[[SessionResult], None] | None = None,
        *,
        emit: Callable[[SessionEvent], None] | None = None,
        analyzer: str = "",
        target: Target | None = None,
        session_id: str = "",
    ) -> SessionResult:
        """Run one session and return its result.

        *keep* gets the result exactly once, also when the session is cancelled; *emit* gets every event as it
        happens, on the event loop. *analyzer* and *target* replace those of the run, *session_id* a random
        one. Raises nothing but what cancels the session, and that after its undo.
        """
        spec = analyzer or self.settings.analyzer.reveal()
        shown = shown_spec(spec)
        self._specs[shown] = spec
        plan = SessionPlan(
            scenario=prepared.scenario,
            session_id=session_id or secrets.token_hex(8),
            run_id="",
            test_id=prepared.test_id,
            repeat=prepared.repeat,
            seed=self.settings.seed + prepared.repeat,
            analyzer_name=shown,
            budget=self.settings.budget,
        )
        opened, settings = self.analyzer(spec), self._engine_settings()
        affordable = None if self._spending is None else self._spending.check_for(opened)
        engine = SessionEngine(
            target or self.target,
            opened,
            judge,
            emit=emit,
            keep=keep,
            settings=replace(settings, affordable=affordable),
        )
        result = await engine.run(plan)
        if self._spending is not None and affordable is not None:
            self._spending.add(result)
        return result

    @cached_property
    def _spending(self) -> RunSpending | None:
        """What limits the money of the run; None without a limit."""
        if self.settings.max_cost is None:
            return None
        from pytest_otel_diag.runs.spending import RunSpending  # noqa: PLC0415 - loads the investigator

        return RunSpending(self.settings.run_folder, self.settings.max_cost)

    def _engine_settings(self) -> EngineSettings:
        settings = self.settings
        return EngineSettings(
            session_timeout_s=settings.session_timeout_s,
            min_error_ratio=settings.impact_threshold,
            max_driven_calls=EngineSettings.max_driven_calls if settings.drive else 0,
            hints=settings.hints,
            max_sessions=settings.max_sessions,
            setup_only=settings.setup_only,
            skip_cleanup=settings.skip_cleanup,
            leaks=cast("LeakPolicy", settings.leaks),
            capture=self._captured if self.capture or self._keeper else None,
            person=self._person,
            transcribe=self._transcribe,
        )

    async def _captured(self, session: TargetSession, result: SessionResult) -> None:
        """Record the session where the settings ask for it, and keep its telemetry with the run."""
        for hook in (self.capture, self._keeper):
            if hook is not None:
                await hook(session, result)

    def close(self) -> None:
        """Close the analyzers and the target that this runner opened."""
        while self._opened:
            _, analyzer = self._opened.popitem()
            close_analyzer(analyzer)
        if self._given is None and "target" in self.__dict__:
            self.target.close()
            del self.__dict__["target"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def seeded_environment(scenario: Scenario, seed: int, test_id: str = "") -> Environment:
    """Return the scenario's environment with its seed moved on by *seed*.

    A scenario without a seed gets one from its test or its id; with one common seed, all controls would be
    the same simulated system.
    """
    own = scenario.environment.seed
    base = zlib.crc32((test_id or scenario.id).encode()) % 100_000 if own is None else own
    return scenario.environment.model_copy(update={"seed": base + seed * _SEED_STRIDE})
