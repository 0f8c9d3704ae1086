"""Putting the parts together from settings; what the plugin and the command share."""

from __future__ import annotations

import contextlib
import secrets
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.events import SessionEvent
from pytest_otel_diag.model.scenario import Environment, Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.ports import Analyzer, Target
from pytest_otel_diag.recordings.capture import Capture
from pytest_otel_diag.runs.manifest import AnalyzerIdentity, analyzer_identity
from pytest_otel_diag.scoring.gate import GateSettings
from pytest_otel_diag.scoring.judge import judge
from pytest_otel_diag.sessions.engine import SessionEngine
from pytest_otel_diag.sessions.investigation.loading import load_analyzer
from pytest_otel_diag.sessions.settings import EngineSettings, SessionPlan

NO_TARGET = (
    "no system under fault is named; give one with --otel-diag-target=shop for the simulated shop, or "
    "replay:PATH, where PATH is a recording or a folder of recordings (environment OTEL_DIAG_TARGET, "
    "ini otel_diag_target)"
)

_SEEDS_APART = 1_000_003
"""Scenarios take their noise from seeds; a step of the run's seed must not lead into a neighbour's."""


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
    try:
        factory = known[kind].load()
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the target {kind} needs the package {error.name!r}; "
            f'pip install "pytest-otel-diag[{kind},embedded]"'
        ) from error
    # A target that needs more than a store and a cache takes the settings as a whole.
    from_settings = getattr(factory, "from_settings", None)
    target: Target = (
        from_settings(rest, settings=settings, worker=worker)
        if from_settings is not None
        else factory.from_spec(rest, store_dsn=settings.store, cache_dir=settings.cache_dir(), worker=worker)
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


def engine(
    settings: Settings,
    target: Target,
    analyzer: Analyzer,
    ended: Callable[[SessionResult], None],
    *,
    emit: Callable[[SessionEvent], None] | None = None,
    capture: Capture | None = None,
) -> SessionEngine:
    """Return an engine that judges with our judge, hands *ended* each result and *emit* each event.

    *capture* keeps the telemetry of sessions; without one, one below ``settings.record`` where that is set.
    """
    knobs = EngineSettings(
        session_timeout_s=settings.session_timeout_s,
        min_error_ratio=settings.impact_threshold,
        max_driven_calls=EngineSettings.max_driven_calls if settings.drive else 0,
        max_sessions=settings.max_sessions,
        setup_only=settings.setup_only,
        skip_cleanup=settings.skip_cleanup,
        capture=capture or capture_of(settings),
    )
    return SessionEngine(target, analyzer, judge, emit=emit, keep=ended, settings=knobs)


def capture_of(settings: Settings) -> Capture | None:
    """Return what keeps the telemetry of sessions, None unless the settings ask for it.

    Raises ConfigurationError for a replay: it is a recording already.
    """
    if not settings.record:
        return None
    if settings.target.partition(":")[0] == "replay":
        raise ConfigurationError(
            "a replay cannot be recorded, it is a recording already; copy its folder, or change it with: "
            "otel-diag recordings shift"
        )
    return Capture(Path(settings.record).expanduser().absolute())


def environment_of(scenario: Scenario, seed: int, test_id: str = "") -> Environment:
    """Return the scenario's environment with a seed of its own, moved on by the *seed* of the session.

    Scenarios that name no seed get one from their test, or from their id: all on one seed would share one
    quiet noise, and many controls would be one. The simulated system draws from it and sees neither.
    """
    own = scenario.environment.seed
    base = zlib.crc32((test_id or scenario.id).encode()) % 100_000 if own is None else own
    return scenario.environment.model_copy(update={"seed": base + seed * _SEEDS_APART})


def prepared(
    scenario: Scenario, settings: Settings, target: Target, repeat: int, test_id: str = ""
) -> Scenario:
    """Return the scenario as it is run: with the user's timing, on a seeded target with its seed."""
    update: dict[str, object] = {"timing": settings.timing(scenario.timing)}
    if target.seeded:
        update["environment"] = environment_of(scenario, settings.seed + repeat, test_id)
    return scenario.model_copy(update=update)


def plan(
    scenario: Scenario, settings: Settings, *, run_id: str, test_id: str, repeat: int, analyzer: str
) -> SessionPlan:
    """Return the plan of one session of a :func:`prepared` scenario under the settings."""
    return SessionPlan(
        scenario=scenario,
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
