"""Opens what settings name: the target, the analyzer and the capture of telemetry."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Protocol

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.extras import install
from pytest_otel_diag.ports import DescribedAnalyzer, Target
from pytest_otel_diag.recordings.capture import Capture
from pytest_otel_diag.runs.analyzers import open_in_process
from pytest_otel_diag.runs.entry_points import check_analyzer, check_target
from pytest_otel_diag.runs.entry_points import shown as shown_spec
from pytest_otel_diag.runs.isolation.isolated import IsolatedAnalyzer

_LOG = logging.getLogger(__name__)
_TAPED = ("llm", "chat")
"""Schemes whose model answers through a tape."""
_CLOSE_S = 10.0
"""How long the end of a run waits for an analyzer to close."""


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


def open_analyzer(spec: str, settings: Settings) -> DescribedAnalyzer:
    """Return the analyzer that *spec* names, in a process of its own where the settings ask for that.

    Agents are in such processes anyway, and the language model of an investigator is at its provider. The
    caller closes the analyzer. Raises ConfigurationError.
    """
    named = check_analyzer(spec)
    if settings.llm_tape and named.scheme not in _TAPED and spec == settings.analyzer.reveal():
        raise ConfigurationError(
            f"--otel-diag-llm-tape={settings.llm_tape}: the analyzer {shown_spec(spec)} asks no model "
            "through this package, so there is nothing to record or replay; it works with "
            + " and ".join(_TAPED)
        )
    if settings.isolate and not named.scheme:
        return IsolatedAnalyzer(spec, settings)
    return open_in_process(named, settings)


def close_analyzer(analyzer: DescribedAnalyzer) -> None:
    """Close the analyzer, with and without a running event loop; a failure is logged."""

    def close() -> None:
        try:
            asyncio.run(analyzer.close())
        except Exception:
            _LOG.warning("an analyzer could not be closed", exc_info=True)

    start_thread(close, "otel-diag closing an analyzer").join(_CLOSE_S)


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
