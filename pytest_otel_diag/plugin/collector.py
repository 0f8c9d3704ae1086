"""Collects sessions from test reports, keeps the run's folder, and judges the run at its end.

Works in the process that reports: plain pytest, or the controller of pytest-xdist.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.plugin.settings import ACTIVE, PLACE_INPUT, check_reports, options_of, place_of
from pytest_otel_diag.plugin.termination import TERMINATION

if TYPE_CHECKING:
    from typing import Any

    from pytest_otel_diag.model.session import SessionResult
    from pytest_otel_diag.plugin.xdist import Spool
    from pytest_otel_diag.runs.run import Run

GATE, TARGET = (next(option for option in OPTIONS if option.name == name) for name in ("gate", "target"))

CRASHED = "???"
"""``when`` of the report that pytest-xdist makes for the test in which a worker died."""

LAST_FAILED = "cache/lastfailed"
"""Key under which pytest keeps the tests that ``--lf`` selects."""

_ELSEWHERE = re.compile(r"needs target .*, this run has [\w-]+")

_CTRL_C_S = 2.0
"""How long workers may take to react to a Ctrl-C that reached them directly."""

PLAIN = str.maketrans({"–": "-", "≥": ">=", "≤": "<=", "…": "...", "→": "->", "−": "-", "×": "x"})
"""ASCII for the other characters in our reports, for terminals that cannot show them."""


def legible(line: str, encoding: str) -> str:
    """Return the line in characters that the encoding has; pytest would write escapes instead."""
    try:
        line.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return line.translate(PLAIN).encode("ascii", "replace").decode()
    return line


class ResultCollector:
    """Hooks of the reporting process; imports nothing heavy until the first session arrives."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._open: dict[str, list[SessionResult]] = {}
        self._analyzers: dict[str, None] = {}
        self._run: Run | None = None
        self._spool: Spool | None = None
        self._seen: set[str] = set()
        self._hook_errors: list[str] = []
        self._wrong: dict[str, bool] = {}  # whether it missed under the gate, by test that missed or failed
        self._interrupted = ""
        place_of(config)  # the run begins now

    def pytest_sessionstart(self) -> None:
        """Refuse wrong options, target, analyzer or folder for reports before any test is collected."""
        resolved = options_of(self._config)
        if self._asked_for():
            from pytest_otel_diag.errors import ConfigurationError
            from pytest_otel_diag.runs.entry_points import check_analyzer, check_target

            try:
                check_target(resolved["target"].value)
                check_analyzer(resolved["analyzer"].value.reveal())
            except ConfigurationError as error:
                raise pytest.UsageError(f"otel-diag: {error}") from None
        if self._asked_for() or resolved["reports"].source != "default":
            check_reports(self._config)

    def _asked_for(self) -> bool:
        """Whether the run certainly uses the plugin: the user named a target."""
        return options_of(self._config, (TARGET,))["target"].source != "default"

    @pytest.hookimpl(trylast=True)  # after the letter of the test
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the sessions off a report; write them once the test is over."""
        if report.when == CRASHED:
            self._lost(report)
        if report.when == "setup":
            self._write(report.nodeid)  # an earlier attempt of a test that is retried
        if hasattr(report, "otel_diag_sessions"):
            from pytest_otel_diag.plugin.carried import sessions_on

            self.run(getattr(report, "otel_diag_target", {}))
            for text in getattr(report, "otel_diag_analyzers", ()):
                self._analyzers.setdefault(text)
            ended = sessions_on(report)
            self._seen.update(result.session_id for result in ended)
            self._open.setdefault(report.nodeid, []).extend(ended)
        if hasattr(report, "otel_diag_failures") and report.nodeid in self._open:
            from pytest_otel_diag.plugin.carried import failed_by

            self._open[report.nodeid] = failed_by(report, self._open[report.nodeid])
        if report.failed or hasattr(report, "otel_diag_missed"):
            self._wrong[report.nodeid] = hasattr(report, "otel_diag_missed")
        if report.when == "teardown":
            self._write(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the sessions that an interrupt or a dead worker left unreported, then judge the run."""
        if ACTIVE in self._config.stash:
            from pytest_otel_diag.plugin.runtime import runtime_of

            runtime = runtime_of(self._config)
            if runtime.unreported:
                self.run(runtime.describe())
                self._open.setdefault("", []).extend(runtime.unreported.values())
        self._recover_spooled()
        for test_id in list(self._open):
            self._write(test_id)
        self._note_missed()
        if TERMINATION.exit_code is not None:
            session.exitstatus = TERMINATION.exit_code
        wanted = self._gate_wanted()
        if self._run is None and not wanted:
            return
        from pytest_otel_diag.runs.manifest import AnalyzerIdentity
        from pytest_otel_diag.scoring.gate_outcome import EXIT_INFRASTRUCTURE

        identities = [AnalyzerIdentity.model_validate_json(text) for text in self._analyzers]
        run = self.run({})
        code = run.finish(identities, self._interruption(session, exitstatus))
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            if wanted and code:
                session.exitstatus = code
            elif run.undo_failed:
                session.exitstatus = EXIT_INFRASTRUCTURE
            elif self._hook_errors:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _note_missed(self) -> None:
        """Let ``--lf`` rerun what missed under the gate: pytest counts it as an expected failure."""
        cache: pytest.Cache | None = getattr(self._config, "cache", None)  # none with -p no:cacheprovider
        missed = [test_id for test_id, left_to_gate in self._wrong.items() if left_to_gate]
        if missed and cache is not None:
            cache.set(LAST_FAILED, cache.get(LAST_FAILED, {}) | dict.fromkeys(missed, True))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note what interrupts the run."""
        cause = TERMINATION.reason or ("Ctrl-C" if excinfo.type is KeyboardInterrupt else str(excinfo.value))
        self._interrupted = f"interrupted ({cause})"

    def _interruption(self, session: pytest.Session, exitstatus: int) -> str:
        """Return what interrupted the run, empty for a run that went to its end."""
        if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            return "interrupted (an internal error of pytest or of a plugin, which the output shows)"
        if exitstatus != pytest.ExitCode.INTERRUPTED or self._interrupted:
            return self._interrupted
        return f"interrupted ({session.shouldstop or 'the run was stopped'})"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Pass the folders of the run and of unreported sessions to a worker on this machine."""
        from pytest_otel_diag.plugin import xdist as spool

        if self._spool is None:
            self._spool = spool.Spool()
        place = place_of(self._config)
        if node.gateway.spec.popen and place is not None:
            node.workerinput[spool.INPUT] = str(self._spool.folder)
            node.workerinput[PLACE_INPUT] = [str(place.directory), place.started_ns]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        """Handle signals and show progress once a worker has collected tests that run sessions."""
        if self._spool is not None and self._spool.workers():
            TERMINATION.install()
            register_reporters(self._config)

    @pytest.hookimpl(specname="pytest_sessionfinish", tryfirst=True)
    def pytest_otel_diag_let_workers_end(self, exitstatus: int) -> None:
        """Wait until interrupted workers have undone their faults: pytest-xdist kills them after 10 s."""
        if self._spool is not None and exitstatus == pytest.ExitCode.INTERRUPTED:
            from pytest_otel_diag.plugin.loop_thread import CLEANUP_TIMEOUT_S

            # Ctrl-C in a terminal reaches workers too, but not one that is sent to us alone.
            grace_s = 0.0 if TERMINATION.signum else _CTRL_C_S
            with suppress(KeyboardInterrupt):  # a second interrupt aborts the wait
                self._spool.end(timeout_s=CLEANUP_TIMEOUT_S, grace_s=grace_s)

    def _recover_spooled(self, test_id: str | None = None) -> bool:
        """Take over sessions that no report brought, of one test or of all; return whether there were any."""
        if self._spool is None:
            return False
        kept = list(self._spool.texts())
        if not kept:
            return False
        from pytest_otel_diag.model.session import SessionResult

        found = [
            result
            for result in (SessionResult.model_validate(json.loads(text)) for text in kept)
            if result.session_id not in self._seen and test_id in (None, result.test_id)
        ]
        if found:
            self.run({})
        for result in found:
            self._seen.add(result.session_id)
            self._open.setdefault(result.test_id, []).append(result)
        return bool(found)

    def pytest_unconfigure(self) -> None:
        """Remove what workers kept."""
        if self._spool is not None:
            self._spool.remove()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the scorecard, or why there is none."""
        if self._run is None:
            skips = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
            reasons = [found[0] for text in skips if (found := _ELSEWHERE.search(text))]
            if reasons:
                terminalreporter.section("otel-diag")
            for reason in dict.fromkeys(reasons):
                tests = "1 test" if reasons.count(reason) == 1 else f"{reasons.count(reason)} tests"
                terminalreporter.write_line(f"nothing was diagnosed: {tests}: {reason}")
        else:
            terminalreporter.section("otel-diag")
            from pytest_otel_diag.reports.terminal import summary
            from pytest_otel_diag.scoring.text import visible

            encoding = getattr(terminalreporter._tw._file, "encoding", None) or "utf-8"
            lines = summary(self._run, terminalreporter._tw.fullwidth, self._config.option.verbose)
            for line in [*lines, *self._next_commands()]:
                terminalreporter.write_line(legible(line, encoding))
            if self._hook_errors:
                terminalreporter.section("otel-diag: errors in hooks", red=True, bold=True)
                for line in self._hook_errors:
                    terminalreporter.write_line(legible(visible(line), encoding), red=True)
            if self._run.alarms:
                terminalreporter.section("otel-diag: faults that are on", red=True, bold=True)
                for line in self._run.alarms:
                    terminalreporter.write_line(legible(line, encoding), red=True, bold=True)

    def _next_commands(self) -> list[str]:
        """Return how to run again what missed or failed; options may hold secrets and are not repeated."""
        if not self._wrong:
            return []
        path, *rest = next(iter(self._wrong)).split("::")
        place = os.path.relpath(self._config.rootpath / path, self._config.invocation_params.dir)
        test_id = shlex.quote("::".join([place, *rest]))
        alone = f"run one test alone: the same options with {test_id}"
        if getattr(self._config, "cache", None) is None:
            return [alone]
        return ["run again what missed or failed: the same command with --lf", alone]

    def run(self, target: dict[str, str]) -> Run:
        """Return the run, begun with its first session; *target* is what the target reports about itself."""
        if self._run is None:
            from pytest_otel_diag.plugin.runtime import settings_of
            from pytest_otel_diag.reports.writers import run_writers
            from pytest_otel_diag.runs.files import RunUnreadable
            from pytest_otel_diag.runs.run import Run, begin

            settings, place = settings_of(self._config), place_of(self._config)
            assert place is not None, "the reporting process has a place"
            try:
                manifest = begin(place, settings, self._config.rootpath, target)
                self._run = Run(settings, place, manifest, writers=run_writers())
            except RunUnreadable as error:
                raise pytest.UsageError(f"otel-diag: {error}") from None
            register_reporters(self._config)
        return self._run

    def _lost(self, report: pytest.TestReport) -> None:
        """Keep the session that died with its worker as an error."""
        used = self._run is not None or self._asked_for() or self._gate_wanted()
        if not self._recover_spooled(report.nodeid) and used and report.nodeid not in self._open:
            reason = f"the worker process died in this test: {report.longreprtext.strip()}"
            self._open.setdefault(report.nodeid, []).append(self.run({}).lose(report.nodeid, reason))
        self._write(report.nodeid)

    def _write(self, test_id: str) -> None:
        for session in self._open.pop(test_id, ()):
            run = self.run({})
            run.add(session)
            run.complete_events(session)
            try:
                self._config.hook.pytest_otel_diag_session_finish(config=self._config, session=session)
            except Exception as error:  # of a project's own hook: the session is written, the run goes on
                where = traceback.extract_tb(error.__traceback__)[-1]
                self._hook_errors.append(
                    f"pytest_otel_diag_session_finish of session {session.session_id}: "
                    f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
                )

    def _gate_wanted(self) -> bool:
        if self._config.option.collectonly:
            return False
        return bool(options_of(self._config, (GATE,))["gate"].value)


def register_reporters(config: pytest.Config) -> None:
    """Register what follows sessions in the reporting process: progress, and Allure where it is asked for."""
    from pytest_otel_diag.plugin.terminal import screen

    screen.register(config)
    if getattr(config.option, "allure_report_dir", None):
        from pytest_otel_diag.plugin.integrations import allure  # needs allure-pytest

        allure.register(config)
