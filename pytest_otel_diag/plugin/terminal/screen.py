"""Progress on the terminal, around pytest's own: a line for each ended session, and what still runs.

Two ways of writing. Between the phases of a test capture is off and the main thread alone writes: lines of
ended sessions go through the terminal reporter. While a phase runs the main thread waits for a session, and
captured output goes nowhere near the terminal: what still runs is written from a thread of ours to a
duplicate of the terminal's file descriptor, made while capture was off. A region drawn in place is wiped
before the phase ends, and the cursor is put back to where pytest left it.

Sessions in the workers of pytest-xdist are shown when they end; what they are doing is not sent, since
pytest-xdist has no message for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Literal

import pytest

from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.config.terminal import can_redraw
from pytest_otel_diag.model.session import Phase, SessionResult
from pytest_otel_diag.plugin.settings import options_of
from pytest_otel_diag.plugin.stash import EMIT
from pytest_otel_diag.plugin.terminal.progress import Flight, Tally, Tracker, colour, ended_text, flight_text
from pytest_otel_diag.scoring.text import clip, count

PLUGIN = "otel-diag-progress"
PROGRESS = next(option for option in OPTIONS if option.name == "progress")

TICK_S = 0.25
PATIENCE_S = 0.4
"""Sessions younger than this are not drawn: they would only flicker."""

LONG_S = 10.0
"""From this real age on, a session gets plain lines while it runs."""

QUIET_S = 30.0
"""A long session without news gets a plain line this often, in real time."""

INDENT = "  "

ROWS = 8
"""Sessions in flight that are drawn at most."""

Mode = Literal["live", "plain", "off"]


def screen_of(config: pytest.Config) -> Screen | None:
    """Return the screen of this process, None where nothing is shown. First called while capture is off."""
    found: Screen | None = config.pluginmanager.get_plugin(PLUGIN)
    if found is not None or config.option.collectonly or hasattr(config, "workerinput"):
        return found
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return None
    line = Line(reporter)
    mode = chosen_mode(config, line)
    if mode == "off":
        line.close()
        return None
    tracker = Tracker()
    config.stash[EMIT] = tracker.see
    screen = Screen(line, mode, tracker)
    config.pluginmanager.register(screen, PLUGIN)
    return screen


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


class Line:
    """The terminal that pytest's reporter writes to, with the line that the reporter is on."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._descriptor: int | None = None
        with suppress(OSError, ValueError, AttributeError):  # no file behind it: nothing written in phases
            self._descriptor = os.dup(reporter._tw._file.fileno())
        self._interrupted = False

    @property
    def interactive(self) -> bool:
        """Whether somebody watches a terminal."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        with suppress(OSError, TypeError):
            size = os.get_terminal_size(self._descriptor)  # type: ignore[arg-type]  # None is a TypeError
            if size.columns and size.lines:
                return size.columns, size.lines
        return self._reporter._tw.fullwidth, 24

    @property
    def column(self) -> int:
        """Where pytest left the cursor, from 0."""
        return self._reporter._tw.width_of_current_line

    def raw(self, text: str) -> None:
        """Write while a phase runs, past capture; a terminal that is gone is not our trouble."""
        if self._descriptor is None:
            return
        encoding = getattr(self._reporter._tw._file, "encoding", None) or "utf-8"
        data = text.encode(encoding, "replace")
        with suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def interrupt(self, text: str) -> None:
        """Write a whole line while a phase runs; pytest then begins a new one."""
        self._reporter.flush()
        self.raw(f"\n{text}" if self.column or self._interrupted else text)
        self._interrupted = True

    def resume(self, nodeid: str) -> None:
        """Let pytest write a letter after lines of ours: on a new line, that names the test's file again."""
        if self._interrupted:
            self.begin()
            if self._reporter.showfspath and not self._reporter.showlongtestinfo:
                self._reporter.write_fspath_result(nodeid, "")

    def begin(self) -> None:
        """Let what pytest writes next begin a line, if lines of ours came between."""
        if not self._interrupted:
            return
        self._leave_line()

    def say(self, text: str, **markup: bool) -> None:
        """Write a whole line between phases."""
        tw = self._reporter._tw
        if self._interrupted or self.column:
            self._percentage()
            tw.line()
        tw.write(text, **markup)
        self._leave_line()
        self._reporter.flush()

    def _leave_line(self) -> None:
        """Let pytest begin a line: it does so by itself where it writes names of tests or of files."""
        reporter = self._reporter
        self._interrupted = False
        reporter.currentfspath = -2 if reporter.showlongtestinfo else None  # what it is after a test's word
        if not reporter.showlongtestinfo and not reporter.showfspath:
            reporter._tw.line()

    def _percentage(self) -> None:
        """End a line of letters as pytest ends it; the last one it ends itself."""
        reporter = self._reporter
        fill = getattr(reporter, "_write_progress_information_filling_space", None)
        shown = getattr(reporter, "_show_progress_info", False) and not getattr(
            reporter, "_is_last_item", True
        )
        ours = self._interrupted or (reporter.showfspath and reporter.currentfspath is None)
        if fill is not None and shown and not ours and not reporter.showlongtestinfo:
            fill()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Screen:
    """A plugin that shows the tracker's sessions. ``tick`` is called by a thread of its own."""

    def __init__(self, line: Line, mode: Mode, tracker: Tracker) -> None:
        self._line = line
        self._mode = mode
        self._tracker = tracker
        self._tally = Tally()
        self._lock = threading.Lock()
        self._open = False
        self._drawn = 0
        self._told: dict[str, tuple[tuple[Phase, str], float]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def ended(self, result: SessionResult) -> None:
        """Say how a session ended, between phases."""
        self._tally.add(result)
        self._line.say(f"{INDENT}{ended_text(result)} [{self._tally.text()}]", **{colour(result): True})

    def tick(self) -> None:
        """Show what runs now, if a phase is open."""
        now_s = self._tracker.monotonic()
        with self._lock:
            if not self._open:
                return
            flights = self._tracker.flights()
            if self._mode == "live":
                self._draw(
                    [flight for flight in flights.values() if now_s - flight.began_s >= PATIENCE_S], now_s
                )
            else:
                self._tell(flights, now_s)

    def _draw(self, flights: list[Flight], now_s: float) -> None:
        columns, rows = self._line.size()
        shown = max(1, min(ROWS, rows - 2))
        lines = [flight_text(flight, now_s) for flight in flights[:shown]]
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

    def _tell(self, flights: dict[str, Flight], now_s: float) -> None:
        for session_id, flight in flights.items():
            state = (flight.phase, flight.waits)
            before, told_s = self._told.get(session_id, (None, flight.began_s))
            news = before != state or now_s - told_s >= QUIET_S
            if now_s - flight.began_s >= LONG_S and news:
                self._told[session_id] = (state, now_s)
                self._line.interrupt(f"{INDENT}{flight_text(flight, now_s)}")
        self._told = {key: told for key, told in self._told.items() if key in flights}

    def _enter(self) -> None:
        with self._lock:
            self._open = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="otel-diag-progress", daemon=True)
            self._thread.start()

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
        """Show what runs during the phase."""
        return (yield from self._phase())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        """Show what runs during the phase."""
        return (yield from self._phase())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        """Show what runs during the phase."""
        return (yield from self._phase())

    def _phase(self) -> Generator[None, Any, Any]:
        self._enter()
        try:
            return (yield)
        finally:
            self._leave()

    def pytest_enter_pdb(self) -> None:
        """Leave the terminal to the debugger."""
        self._leave()

    def pytest_leave_pdb(self) -> None:
        """Take it back."""
        self._enter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Let pytest write its letter where lines of ours interrupted it."""
        if report.when == "call" or not report.passed:
            self._line.resume(report.nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """Let the next test begin a line."""
        self._line.begin()

    def pytest_unconfigure(self) -> None:
        """Stop the thread and give the terminal back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._line.close()
