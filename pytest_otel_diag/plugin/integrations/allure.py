"""Adds sessions to the results of allure-pytest; registered only if ``--alluredir`` is given.

allure-pytest keeps the result of a test in the process that runs it, and writes it when the test is over.
Each session becomes a step of that result, with its phases as steps and its pictures, tables and query as
attachments. allure-pytest sets the status of a test, with two corrections: a session without a score makes
its test broken, whatever error was raised over it, and a wrong diagnosis makes it failed even under the gate.

Times of steps are wall time, as Allure expects; times on the target's clock are parameters. No other module
imports allure-python-commons.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
from allure_commons import plugin_manager
from allure_commons.model2 import (
    ATTACHMENT_PATTERN,
    Attachment,
    Label,
    Parameter,
    Status,
    StatusDetails,
    TestResult,
    TestStepResult,
)
from allure_commons.utils import now

from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import PhaseRecord, SessionResult
from pytest_otel_diag.model.session import Status as SessionStatus
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, iso
from pytest_otel_diag.plugin.fixtures import SESSIONS
from pytest_otel_diag.plugin.integrations.allure_files import Surroundings, write_files
from pytest_otel_diag.plugin.results import unscored
from pytest_otel_diag.plugin.settings import place_of
from pytest_otel_diag.plugin.terminal.progress import ended_text, impact_text, label, span
from pytest_otel_diag.reports.attachments import attachments
from pytest_otel_diag.runs.run import is_lost
from pytest_otel_diag.runs.tracker import state_of
from pytest_otel_diag.runs.transcripts import read_transcript

PLUGIN = "otel-diag-allure"
LISTENER = "allure_listener"
"""Name of allure-pytest's plugin that holds the results of running tests."""

EPIC = "Fault diagnosis"
SEVERITIES = {"critical": "blocker", "high": "critical", "medium": "normal", "low": "minor"}
"""From the tag ``severity`` of a scenario to Allure's levels."""

FEATURES = ("category", "fault_type")
"""Tags that name the feature; the first one that a scenario has counts."""

EXTENSIONS = {
    "image/svg+xml": "svg",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "application/json": "json",
}
ARGUMENTS = {"_otel_diag_scenario": "scenario", "_otel_diag_repeat": "repeat"}
"""Parameters of this plugin, and the names that a reader sees."""

_LOG = logging.getLogger(__name__)


def register(config: pytest.Config) -> None:
    """Register what adds sessions to the Allure results of this run, once."""
    if not config.option.collectonly and not config.pluginmanager.has_plugin(PLUGIN):
        config.pluginmanager.register(AllureResults(config), PLUGIN)


class AllureResults:
    """Adds sessions to the running test's result, and writes the shared files at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._surroundings = Surroundings()
        self._added: set[str] = set()
        self._steps: dict[str, TestStepResult] = {}
        self._trouble: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the sessions that ended in this phase, after allure-pytest has set the status."""
        report = yield
        listener = self._config.pluginmanager.get_plugin(LISTENER)
        test = listener.allure_logger.get_test(None) if listener is not None else None
        if test is not None:
            try:
                self._add(test, item, call, report)
            except Exception as error:  # a report must not end a run
                _LOG.exception("sessions of %s could not be added to the Allure results", item.nodeid)
                vars(report)["otel_diag_allure"] = f"{type(error).__name__}: {error}"
        return report

    def _add(
        self, test: TestResult, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> None:
        for parameter in test.parameters:
            parameter.name = ARGUMENTS.get(parameter.name, parameter.name)
        sessions = item.stash.get(SESSIONS, [])
        for session in sessions:
            if session.session_id not in self._added:
                self._added.add(session.session_id)
                test.steps.append(session_step(session, self._transcript(session)))
                self._steps[session.session_id] = test.steps[-1]
                if session is sessions[0]:
                    _describe(test, session, _given(item))
        if sessions and test.start is not None:  # allure-pytest times the call; the session ran before it
            test.start = min(test.start, sessions[0].started_at_ns // 1_000_000)
        for line in getattr(report, "otel_diag_unmet", ()):
            for session in sessions:
                step = self._steps.get(session.session_id)
                if step is not None and step.status == Status.PASSED:
                    step.status, step.statusDetails = Status.FAILED, StatusDetails(message=line)
        _correct(test, call, report)

    def _transcript(self, session: SessionResult) -> Sequence[TranscriptEntry]:
        """Return the transcript of a session of this process, which is complete once the session ended."""
        place = place_of(self._config)
        if place is None or session.transcript is None:
            return ()
        return read_transcript(place.directory, session.session_id)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note tests whose sessions could not be added, in this process or a worker."""
        if hasattr(report, "otel_diag_allure"):
            self._trouble.append(f"without its sessions: {report.nodeid} ({report.otel_diag_allure})")

    def pytest_otel_diag_session_finish(self, session: SessionResult) -> None:
        """Note an ended session; the reporting process alone knows of one whose worker died."""
        self._surroundings.add(session)
        if is_lost(session):
            plugin_manager.hook.report_result(result=lost_result(session))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write categories and environment, in the process that reports."""
        if hasattr(self._config, "workerinput") or not self._surroundings.sessions:
            return
        try:
            write_files(Path(self._config.option.allure_report_dir), self._surroundings)
        except OSError as error:
            self._trouble.append(f"no categories and environment: {error}")

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show where the results are, and what is missing in them."""
        if self._surroundings.sessions:
            terminalreporter.write_line(f"Allure results in {self._config.option.allure_report_dir}")
            for trouble in self._trouble:
                terminalreporter.write_line(f"  {trouble}", yellow=True)


def lost_result(session: SessionResult) -> TestResult:
    """Return the result of a test whose process died with it."""
    moment_ms: int = now()  # type: ignore[no-untyped-call]  # allure-python-commons has no types
    message = f"session not scored: error (by infrastructure): {session.reason}"
    return TestResult(
        uuid=str(uuid4()),
        name=session.test_id.rpartition("::")[2],
        fullName=session.test_id,
        status=Status.BROKEN,
        statusDetails=StatusDetails(message=message),
        stage="finished",
        start=moment_ms,
        stop=moment_ms,
        labels=[Label(name="epic", value=EPIC), Label(name="framework", value="pytest")],
    )


def session_step(session: SessionResult, transcript: Sequence[TranscriptEntry] = ()) -> TestStepResult:
    """Return the session as a step: its phases as steps, and its attachments, written at once."""
    start_ms = session.started_at_ns // 1_000_000
    step = TestStepResult(
        name=ended_text(state_of(session)),
        status=_status(session),
        stage="finished",
        start=start_ms,
        stop=start_ms + round(session.wall_s * 1000),
        parameters=parameters(session),
        attachments=[_attached(*file) for file in _files(session, transcript)],
        steps=list(_phase_steps(session, start_ms)),
    )
    if session.reason:
        step.statusDetails = StatusDetails(message=session.reason, trace=session.trace or None)
    return step


def _files(session: SessionResult, transcript: Sequence[TranscriptEntry]) -> Iterable[tuple[str, str, str]]:
    for one in attachments(session, transcript):
        yield one.name, one.media_type, one.content
    if session.diagnosis is not None:
        yield "diagnosis", "application/json", session.diagnosis.model_dump_json(indent=2)


def _attached(name: str, media_type: str, content: str) -> Attachment:
    file_name = ATTACHMENT_PATTERN.format(prefix=uuid4(), ext=EXTENSIONS.get(media_type, "txt"))
    plugin_manager.hook.report_attached_data(body=content, file_name=file_name)
    return Attachment(name=name, source=file_name, type=media_type)


def _status(session: SessionResult) -> str:
    if session.status is SessionStatus.SKIPPED:
        return str(Status.SKIPPED)
    if session.status is not SessionStatus.SCORED or session.verdict is None:
        return str(Status.BROKEN)
    return str(Status.PASSED if session.verdict.solved else Status.FAILED)


def _phase_steps(session: SessionResult, start_ms: int) -> Iterable[TestStepResult]:
    """Yield the phases one after the other: a record knows how long it took, but not when it began."""
    statuses = {"ok": Status.PASSED, "failed": Status.BROKEN, "skipped": Status.SKIPPED}
    origin_ns = session.phases[0].start_ns if session.phases else 0
    passed_s = 0.0
    for record in session.phases:
        step = TestStepResult(
            name=record.phase.value,
            status=statuses[record.outcome],
            stage="finished",
            start=start_ms + round(passed_s * 1000),
            parameters=_named(
                {
                    "target's clock": f"{iso(record.start_ns)} + {_length(record)}",
                    "since start": span((record.start_ns - origin_ns) / NANOS_PER_SECOND),
                    **_findings(session, record),
                    "detail": record.detail,
                }
            ),
        )
        passed_s += record.wall_s
        step.stop = start_ms + round(passed_s * 1000)
        if record.outcome == "failed":
            step.statusDetails = StatusDetails(message=record.detail)
        yield step


def _length(record: PhaseRecord) -> str:
    return span((record.end_ns - record.start_ns) / NANOS_PER_SECOND)


def _findings(session: SessionResult, record: PhaseRecord) -> Mapping[str, str]:
    """Return the findings of the phase by name."""
    phase = record.phase.value
    if phase == "witness":
        return {
            f"served {proof.flag}": f"{proof.variant} in {proof.reads} reads"
            if proof.confirmed
            else f"not {proof.variant}: {proof.detail}"
            for proof in session.witnesses
        }
    if phase == "impact" and session.impact is not None:
        return {"impact": impact_text(session.impact)}
    if phase == "investigate":
        return {"queries": str(len(session.queries))}
    return {}


def parameters(session: SessionResult) -> list[Parameter]:
    """Return the parameters of the session; Allure's history ignores the seed."""
    asked = session.scenario.environment
    faults = {fault.flag: str(fault.variant or "default variant") for fault in session.scenario.faults}
    shown = _named(
        {
            **faults,
            "target": session.target,
            "analyzer": session.analyzer,
            "demo": asked.demo or session.provenance.get("demo", ""),
            "users": str(asked.users or session.provenance.get("users", "")),
        }
    )
    seed = asked.seed if asked.seed is not None else session.seed
    return [*shown, Parameter(name="seed", value=str(seed), excluded=True)]


def _named(values: Mapping[str, str]) -> list[Parameter]:
    return [Parameter(name=name, value=value) for name, value in values.items() if value]


def labels(scenario: Scenario, given: frozenset[str] = frozenset()) -> list[Label]:
    """Return labels of a test of the scenario, without the kinds that its author has *given*."""
    tags = dict(scenario.tags)
    feature = next((tags[name] for name in FEATURES if name in tags), "control" if scenario.control else "")
    stories = [fault.flag for fault in scenario.faults] or ["control"]
    found = [("epic", EPIC), ("feature", feature), *(("story", story) for story in stories)]
    found.append(("severity", SEVERITIES.get(tags.get("severity", ""), "")))
    kept = [(name, value) for name, value in found if value and name not in given]
    return [
        Label(name=name, value=value) for name, value in [*kept, ("tag", label(scenario.id, scenario.faults))]
    ]


def _describe(test: TestResult, session: SessionResult, given: frozenset[str]) -> None:
    """Add labels and parameters of the session, once even where attempts share a result."""
    has_labels = {(label.name, label.value) for label in test.labels}
    has_parameters = {(parameter.name, parameter.value) for parameter in test.parameters}
    test.labels += [one for one in labels(session.scenario, given) if (one.name, one.value) not in has_labels]
    test.parameters += [one for one in parameters(session) if (one.name, one.value) not in has_parameters]


def _given(item: pytest.Item) -> frozenset[str]:
    marks = item.iter_markers("allure_label")
    return frozenset(str(mark.kwargs.get("label_type")) for mark in marks)


def _correct(test: TestResult, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Set the status where allure-pytest's is wrong."""
    error = call.excinfo.value if call.excinfo else None
    without_score = unscored(error)
    if without_score is not None and report.failed:
        test.status = Status.BROKEN
        test.statusDetails = StatusDetails(message=str(without_score), trace=report.longreprtext)
    elif hasattr(report, "otel_diag_missed"):
        test.status = Status.FAILED
        test.statusDetails = StatusDetails(message=report.otel_diag_missed, trace=report.longreprtext)
