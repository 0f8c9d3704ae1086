"""Shows progress on the terminal, around pytest's own output: sessions in flight and those that ended.

What is shown comes from the run's file of events, which every process of the run appends to.

There are two ways of writing. While no test runs in this process, capture is off and only the main thread
writes: lines of ended sessions go through the terminal reporter. While the main thread waits (for a session,
or for the workers of pytest-xdist), a thread writes the sessions in flight to a duplicate of the terminal's
file descriptor, past pytest's capture. A region that it drew in place is wiped before the wait ends, and the
cursor returns to where pytest left it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Literal

import pytest

from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.config.terminal import can_redraw
from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import OtelDiagError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.session import Phase
from pytest_otel_diag.plugin.carried import RETRIED
from pytest_otel_diag.plugin.settings import is_worker, options_of, place_of
from pytest_otel_diag.plugin.terminal.line import Line
from pytest_otel_diag.plugin.terminal.progress import age_s, colour, ended_text, flight_text, tally_text
from pytest_otel_diag.runs.tracker import Follower, SessionState, SessionTally, Tracker
from pytest_otel_diag.scoring.text import clip, count

_LOG = logging.getLogger(__name__)

PLUGIN = "otel-diag-progress"
PROGRESS = next(option for option in OPTIONS if option.name == "progress")

TICK_S = 0.25
DRAWN_FROM_S = 0.4
"""Sessions younger than this are not drawn: they would only flicker."""

LONG_S = 10.0
"""From this real age on, a session gets plain lines while it runs."""

QUIET_S = 30.0
"""A long session without news gets a plain line this often, in real time."""

INDENT = "  "

ROWS = 8
"""Sessions in flight that are drawn at most."""

Mode = Literal["live", "plain", "off"]


def register(config: pytest.Config) -> None:
    """Show the progress of the run on the terminal of this process, once; call this while capture is off."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    place = place_of(config)
    if config.option.collectonly or is_worker(config) or reporter is None or place is None:
        return
    if config.pluginmanager.has_plugin(PLUGIN):
        return
    line = Line(reporter)
    mode = chosen_mode(config, line)
    if mode == "off":
        line.close()
        return
    kind = ControllerScreen if config.pluginmanager.has_plugin("dsession") else Screen
    screen = kind(line, mode, Follower(place.directory))
    config.pluginmanager.register(screen, PLUGIN)
    screen.start()


def chosen_mode(config: pytest.Config, line: Line) -> Mode:
    """Return the mode of the option; ``auto`` redraws only where nothing else writes to the terminal."""
    asked: str = options_of(config, (PROGRESS,))[PROGRESS.name].value
    verbosity = config.option.verbose
    if asked == "off" or (asked == "auto" and verbosity < -1):
        return "off"
    if asked == "plain" or not line.interactive:
        return "plain"
    if asked == "live":
        return "live"
    shared = config.option.capture in ("no", "tee-sys") or bool(config.getini("log_cli"))
    return "live" if can_redraw() and verbosity >= 0 and not shared else "plain"


class Screen:
    """A plugin that shows the sessions of a run; a thread calls :meth:`tick` while a test runs."""

    def __init__(
        self, line: Line, mode: Mode, follower: Follower, now_ns: Callable[[], Nanos] = time.time_ns
    ) -> None:
        self._line = line
        self._mode = mode
        self._follower = follower
        self._now_ns = now_ns
        self._tally = SessionTally()
        self._pending: list[SessionState] = []
        self._over: set[str] = set()
        self._unmet: dict[str, str] = {}
        self._reported = 0
        self._unreadable = False
        self._lock = threading.Lock()
        self._open = False
        self._drawn = 0
        self._shown: dict[str, tuple[tuple[Phase, str], float]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to show sessions; here they are shown while a phase of a test runs."""

    def report_ended(self, *, all_: bool = False) -> None:
        """Write a line for each ended session whose test is over, or for *all_*; main thread, between phases.

        Other workers' sessions end before their tests do, and a test may fail after its session was right.
        """
        ended = self._tracker().ended(self._reported)
        self._reported += len(ended)
        self._pending += ended
        ready = [state for state in self._pending if all_ or state.started.test_id in self._over]
        self._pending = [state for state in self._pending if state not in ready]
        for state in ready:
            self._tally.add(state)
            unmet = self._unmet.get(state.started.test_id, "")
            text = f"{INDENT}{ended_text(state, unmet)} [{tally_text(self._tally)}]"
            self._line.say(text, **{colour(state, unmet): True})
        for test_id in self._over:
            self._unmet.pop(test_id, None)
        self._over.clear()

    def tick(self) -> None:
        """Show the sessions in flight, if the main thread waits."""
        with self._lock:
            if not self._open:
                return
            now_ns = self._now_ns()
            flights = self._tracker().flights()
            if self._mode == "live":
                self._draw([flight for flight in flights if age_s(flight, now_ns) >= DRAWN_FROM_S], now_ns)
            else:
                self._log(flights, now_ns)

    def _tracker(self) -> Tracker:
        """Return the state of the run; one that cannot be read is logged once and shows nothing new."""
        try:
            return self._follower.refresh()
        except OtelDiagError as error:
            if not self._unreadable:
                _LOG.warning("progress stops: %s", error)
            self._unreadable = True
            return Tracker()

    def _draw(self, flights: list[SessionState], now_ns: Nanos) -> None:
        columns, rows = self._line.size()
        shown = max(1, min(ROWS, rows - 2))
        lines = [flight_text(flight, now_ns) for flight in flights[:shown]]
        if len(flights) > shown:
            lines[-1] = f"and {count(len(flights) - shown + 1, 'more session')}"
        room = columns - 1 - len(INDENT)
        text = self._wiping(columns) + "".join(f"\r\n\x1b[K{INDENT}{clip(line, room)}" for line in lines)
        self._drawn = len(lines)
        self._line.raw(text)

    def _wiping(self, columns: int) -> str:
        """Return what wipes the region and puts the cursor back to where pytest left it."""
        if not self._drawn:
            return ""
        column = min(self._line.column, columns - 1)
        return f"\x1b[{self._drawn}A\x1b[{column + 1}G\x1b[J"

    def _log(self, flights: tuple[SessionState, ...], now_ns: Nanos) -> None:
        """Write a line for each long session that has news, and for one without every QUIET_S seconds."""
        for flight in flights:
            key, age = flight.started.session_id, age_s(flight, now_ns)
            state = (flight.phase, flight.waiting)
            before, shown_s = self._shown.get(key, (None, 0.0))
            if age >= LONG_S and (before != state or age - shown_s >= QUIET_S):
                self._shown[key] = (state, age)
                self._line.interrupt(f"{INDENT}{flight_text(flight, now_ns)}")

    def _enter(self) -> None:
        with self._lock:
            self._open = True
        if self._thread is None:
            self._thread = start_thread(self._run, "otel-diag-progress")

    def _leave(self) -> None:
        with self._lock:
            self._open = False
            if self._drawn:
                self._line.raw(self._wiping(self._line.size()[0]))
                self._drawn = 0

    def _run(self) -> None:
        while not self._stop.wait(TICK_S):
            self.tick()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """Show sessions in flight during the phase."""
        return (yield from self._waiting())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        """Show sessions in flight during the phase."""
        return (yield from self._waiting())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        """Show sessions in flight during the phase."""
        return (yield from self._waiting())

    def _waiting(self) -> Generator[None, Any, Any]:
        self._enter()
        try:
            return (yield)
        finally:
            self._leave()

    def pytest_enter_pdb(self) -> None:
        """Leave the terminal to the debugger."""
        self._leave()

    def pytest_leave_pdb(self) -> None:
        """Use the terminal again."""
        self._enter()

    @pytest.hookimpl(specname="pytest_runtest_logreport", tryfirst=True)
    def pytest_otel_diag_resume_line(self, report: pytest.TestReport) -> None:
        """Let pytest write its letter on a new line after ours."""
        if report.when == "call" or not report.passed:
            self._line.resume(report.nodeid)

    @pytest.hookimpl(trylast=True)  # after the letter of the test
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Report sessions that ended, once their test is over."""
        for line in getattr(report, "otel_diag_unmet", ()):
            self._unmet[report.nodeid] = line
        if report.when not in ("setup", "call") or report.outcome == RETRIED:
            self._over.add(report.nodeid)
            self.report_ended()

    def pytest_runtest_logfinish(self) -> None:
        """Let the next test begin a line."""
        self._line.begin()

    @pytest.hookimpl(trylast=True)  # after the collector, which knows of sessions that no report brought
    def pytest_sessionfinish(self) -> None:
        """Report the sessions of tests that were interrupted."""
        self.report_ended(all_=True)

    def pytest_unconfigure(self) -> None:
        """Stop the thread and close the duplicate of the terminal's descriptor."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._line.close()


class ControllerScreen(Screen):
    """Shows the sessions of pytest-xdist's workers: all the time, except while pytest itself writes."""

    def start(self) -> None:
        """Begin to show sessions; the controller waits for its workers already."""
        self._enter()

    @pytest.hookimpl(specname="pytest_sessionfinish", tryfirst=True)
    def pytest_otel_diag_stop(self) -> None:
        """Show no more sessions in flight: pytest writes its summary next."""
        self._leave()

    def _writing(self) -> Generator[None, Any, Any]:
        """Leave the terminal to pytest during a hook."""
        was_open = self._open
        self._leave()
        try:
            return (yield)
        finally:
            if was_open:
                self._enter()

    @pytest.hookimpl(specname="pytest_runtest_logstart", wrapper=True, tryfirst=True)
    def pytest_otel_diag_logstart(self) -> Generator[None, Any, Any]:
        """Wipe the region while pytest names the test."""
        return (yield from self._writing())

    @pytest.hookimpl(specname="pytest_runtest_logreport", wrapper=True, tryfirst=True)
    def pytest_otel_diag_logreport(self) -> Generator[None, Any, Any]:
        """Wipe the region while pytest writes a result."""
        return (yield from self._writing())

    @pytest.hookimpl(specname="pytest_runtest_logfinish", wrapper=True, tryfirst=True)
    def pytest_otel_diag_logfinish(self) -> Generator[None, Any, Any]:
        """Wipe the region while pytest writes the percentage."""
        return (yield from self._writing())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_internalerror(self) -> Generator[None, Any, Any]:
        """Wipe the region while pytest reports an internal error."""
        return (yield from self._writing())

    @pytest.hookimpl(wrapper=True, tryfirst=True, optionalhook=True)
    def pytest_testnodedown(self) -> Generator[None, Any, Any]:
        """Wipe the region while pytest-xdist reports a worker that is gone."""
        return (yield from self._writing())

    @pytest.hookimpl(wrapper=True, tryfirst=True, optionalhook=True)
    def pytest_testnodeready(self) -> Generator[None, Any, Any]:
        """Wipe the region while pytest-xdist reports a worker that is ready."""
        return (yield from self._writing())
