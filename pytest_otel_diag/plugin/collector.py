"""The side that reports: collects sessions from test reports, keeps the run directory, judges the run.

Lives in the process that writes to the terminal: plain pytest, or the controller of pytest-xdist.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.plugin.settings import options_of
from pytest_otel_diag.plugin.stash import RUNTIME
from pytest_otel_diag.plugin.termination import SIGNALS

if TYPE_CHECKING:
    from typing import Any

    from pytest_otel_diag.model.session import SessionResult
    from pytest_otel_diag.plugin.xdist import Spool
    from pytest_otel_diag.runs.run import Run

GATE, REPORTS, TARGET = (
    next(option for option in OPTIONS if option.name == name) for name in ("gate", "reports", "target")
)

CRASHED = "???"
"""``when`` of the report that pytest-xdist makes for the test in which a worker died."""


_ELSEWHERE = re.compile(r"needs target .*, this run has [\w-]+")

_CTRL_C_S = 2.0
"""How long workers may take to begin their end by the Ctrl-C that they got themselves."""

PLAIN = str.maketrans({"–": "-", "≥": ">=", "≤": "<=", "…": "...", "→": "->", "−": "-", "×": "x"})
"""Signs of ours in ASCII, for terminals that can show no more."""


def legible(line: str, encoding: str) -> str:
    """Return the line as a terminal of this encoding can show it; pytest would write escapes instead."""
    try:
        line.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return line.translate(PLAIN).encode("ascii", "replace").decode()
    return line


class Collector:
    """Hooks of the collecting side; imports nothing until the first session arrives."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._open: dict[str, list[SessionResult]] = {}
        self._analyzers: dict[str, None] = {}
        self._run: Run | None = None
        self._spool: Spool | None = None
        self._seen: set[str] = set()
        self._interrupted = ""
        self._started_ns = time.time_ns()

    def pytest_sessionstart(self) -> None:
        """Refuse a folder for reports that cannot be written, before anything runs."""
        if self._asked_for() and not self._config.option.collectonly:
            resolved = options_of(self._config, (REPORTS,))
            folder = self._config.rootpath / resolved["reports"].value
            there = next(path for path in (folder, *folder.parents) if path.exists())
            if not there.is_dir() or not os.access(there, os.W_OK):
                where = f"{resolved['reports'].spelling}={resolved['reports'].value}"
                raise pytest.UsageError(
                    f"otel-diag: no reports can be written to {folder}: {there} is no folder to write to; "
                    f"change {where}"
                )

    def _asked_for(self) -> bool:
        """Whether this run is one of ours for sure: a target was named, not left at its default."""
        return options_of(self._config, (TARGET,))["target"].source != "default"

    @pytest.hookimpl(trylast=True)  # after the letter of the test
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the sessions off a report; write them once the test is over."""
        if report.when == CRASHED:
            self._lost(report)
        texts = getattr(report, "otel_diag_sessions", ())
        if texts:
            from pytest_otel_diag.model.session import SessionResult

            self.run(getattr(report, "otel_diag_target", {}))
            for text in getattr(report, "otel_diag_analyzers", ()):
                self._analyzers.setdefault(text)
            ended = [SessionResult.model_validate(json.loads(text)) for text in texts]
            self._seen.update(result.session_id for result in ended)
            self._open.setdefault(report.nodeid, []).extend(ended)
        failures = tuple(getattr(report, "otel_diag_failures", ()))
        if failures and report.nodeid in self._open:
            self._open[report.nodeid] = [
                session.model_copy(update={"failures": session.failures + failures})
                for session in self._open[report.nodeid]
            ]
        if report.when == "teardown":
            self._write(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write what an interrupt or a dead worker left behind, then score and judge the run."""
        if RUNTIME in self._config.stash:
            left = self._config.stash[RUNTIME].unreported
            if left:
                self.run(self._config.stash[RUNTIME].describe())
                self._open.setdefault("", []).extend(left.values())
        self._rescue()
        for test_id in list(self._open):
            self._write(test_id)
        if SIGNALS.exit_code is not None:
            session.exitstatus = SIGNALS.exit_code
        wanted = self._gate_wanted()
        if self._run is None and not wanted:
            return
        from pytest_otel_diag.runs.manifest import AnalyzerIdentity
        from pytest_otel_diag.scoring.gate import EXIT_INFRASTRUCTURE

        identities = [AnalyzerIdentity.model_validate_json(text) for text in self._analyzers]
        run = self.run({})
        code = run.finish(identities, self._broken_off(session, exitstatus))
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            if wanted and code:
                session.exitstatus = code
            elif run.may_be_on:
                session.exitstatus = EXIT_INFRASTRUCTURE

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note what breaks the run off."""
        told = SIGNALS.reason or ("Ctrl-C" if excinfo.type is KeyboardInterrupt else str(excinfo.value))
        self._interrupted = f"interrupted ({told})"

    def _broken_off(self, session: pytest.Session, exitstatus: int) -> str:
        """Return what ended the run before its end, empty where nothing did."""
        if exitstatus != pytest.ExitCode.INTERRUPTED or self._interrupted:
            return self._interrupted
        return f"interrupted ({session.shouldstop or 'the run was stopped'})"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of this machine where to keep sessions until we have them."""
        from pytest_otel_diag.plugin import xdist as spool

        if self._spool is None:
            self._spool = spool.Spool()
        if node.gateway.spec.popen:
            node.workerinput[spool.INPUT] = str(self._spool.folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        """Let signals end the run in order once a worker has tests of ours."""
        if self._spool is not None and self._spool.workers():
            SIGNALS.install()

    @pytest.hookimpl(specname="pytest_sessionfinish", tryfirst=True)
    def pytest_otel_diag_let_workers_end(self, exitstatus: int) -> None:
        """Wait until interrupted workers have undone their faults: pytest-xdist kills them after 10 s."""
        if self._spool is not None and exitstatus == pytest.ExitCode.INTERRUPTED:
            from pytest_otel_diag.plugin.loop_thread import CLEANUP_TIMEOUT_S

            # Ctrl-C in a terminal reaches workers too, but not one that is sent to us alone.
            grace_s = 0.0 if SIGNALS.signum else _CTRL_C_S
            with suppress(KeyboardInterrupt):  # somebody is in a hurry
                self._spool.end(timeout_s=CLEANUP_TIMEOUT_S, grace_s=grace_s)

    def _rescue(self, test_id: str | None = None) -> bool:
        """Take sessions over that no report brought, of one test or of all; say whether there were any."""
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
            told = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
            reasons = [found[0] for text in told if (found := _ELSEWHERE.search(text))]
            if reasons:
                terminalreporter.section("otel-diag")
            for reason in dict.fromkeys(reasons):
                terminalreporter.write_line(f"nothing was diagnosed: {reasons.count(reason)} tests: {reason}")
        else:
            terminalreporter.section("otel-diag")
            encoding = getattr(terminalreporter._tw._file, "encoding", None) or "utf-8"
            for line in self._run.summary(terminalreporter._tw.fullwidth):
                terminalreporter.write_line(legible(line, encoding))
            if self._run.alarms:
                terminalreporter.section("otel-diag: faults that are on", red=True, bold=True)
                for line in self._run.alarms:
                    terminalreporter.write_line(legible(line, encoding), red=True, bold=True)

    def run(self, target: dict[str, str]) -> Run:
        """Return the run, begun with its first session."""
        if self._run is None:
            from pytest_otel_diag.plugin.runtime import settings_of
            from pytest_otel_diag.runs.directory import RunUnreadable
            from pytest_otel_diag.runs.run import Run

            settings = settings_of(self._config)
            try:
                self._run = Run(
                    settings, self._config.rootpath, target, time.time_ns, started_ns=self._started_ns
                )
            except RunUnreadable as error:
                raise pytest.UsageError(f"otel-diag: {error}") from None
        return self._run

    def _lost(self, report: pytest.TestReport) -> None:
        """Keep the session that died with its worker as an error: nobody else can tell of it."""
        from pytest_otel_diag.plugin.runtime import settings_of
        from pytest_otel_diag.runs.run import lost_session

        ours = self._run is not None or self._asked_for() or self._gate_wanted()
        if not self._rescue(report.nodeid) and ours and report.nodeid not in self._open:
            self.run({})
            reason = f"the worker process died in this test: {report.longreprtext.strip()}"
            self._open.setdefault(report.nodeid, []).append(
                lost_session(settings_of(self._config), report.nodeid, reason)
            )
        self._write(report.nodeid)

    def _write(self, test_id: str) -> None:
        ended = self._open.pop(test_id, ())
        if not ended:
            return
        from pytest_otel_diag.plugin.terminal import listeners

        told = listeners.of(self._config)
        for session in ended:
            self.run({}).add(session)
            for listener in told:
                listener.ended(session)

    def _gate_wanted(self) -> bool:
        if self._config.option.collectonly:
            return False
        return bool(options_of(self._config, (GATE,))["gate"].value)
