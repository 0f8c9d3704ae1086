"""Putting the parts together from settings; what the plugin and the command share."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.ports import Analyzer, Target
from pytest_otel_diag.reports.manifest import AnalyzerIdentity, analyzer_identity
from pytest_otel_diag.scoring.gate import GateSettings
from pytest_otel_diag.scoring.judge import judge
from pytest_otel_diag.sessions.analyzers import load_analyzer
from pytest_otel_diag.sessions.engine import SessionEngine
from pytest_otel_diag.sessions.observer import NullObserver
from pytest_otel_diag.sessions.plan import EngineSettings, SessionPlan

NO_TARGET = (
    "no system under fault is named; give one with --otel-diag-target=replay:PATH, where PATH is a "
    "recording or a folder of recordings (environment OTEL_DIAG_TARGET, ini otel_diag_target)"
)


def open_target(settings: Settings, worker: str) -> Target:
    """Return the target that the settings name; ``worker`` keeps parallel processes apart on disk.

    Raises ConfigurationError for a missing or unknown one, RecordingError for an unreadable one.
    """
    if not settings.target:
        raise ConfigurationError(NO_TARGET)
    kind, _, rest = settings.target.partition(":")
    known = {point.name: point for point in metadata.entry_points(group="pytest_otel_diag.targets")}
    if kind not in known:
        raise ConfigurationError(
            f"no target {kind!r} in {settings.target!r}{nearest(kind, known)}; "
            f"there are {', '.join(sorted(known))}"
        )
    factory = known[kind].load()
    target: Target = factory.from_spec(
        rest, store_dsn=settings.store, cache_dir=settings.cache_dir(), worker=worker
    )
    return target


def close_target(target: Target) -> None:
    """Release what the target holds, where it holds anything."""
    close: Callable[[], Any] | None = getattr(target, "close", None)
    if close is not None:
        close()


@contextlib.contextmanager
def opened(settings: Settings, worker: str) -> Iterator[Target]:
    """Open the target of the settings and close it afterwards."""
    target = open_target(settings, worker)
    try:
        yield target
    finally:
        close_target(target)


def identity(spec: str, analyzer: Analyzer) -> AnalyzerIdentity:
    """Return which analyzer *spec* stands for: module, version, hash of its source."""
    return analyzer_identity(spec, getattr(analyzer, "__wrapped__", analyzer))


def open_analyzer(spec: str) -> Analyzer:
    """Return the analyzer by entry-point name or ``module:attribute``; raises ConfigurationError."""
    return load_analyzer(spec, metadata.entry_points(group="pytest_otel_diag.analyzers"))


class _Ended(NullObserver):
    """Hands the finished session on."""

    def __init__(self, ended: Callable[[SessionResult], None]) -> None:
        self._ended = ended

    def session_ended(self, result: SessionResult) -> None:
        """Hand it on."""
        self._ended(result)


def engine(
    settings: Settings, target: Target, analyzer: Analyzer, ended: Callable[[SessionResult], None]
) -> SessionEngine:
    """Return an engine that judges with our judge and tells *ended* each result."""
    knobs = EngineSettings(session_timeout_s=settings.session_timeout_s)
    return SessionEngine(target, analyzer, judge, observer=_Ended(ended), settings=knobs)


def plan(
    scenario: Scenario, settings: Settings, *, run_id: str, test_id: str, repeat: int, analyzer: str
) -> SessionPlan:
    """Return the plan of one session under the settings."""
    return SessionPlan(
        scenario=scenario.model_copy(update={"timing": settings.timing(scenario.timing)}),
        session_id=secrets.token_hex(8),
        run_id=run_id,
        test_id=test_id,
        repeat=repeat,
        seed=settings.seed + repeat,
        analyzer_name=analyzer,
        budget=settings.budget,
    )


def gate_settings(settings: Settings) -> GateSettings:
    """Return the gate's criteria with the thresholds of the settings."""
    return GateSettings().with_thresholds(
        {
            "detection_sensitivity": settings.min_sensitivity,
            "false_positive_rate": settings.max_false_positives,
            "top1": settings.min_top1,
        }
    )
