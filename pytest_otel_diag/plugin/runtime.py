"""What runs sessions in a pytest process: settings, target, analyzers and the background thread."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable

import pytest

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.model.events import SessionEvent
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.plugin.loop_thread import Background, Pending
from pytest_otel_diag.plugin.settings import options_of
from pytest_otel_diag.plugin.stash import EMIT, RUNTIME, SETTINGS
from pytest_otel_diag.ports import Analyzer, Target
from pytest_otel_diag.runs import composition
from pytest_otel_diag.runs.manifest import AnalyzerIdentity


def settings_of(config: pytest.Config) -> Settings:
    """Return the settings of this pytest run; raises UsageError that lists every bad value."""
    if SETTINGS not in config.stash:
        config.stash[SETTINGS] = Settings.of(options_of(config))
    return config.stash[SETTINGS]


def runtime_of(config: pytest.Config) -> Runtime:
    """Return the runtime of this process, made at the first use."""
    if RUNTIME not in config.stash:
        worker = getattr(config, "workerinput", {}).get("workerid", "main")
        config.stash[RUNTIME] = Runtime(settings_of(config), worker, lambda: config.stash.get(EMIT, None))
    return config.stash[RUNTIME]


class Runtime:
    """Runs sessions; one a process.

    ``worker`` names the process among parallel ones, ``emit`` returns what reads the events of sessions.
    """

    def __init__(
        self, settings: Settings, worker: str, emit: Callable[[], Callable[[SessionEvent], None] | None]
    ) -> None:
        self.settings = settings
        self._worker = worker
        self._emit = emit
        self._run_id = secrets.token_hex(4)
        self.unreported: dict[str, SessionResult] = {}
        self._analyzers: dict[str, Analyzer] = {}
        self._identities: dict[str, AnalyzerIdentity] = {}

    @functools.cached_property
    def background(self) -> Background:
        """The thread that sessions run in."""
        return Background()

    @functools.cached_property
    def target(self) -> Target:
        """The system under fault; raises UsageError when none or a wrong one is named."""
        try:
            return composition.open_target(self.settings, self._worker)
        except OtelDiagError as error:
            raise pytest.UsageError(str(error)) from None

    def analyzer(self, spec: str) -> Analyzer:
        """Return the analyzer that *spec* names; raises UsageError for an unknown one."""
        if spec not in self._analyzers:
            try:
                self._analyzers[spec] = composition.open_analyzer(spec)
            except OtelDiagError as error:
                raise pytest.UsageError(str(error)) from None
        return self._analyzers[spec]

    def start(
        self,
        scenario: Scenario,
        ended: Callable[[SessionResult], None],
        *,
        test_id: str,
        repeat: int = 0,
        analyzer: str | None = None,
        target: Target | None = None,
    ) -> Pending[SessionResult]:
        """Start a session; *ended* gets the result, also of one that is cancelled.

        *target* stands in for the target of the run.
        """
        spec = analyzer or self.settings.analyzer
        engine = composition.engine(
            self.settings, target or self.target, self.analyzer(spec), ended, emit=self._emit()
        )
        prepared = self.prepared(scenario, repeat, test_id)
        plan = composition.plan(
            prepared, self.settings, run_id=self._run_id, test_id=test_id, repeat=repeat, analyzer=spec
        )
        return self.background.submit(engine.run(plan))

    def prepared(self, scenario: Scenario, repeat: int = 0, test_id: str = "") -> Scenario:
        """Return the scenario as it is run under the settings."""
        return composition.prepared(scenario, self.settings, self.target, repeat, test_id)

    def identity(self, spec: str) -> AnalyzerIdentity:
        """Return which analyzer *spec* stands for: module, version, hash of its source."""
        if spec not in self._identities:
            self._identities[spec] = composition.identity(spec, self.analyzer(spec))
        return self._identities[spec]

    def describe(self) -> dict[str, str]:
        """Return what the target says of itself."""
        return dict(self.target.describe())

    def close(self) -> None:
        """Stop the thread and release the target, as far as they were made."""
        if "background" in self.__dict__:
            self.background.close()
        if "target" in self.__dict__:
            composition.close_target(self.target)
