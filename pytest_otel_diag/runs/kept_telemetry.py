"""Keeps the telemetry of sessions in the folder of their run, for a person to look at.

A session is recorded while its target is still open; only later is it known whether its test failed.
"""

from __future__ import annotations

import logging
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from pytest_otel_diag.model.outcome import outcome_of
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.recordings.capture import Capture
from pytest_otel_diag.runs.place import from_here

FOLDER = "telemetry"
"""Folder of a run with one recording for each session whose telemetry was kept, named by its id."""

_LOG = logging.getLogger(__name__)


def kept_folder(run: Path, session_id: str) -> Path:
    """Return where the telemetry of a session is, if it was kept."""
    return run / FOLDER / session_id


def shell_command(run: Path, session_id: str) -> str:
    """Return the command that opens the kept telemetry of a session for queries by hand."""
    return f"otel-diag sql {shlex.quote(str(from_here(run / session_id)))}"


@dataclass(frozen=True)
class TelemetryKeeper:
    """A hook of the engine that keeps the telemetry of each session in the folder *run*.

    It keeps what sessions without a score saw too, which is no ground truth.
    """

    run: Path

    async def __call__(self, session: TargetSession, result: SessionResult) -> None:
        """Keep one session; raises RecordingError or TelemetryError when it cannot be written."""
        seen = _with_incident(result, session)
        if session.exporter is None or seen is None:
            return  # a replay is a recording already; without a baseline nothing was seen
        folder = kept_folder(self.run, result.session_id)
        await Capture(folder.parent).record(session, seen, folder)


def _with_incident(result: SessionResult, session: TargetSession) -> SessionResult | None:
    """Return the result with the time after the baseline as its incident, where it ended before that."""
    windows = result.windows
    if windows.baseline is None:
        return None
    if windows.incident is not None:
        return result
    start_ns = windows.baseline.end_ns
    seen = Window(start_ns=start_ns, end_ns=max(start_ns, session.clock.now()))
    return result.model_copy(update={"windows": windows.model_copy(update={"incident": seen})})


def drop_if_right(run: Path, session: SessionResult) -> None:
    """Remove the telemetry of a session whose outcome is right; what cannot be removed is logged."""
    folder = kept_folder(run, session.session_id)
    if not outcome_of(session).right or not folder.is_dir():
        return
    try:
        shutil.rmtree(folder)
    except OSError as problem:
        _LOG.warning("%s cannot be removed: %s", folder, problem)
