"""What runs sessions in a pytest process: the runner, the thread it runs in, and the events it records."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import OtelDiagError, SpendingLimitReached
from pytest_otel_diag.model.events import SessionEvent
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.plugin.loop_thread import LoopThread, Pending
from pytest_otel_diag.plugin.settings import ACTIVE, options_of, place_of
from pytest_otel_diag.ports import Analyzer, PreparedAnalyzer, Target
from pytest_otel_diag.runs.events import EventWriter
from pytest_otel_diag.runs.manifest import AnalyzerIdentity
from pytest_otel_diag.runs.place import RunPlace
from pytest_otel_diag.runs.run import begin
from pytest_otel_diag.runs.runner import PreparedScenario, Runner

SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
"""On the config: settings, resolved once."""

RUNTIME: pytest.StashKey[Runtime] = pytest.StashKey()
"""On the config: the runtime of this process, made by the first use."""


def settings_of(config: pytest.Config) -> Settings:
    """Return the settings of this pytest run; raises UsageError that lists every bad value."""
    if SETTINGS not in config.stash:
        config.stash[SETTINGS] = Settings.of(options_of(config))
    return config.stash[SETTINGS]


def runtime_of(config: pytest.Config) -> Runtime:
    """Return the runtime of this process, made at the first use."""
    if RUNTIME not in config.stash:
        worker = getattr(config, "workerinput", {}).get("workerid", "main")
        place = place_of(config)
        runner = Runner(settings_of(config), worker=worker, folder=place.directory if place else None)
        config.stash[RUNTIME] = Runtime(runner, place, config.rootpath)
        config.stash[ACTIVE] = True
    return config.stash[RUNTIME]


class Runtime:
    """Runs the sessions of this process; errors of settings become pytest's UsageError.

    *place* is where events are recorded (None: nowhere), *root* the folder of the code under test.
    ``unreported`` holds results, by session id, that no test report has carried yet.
    """

    def __init__(self, runner: Runner, place: RunPlace | None, root: Path) -> None:
        self._runner = runner
        self._place = place
        self._root = root
        self._events: EventWriter | None = None
        self.unreported: dict[str, SessionResult] = {}

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self._runner.settings

    @functools.cached_property
    def loop(self) -> LoopThread:
        """The thread that sessions run in."""
        return LoopThread()

    @functools.cached_property
    def target(self) -> Target:
        """The system under fault; raises UsageError when the settings name none or a wrong one."""
        try:
            return self._runner.target
        except OtelDiagError as error:
            raise pytest.UsageError(str(error)) from None

    def analyzer(self, spec: str) -> Analyzer:
        """Return the analyzer that *spec* names; raises UsageError for an unknown one."""
        try:
            return self._runner.analyzer(spec)
        except OtelDiagError as error:
            raise pytest.UsageError(str(error)) from None

    def prepare_analyzer(self, spec: str) -> None:
        """Let the analyzer check what it depends on; raises ConfigurationError and ModelUnavailable."""
        analyzer = self.analyzer(spec)
        if isinstance(analyzer, PreparedAnalyzer):
            with suppress(SpendingLimitReached):  # its sessions are skipped with this reason
                self.loop.submit(analyzer.prepare()).result()

    def identity(self, spec: str) -> AnalyzerIdentity:
        """Return what identifies the analyzer that *spec* names, also in the form that results show."""
        return self._runner.identity(spec)

    def prepare(self, scenario: Scenario, *, repeat: int = 0, test_id: str = "") -> PreparedScenario:
        """Return the scenario ready to run; raises ScenarioRejected with every mistake in it."""
        self.target  # noqa: B018 - a wrong target is an error of usage, not of the scenario
        return self._runner.prepare(scenario, repeat=repeat, test_id=test_id)

    def start(
        self,
        prepared: PreparedScenario,
        keep: Callable[[SessionResult], None],
        *,
        analyzer: str | None = None,
        target: Target | None = None,
    ) -> Pending[SessionResult]:
        """Start a session; *keep* gets the result, also of one that is cancelled.

        *target* replaces the target of the run.
        """
        spec = analyzer or self.settings.analyzer.reveal()
        self.analyzer(spec)
        session = self._runner.run(prepared, keep, emit=self._emitter(), analyzer=spec, target=target)
        return self.loop.submit(session)

    def _emitter(self) -> Callable[[SessionEvent], None] | None:
        """Return what records events; the first session creates the folder of the run."""
        if self._events is None and self._place is not None:
            try:
                begin(self._place, self.settings, self._root, self.target.describe())
            except OtelDiagError as error:
                raise pytest.UsageError(f"otel-diag: {error}") from None
            self._events = EventWriter(self._place.directory)
        return None if self._events is None else self._events.emit

    def describe(self) -> dict[str, str]:
        """Return what the target reports about itself."""
        return dict(self.target.describe())

    def close(self) -> None:
        """Stop the thread, then close the target and the file of events, as far as they were used."""
        if "loop" in self.__dict__:
            self.loop.close()
        self._runner.close()
        if self._events is not None:
            self._events.close()
