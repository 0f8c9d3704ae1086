"""Opens what settings name: the target, the analyzer and the capture of telemetry."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Protocol

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import install
from pytest_otel_diag.ports import Analyzer, Target
from pytest_otel_diag.recordings.capture import Capture
from pytest_otel_diag.runs.entry_points import ANALYZERS, check_target
from pytest_otel_diag.sessions.investigation.loading import load_analyzer


class TargetFactory(Protocol):
    """What an entry point of the group ``pytest_otel_diag.targets`` provides: usually the target's class."""

    def from_settings(self, rest: str, *, settings: Settings, worker: str) -> Target:
        """Return a target for the setting ``target=NAME:rest``.

        ``worker`` names this process among the parallel ones of a run, so that they can keep their files
        apart. Raises ConfigurationError for options the target does not have, RecordingError for a
        recording that cannot be read.
        """
        ...


def open_target(settings: Settings, worker: str) -> Target:
    """Return the target that the settings name; the caller closes it.

    Raises ConfigurationError for a missing or unknown target, and what its factory raises.
    """
    kind, _, rest = settings.target.partition(":")
    found = check_target(settings.target)
    try:
        factory: TargetFactory = found.load()
    except ModuleNotFoundError as error:
        command = install("local", "live") if kind == "live" else install("local")
        raise ConfigurationError(
            f"the target {kind} needs the package {error.name!r}; run: {command}"
        ) from error
    return factory.from_settings(rest, settings=settings, worker=worker)


def open_analyzer(spec: str) -> Analyzer:
    """Return the analyzer with this entry-point name or ``module:attribute``; raises ConfigurationError."""
    return load_analyzer(spec, metadata.entry_points(group=ANALYZERS))


def open_capture(settings: Settings) -> Capture | None:
    """Return what records the telemetry of sessions below ``settings.record``; None where that is not set.

    Raises ConfigurationError for a replay, whose telemetry is a recording already.
    """
    if not settings.record:
        return None
    if settings.target.partition(":")[0] == "replay":
        raise ConfigurationError(
            "a replay cannot be recorded, it is a recording already; copy its folder, or change it with: "
            "otel-diag recordings shift"
        )
    return Capture(Path(settings.record).expanduser().absolute())
