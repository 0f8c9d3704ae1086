"""One run on disk: begun by its first session, scored and judged at its end."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.events import SessionEnded
from pytest_otel_diag.model.scenario import Expectation, Scenario
from pytest_otel_diag.model.session import Blame, SessionResult, Status
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.runs.directory import RunWriter, begin_run
from pytest_otel_diag.runs.document import ReportWriter, RunDocument
from pytest_otel_diag.runs.events import EventWriter, events_of
from pytest_otel_diag.runs.files import RunUnreadable
from pytest_otel_diag.runs.kept_telemetry import drop_if_right
from pytest_otel_diag.runs.manifest import (
    AnalyzerIdentity,
    Manifest,
    Setting,
    code_revision,
    environment,
    package_versions,
)
from pytest_otel_diag.runs.place import RunPlace
from pytest_otel_diag.runs.tracker import Follower, SessionState
from pytest_otel_diag.scoring.gate import GateSettings
from pytest_otel_diag.scoring.gate_outcome import EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED, GateOutcome

_LOG = logging.getLogger(__name__)

_LOST = "lost-"


def begin(place: RunPlace, settings: Settings, root: Path, target: Mapping[str, str]) -> Manifest:
    """Create the folder of a run unless another process of the run has; return its manifest.

    *root* is the folder of the code under test, *target* what the target reports about itself. Raises
    RunUnreadable when the folder for reports cannot be written.
    """
    return begin_run(place.directory, lambda: _manifest(place, settings, root, target))


class Run:
    """The run in the process that keeps its sessions and judges it.

    *place* is where; *writers* render the finished run. Raises RunUnreadable when the folder for reports
    cannot be written.
    """

    def __init__(
        self,
        settings: Settings,
        place: RunPlace,
        manifest: Manifest,
        *,
        writers: Sequence[ReportWriter] = (),
        clock: Callable[[], Nanos] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._writers = writers
        self._writer = RunWriter(place.directory, manifest)
        self._events = EventWriter(place.directory)
        self._follower = Follower(place.directory)
        self.alarms: list[str] = []
        """What a person has to act on: faults that are still on."""
        self.undo_failed = False
        """Whether a fault may still be on; such a run is never green, with or without the gate."""
        self.document: RunDocument | None = None
        """The finished run; None before :meth:`finish`."""

    @property
    def directory(self) -> Path:
        """Where the run is kept."""
        return self._writer.directory

    @property
    def inconclusive_accepted(self) -> bool:
        """Whether the gate was inconclusive and the settings let that pass."""
        gate = self.document.scorecard.gate if self.document is not None else None
        lenient = self._settings.gate and self._settings.inconclusive == "pass"
        return lenient and gate is not None and gate.outcome is GateOutcome.INCONCLUSIVE

    def add(self, session: SessionResult) -> None:
        """Keep one ended session under the id of this run."""
        self._writer.append(session.model_copy(update={"run_id": self._writer.manifest.run_id}))
        if self._settings.keep == "failed":
            drop_if_right(self.directory, session)
        if alarm := alarm_of(session):
            self.alarms.append(alarm)
        self.undo_failed |= session.cleanup is not None and session.cleanup.failed

    def complete_events(self, session: SessionResult) -> None:
        """Append the events of a session whose own process did not record its end.

        That is a session of a worker on another machine, or of a worker that was killed.
        """
        with _events_are_optional():
            if not self._follower.refresh().has_ended(session.session_id.removeprefix(_LOST)):
                for event in events_of(session):
                    self._events.emit(event)

    def lose(self, test_id: str, reason: str) -> SessionResult:
        """Return the error that stands for the session of a test whose process died.

        Sessions of the test that were in flight end with the reason; nothing else is known of them.
        """
        flights: list[SessionState] = []
        with _events_are_optional():
            flights += self._follower.refresh().flights()
        started = [flight.started for flight in flights if flight.started.test_id == test_id]
        known = started[0].session_id if started else secrets.token_hex(4)
        result = _lost_session(self._settings, known, test_id, reason)
        now_ns = self._clock()
        with _events_are_optional():
            for session in started:
                self._events.emit(
                    SessionEnded(
                        session_id=session.session_id,
                        at_ns=session.at_ns,
                        wall_ns=now_ns,
                        scenario_id=session.scenario_id,
                        status=result.status,
                        reason=reason,
                        blame=result.blame,
                        outcome=result.summary,
                        wall_s=(now_ns - session.wall_ns) / NANOS_PER_SECOND,
                    )
                )
        return result

    def finish(self, analyzers: Iterable[AnalyzerIdentity] = (), interrupted: str = "") -> int:
        """Score the run, write its renderings, and return the exit code of the gate.

        INCONCLUSIVE passes where the settings say so, but never with nothing scored. *interrupted* says what
        ended the run early: then it has no verdict.
        """
        known = {"analyzers": tuple(analyzers), "interrupted": interrupted, "alarms": tuple(self.alarms)}
        self._writer.manifest = self._writer.manifest.model_copy(update=known)
        self._events.close()
        self.document = self._writer.finish(self._clock(), gate_settings(self._settings))
        for writer in self._writers:
            writer.write(self.document, self.directory)
        card = self.document.scorecard
        if interrupted:
            return EXIT_INTERRUPTED
        if card.gate is None or card.scored == 0:
            return EXIT_INFRASTRUCTURE
        if card.gate.outcome is GateOutcome.INCONCLUSIVE and self._settings.inconclusive == "pass":
            return 0
        return card.gate.outcome.exit_code


@contextmanager
def _events_are_optional() -> Iterator[None]:
    """Log what keeps events from being read or appended: the run itself does not depend on them."""
    try:
        yield
    except (OSError, RunUnreadable) as problem:
        _LOG.warning("events of the run are incomplete: %s", problem)


def _manifest(place: RunPlace, settings: Settings, root: Path, target: Mapping[str, str]) -> Manifest:
    return Manifest(
        gated=settings.gate,
        run_id=place.run_id,
        started_at_ns=place.started_ns,
        code=code_revision(root),
        packages=package_versions(),
        python=environment()["python"],
        platform=environment()["platform"],
        settings=tuple(
            Setting(name=name, value=item.value, source=item.source)
            for name, item in settings.sources.items()
        ),
        seeds=tuple(settings.seed + repeat for repeat in range(settings.repeat)),
        target=dict(target),
        recordings={
            name.removeprefix("recording."): value
            for name, value in target.items()
            if name.startswith("recording.")
        },
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


def alarm_of(session: SessionResult) -> str:
    """Return what the session left for a person to do, empty where its faults are gone."""
    cleanup = session.cleanup
    if cleanup is None or not (cleanup.failed or cleanup.left_on):
        return ""
    where = f"session {session.session_id} of {session.scenario.id} on {session.target}"
    if cleanup.left_on:
        left_on = ", ".join(cleanup.left_on)
        return f"LEFT ON, as requested, by {where}: {left_on}; restore it with: {cleanup.recovery_command}"
    way = f"; restore it with: {cleanup.recovery_command}" if cleanup.recovery_command else ""
    return f"A FAULT MAY STILL BE ON, from {where}: {cleanup.detail}{way}"


def _lost_session(settings: Settings, session_id: str, test_id: str, reason: str) -> SessionResult:
    return SessionResult(
        session_id=f"{_LOST}{session_id}",
        run_id="",
        test_id=test_id,
        scenario=Scenario(id=test_id, expectation=Expectation()),
        target=settings.target.partition(":")[0],
        analyzer=str(settings.analyzer),
        status=Status.ERROR,
        blame=Blame.INFRASTRUCTURE,
        reason=reason,
        started_at_ns=0,
        wall_s=0.0,
    )


def is_lost(result: SessionResult) -> bool:
    """Whether the result stands for a session whose process died."""
    return result.session_id.startswith(_LOST)
