"""A run: its directory, manifest, scorecard and gate; what the plugin and the command share."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.scenario import Expectation, Scenario
from pytest_otel_diag.model.session import Blame, SessionResult, Status
from pytest_otel_diag.reports.terminal import render_scorecard
from pytest_otel_diag.reports.writers import report_writers
from pytest_otel_diag.runs.composition import gate_settings
from pytest_otel_diag.runs.directory import RunWriter
from pytest_otel_diag.runs.document import RunDocument
from pytest_otel_diag.runs.manifest import (
    AnalyzerIdentity,
    Manifest,
    Setting,
    code_revision,
    environment,
    new_run_id,
    package_versions,
)
from pytest_otel_diag.scoring.gate import EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED, GateOutcome

MIN_WIDTH = 120
"""Narrower than this, names of scenarios are cut until they look alike; terminals wrap instead."""

_LOST = "lost-"

RENDERINGS = ("markdown", "html")


class Run:
    """One run to its verdict, made when its first session ends; *started_ns* is when it began, where known.

    Raises RunUnreadable when the folder for reports cannot be written.
    """

    def __init__(
        self,
        settings: Settings,
        root: Path,
        target: Mapping[str, str],
        clock: Callable[[], int],
        *,
        started_ns: int | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        now_ns = clock() if started_ns is None else started_ns
        manifest = Manifest(
            gated=settings.gate,
            run_id=new_run_id(now_ns, random.SystemRandom()),
            started_at_ns=now_ns,
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
        self.alarms: list[str] = []
        """What a person has to do something about: faults that are on still."""
        self._may_be_on = False
        self._writer = RunWriter.start(root / settings.reports, manifest)
        self._document: RunDocument | None = None

    @property
    def directory(self) -> Path:
        """Where the run is kept."""
        return self._writer.directory

    def add(self, session: SessionResult) -> None:
        """Keep one ended session under the id of this run."""
        self._writer.append(session.model_copy(update={"run_id": self._writer.manifest.run_id}))
        if alarm := alarm_of(session):
            self.alarms.append(alarm)
        self._may_be_on |= session.cleanup is not None and session.cleanup.failed

    @property
    def may_be_on(self) -> bool:
        """Whether an undo failed: such a run is never green, gate or not."""
        return self._may_be_on

    def finish(self, analyzers: Iterable[AnalyzerIdentity] = (), interrupted: str = "") -> int:
        """Score the run, write its renderings, and return the exit code of the gate.

        INCONCLUSIVE passes where the settings say so, but never with nothing scored. *interrupted* says what
        broke the run off: then there is no verdict.
        """
        told = {"analyzers": tuple(analyzers), "interrupted": interrupted, "alarms": tuple(self.alarms)}
        self._writer.manifest = self._writer.manifest.model_copy(update=told)
        self._document = self._writer.finish(self._clock(), gate_settings(self._settings))
        for writer in report_writers(RENDERINGS):
            writer.write(self._document, self.directory)
        card = self._document.scorecard
        if interrupted:
            return EXIT_INTERRUPTED
        if card.gate is None or card.scored == 0:
            return EXIT_INFRASTRUCTURE
        if card.gate.outcome is GateOutcome.INCONCLUSIVE and self._settings.inconclusive == "pass":
            return 0
        return card.gate.outcome.exit_code

    def summary(self, width: int) -> list[str]:
        """Return the scorecard as lines for a terminal of *width* columns, and where the run is kept."""
        if self._document is None:
            return []
        lines = render_scorecard(
            self._document.scorecard, width=max(width, MIN_WIDTH), gated=self._document.gated
        ).splitlines()
        gate = self._document.scorecard.gate
        accepted = self._settings.gate and self._settings.inconclusive == "pass"
        if accepted and gate is not None and gate.outcome is GateOutcome.INCONCLUSIVE:
            lines.append("  accepted, since the settings say inconclusive=pass")
        return [*lines, "", f"run kept in {self.directory}"]


def alarm_of(session: SessionResult) -> str:
    """Return what the session left for a person to do, empty where its faults are gone."""
    cleanup = session.cleanup
    if cleanup is None or not (cleanup.failed or cleanup.left_on):
        return ""
    where = f"session {session.session_id} of {session.scenario.id} on {session.target}"
    if cleanup.left_on:
        left_on = ", ".join(cleanup.left_on)
        return f"LEFT ON, as asked, by {where}: {left_on}; take it back with: {cleanup.recovery_command}"
    way = f"; take it back with: {cleanup.recovery_command}" if cleanup.recovery_command else ""
    return f"A FAULT MAY STILL BE ON, from {where}: {cleanup.detail}{way}"


def lost_session(settings: Settings, test_id: str, reason: str) -> SessionResult:
    """Return the error that stands for a session whose process died; only the test knew its scenario."""
    return SessionResult(
        session_id=f"{_LOST}{secrets.token_hex(4)}",
        run_id="",
        test_id=test_id,
        scenario=Scenario(id=test_id, expectation=Expectation()),
        target=settings.target.partition(":")[0],
        analyzer=settings.analyzer,
        status=Status.ERROR,
        blame=Blame.INFRASTRUCTURE,
        reason=reason,
        started_at_ns=0,
        wall_s=0.0,
    )


def is_lost(result: SessionResult) -> bool:
    """Whether the result is a :func:`lost_session`."""
    return result.session_id.startswith(_LOST)
