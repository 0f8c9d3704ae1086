"""Progress while sessions run: as text, on a terminal, and without one."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.model.events import (
    ImpactMeasured,
    PhaseStarted,
    SessionEvent,
    SessionStarted,
    SessionWaiting,
    TargetOpened,
)
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import (
    Blame,
    Impact,
    ImpactReason,
    Phase,
    PhaseRecord,
    SessionResult,
    Status,
)
from pytest_otel_diag.plugin.terminal.progress import (
    colour,
    ended_text,
    flight_text,
    label,
    span,
    tally_text,
)
from pytest_otel_diag.plugin.terminal.screen import Line, Screen, chosen_mode
from pytest_otel_diag.runs.events import EventWriter
from pytest_otel_diag.runs.tracker import Follower, SessionState, SessionTally, state_of
from tests.support import terminal
from tests.support.ended import ALARM, CALM, CONTROL, FAULT, MISSED, RIGHT, WRONG, result
from tests.support.plugins import NO_HYPOTHESIS
from tests.support.terminal import frames

SECOND_NS = 1_000_000_000
NOW_NS = 1000 * SECOND_NS


def phase(phase: Phase, start_s: float, end_s: float) -> PhaseRecord:
    start_ns, end_ns = round(start_s * SECOND_NS), round(end_s * SECOND_NS)
    return PhaseRecord(phase=phase, start_ns=start_ns, end_ns=end_ns, wall_s=0.1, outcome="ok")


def started(scenario: Scenario = FAULT, session_id: str = "one", repeat: int = 0) -> SessionStarted:
    return SessionStarted(
        session_id=session_id,
        at_ns=NOW_NS,
        wall_ns=NOW_NS,
        scenario_id=scenario.id,
        faults=tuple(map(str, scenario.faults)),
        control=scenario.control,
        target="t",
        analyzer="a",
        repeat=repeat,
    )


def flight(*events: tuple[type[SessionEvent], dict], first: SessionStarted | None = None) -> SessionState:
    """The state after events, each given as its type and fields."""
    state = SessionState(first or started())
    for kind, fields in events:
        state = state.after(kind(**{"session_id": "one", "at_ns": NOW_NS, "wall_ns": NOW_NS, **fields}))
    return state


def after(seconds: float) -> int:
    return NOW_NS + round(seconds * SECOND_NS)


def test_a_waiting_session_names_what_it_waits_for() -> None:
    waits = (SessionWaiting, {"reason": "the live system is held by alice@host"})
    line = "pay: waiting: the live system is held by alice@host, 12.0 s"
    assert flight_text(flight(waits), after(12)) == line
    assert flight_text(flight(waits, (SessionWaiting, {"reason": ""})), after(12)) == "pay: preflight, 12.0 s"


def test_too_few_calls_so_far_show_when_there_will_be_enough() -> None:
    few = Impact(reason=ImpactReason.TOO_RARE, service="pay", calls_seen=3, calls_needed=12, eta_s=42.0)
    state = flight((PhaseStarted, {"phase": Phase.IMPACT}), (ImpactMeasured, {"impact": few}))
    assert flight_text(state, NOW_NS).endswith("TOO_RARE pay, 3 of 12 calls, 42.0 s more")


def test_a_session_in_virtual_time_shows_both_clocks() -> None:
    first = started(repeat=2)
    assert flight_text(flight(first=first), NOW_NS) == "pay (repeat 2): preflight, 0.0 s"
    seen = Impact(
        reason=ImpactReason.TOO_RARE, service="payment", signal="errors", calls_seen=3, calls_needed=12
    )
    state = flight(
        (TargetOpened, {"virtual": True, "at_ns": 50 * SECOND_NS}),
        (PhaseStarted, {"phase": Phase.IMPACT, "at_ns": 150 * SECOND_NS}),
        (ImpactMeasured, {"impact": seen, "at_ns": 170 * SECOND_NS}),
        first=first,
    )
    line = "pay (repeat 2): impact, 2:00 virtual in 1.5 s, TOO_RARE payment errors, 3 of 12 calls"
    assert flight_text(state, after(1.5)) == line


def test_a_target_on_the_wall_clock_has_one_time() -> None:
    state = flight(
        (PhaseStarted, {"phase": Phase.BASELINE}), (TargetOpened, {"virtual": False}), first=started(CONTROL)
    )
    assert flight_text(state, after(90)) == "quiet: baseline, 1:30"


@pytest.mark.parametrize(
    ("session", "line", "shade"),
    [
        (result(verdict=RIGHT), "pay: detected, root cause ranked 1 (2.8 s)", "green"),
        (result(verdict=WRONG), "pay: detected, root cause ranked 3 (2.8 s)", "red"),
        (result(verdict=MISSED), "pay: not detected, root cause not named (2.8 s)", "red"),
        (result(CONTROL, CALM), "quiet: no alarm (2.8 s)", "green"),
        (result(CONTROL, ALARM), "quiet: false alarm (2.8 s)", "red"),
        (
            result(verdict=RIGHT, phases=(phase(Phase.BASELINE, 0, 2.5),)),
            "pay: detected, root cause ranked 1 (2.8 s)",
            "green",
        ),
        (result(reason="it\nbroke"), "pay: error: it broke (2.8 s)", "yellow"),
        (
            result(reason="judge: no", blame=Blame.ANALYZER),
            "pay: error (analyzer): judge: no (2.8 s)",
            "yellow",
        ),
        (
            result(
                verdict=RIGHT,
                impact=Impact(reason=ImpactReason.VISIBLE, time_to_impact_s=12),
                phases=(phase(Phase.BASELINE, 0, 120), phase(Phase.IMPACT, 120, 245)),
            ),
            "pay: detected, root cause ranked 1, visible after 12.0 s (4:05 virtual in 2.8 s)",
            "green",
        ),
    ],
)
def test_an_ended_session_is_one_line(session: SessionResult, line: str, shade: str) -> None:
    assert ended_text(state_of(session)) == line
    assert colour(state_of(session)) == shade


def test_a_very_long_reason_is_cut() -> None:
    assert len(ended_text(state_of(result(reason="so long a reason " * 500)))) < 200


def test_a_scenario_named_after_its_test_is_labelled_by_its_faults() -> None:
    assert label("tests/test_a.py::test_one", FAULT.faults) == "paymentFailure=50%"
    assert label("tests/test_a.py::test_one[x]", ()) == "test_one[x]"


def test_the_tally_counts_rates_and_what_has_no_score() -> None:
    tally = SessionTally()
    assert tally_text(tally) == "0 scored"
    ungated = FAULT.model_copy(update={"ungated": "nobody can see it"})
    for session in (
        result(verdict=RIGHT),
        result(verdict=MISSED),
        result(ungated, MISSED),
        result(CONTROL, ALARM),
        result(),
        result(),
        result(status=Status.INVALID),
    ):
        tally.add(state_of(session))
    assert tally_text(tally) == "4 scored: 1/2 detected, 1/1 alarms; 1 invalid; 2 errors"


@given(st.floats(min_value=0, max_value=1e6))
def test_a_duration_reads_back_within_its_precision(seconds: float) -> None:
    text = span(seconds)
    if text.endswith(" s"):
        assert abs(float(text[:-2]) - seconds) <= 0.0500001
        assert seconds < 60
    else:
        parts = [int(part) for part in text.split(":")]
        assert all(part < 60 for part in parts[1:])
        assert abs(sum(part * 60**power for power, part in enumerate(reversed(parts))) - seconds) <= 0.5


@pytest.fixture
def tty() -> Iterator[object]:
    """A file that is a terminal."""
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", closefd=True) as file:
        yield file
    os.close(leader)


@pytest.mark.parametrize(
    ("arguments", "environment", "mode"),
    [
        ([], {}, "live"),
        (["-v"], {}, "live"),
        (["-s"], {}, "plain"),
        (["--capture=tee-sys"], {}, "plain"),
        (["-o", "log_cli=true"], {}, "plain"),
        (["-q"], {}, "plain"),
        (["-qq"], {}, "off"),
        ([], {"CI": "true"}, "plain"),
        ([], {"TERM": "dumb"}, "plain"),
        (["--otel-diag-progress=live", "-s"], {"CI": "true"}, "live"),
        (["--otel-diag-progress=plain"], {}, "plain"),
        (["--otel-diag-progress=plain", "-qq"], {}, "plain"),
        (["--otel-diag-progress=off"], {}, "off"),
    ],
)
def test_the_terminal_is_redrawn_only_if_nothing_else_writes(
    pytester, monkeypatch, tty, arguments, environment, mode
) -> None:
    monkeypatch.delenv("CI", raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    config = pytester.parseconfigure("-p", "no:asyncio", *arguments)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reporter._tw._file = tty
    line = Line(reporter)
    assert chosen_mode(config, line) == mode
    line.close()


def drawn(leader: int) -> str:
    """Return what was written to the terminal since the last call."""
    ready, _, _ = select.select([leader], [], [], 0)
    return os.read(leader, 1 << 16).decode() if ready else ""


def test_many_sessions_fit_and_a_debugger_gets_the_terminal(pytester, tmp_path) -> None:
    config = pytester.parseconfigure("-p", "no:asyncio")
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 50, 0, 0))
    now = {"ns": NOW_NS}
    events = EventWriter(tmp_path)
    for number in range(12):
        events.emit(started(CONTROL, str(number), number))
        events.emit(PhaseStarted(session_id=str(number), at_ns=NOW_NS, wall_ns=NOW_NS, phase=Phase.BASELINE))
    with os.fdopen(follower, "w") as file:
        reporter._tw._file = file
        screen = Screen(Line(reporter), "live", Follower(tmp_path), lambda: now["ns"])
        screen.tick()
        assert drawn(leader) == "", "no phase of a test is open"
        screen.pytest_leave_pdb()
        now["ns"] = after(5)
        screen.tick()
        shown = frames([drawn(leader)], 50)[-1].splitlines()
        assert shown[1] == "  quiet: baseline, 5.0 s"
        assert shown[-1] == "  and 5 more sessions"
        assert len(shown) == 1 + 8
        screen.pytest_enter_pdb()
        assert drawn(leader).startswith("\x1b[8A")
        screen.tick()
        assert drawn(leader) == ""
        screen.pytest_unconfigure()
        screen.tick()
    events.close()
    os.close(leader)


def test_a_long_session_gets_a_plain_line_for_news_and_now_and_then(pytester, tmp_path) -> None:
    config = pytester.parseconfigure("-p", "no:asyncio")
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    leader, follower = pty.openpty()
    now = {"ns": NOW_NS}
    events = EventWriter(tmp_path)
    events.emit(started(CONTROL))
    with os.fdopen(follower, "w") as file:
        reporter._tw._file = file
        screen = Screen(Line(reporter), "plain", Follower(tmp_path), lambda: now["ns"])
        screen._open = True

        def lines_at(seconds: float) -> str:
            now["ns"] = after(seconds)
            screen.tick()
            return drawn(leader).replace("\r", "")

        assert lines_at(9.9) == "", "no long session yet"
        assert lines_at(10.5).strip() == "quiet: preflight, 10.5 s"
        assert lines_at(39) == "", "nothing new"
        assert lines_at(41).strip() == "quiet: preflight, 41.0 s"
        events.emit(PhaseStarted(session_id="one", at_ns=NOW_NS, wall_ns=NOW_NS, phase=Phase.BASELINE))
        assert lines_at(42).strip() == "quiet: baseline, 42.0 s"
        screen.pytest_unconfigure()
    events.close()
    os.close(leader)


def test_a_file_gets_plain_lines_even_if_live_progress_is_asked_for(pytester, tmp_path) -> None:
    config = pytester.parseconfigure("-p", "no:asyncio", "--otel-diag-progress=live")
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    with (tmp_path / "log").open("w") as file:
        reporter._tw._file = file
        line = Line(reporter)
        assert chosen_mode(config, line) == "plain"
        assert line.size() == (reporter._tw.fullwidth, 24)
        line.close()


SUITE = """
    import pytest

    def test_before(): pass

    @pytest.mark.otel_flag("incident-back")
    async def test_two(diagnose):
        print("said by the test")
        both = diagnose(["incident-back"]), diagnose(["incident-middle"])
        for one in both:
            (await one).assert_expected()

    def test_after(): pass
"""
NO_DELAYS = """
    from pathlib import Path

    from pytest_otel_diag.plugin.terminal import screen

    screen.DRAWN_FROM_S = 0.0
    screen.TICK_S = 0.05
    screen.LONG_S = 0.2
    screen.QUIET_S = 3600.0
    tick = screen.Screen.tick

    def counted(self):
        tick(self)
        with Path("ticks").open("a") as file:
            file.write(".")

    screen.Screen.tick = counted
"""
SLOW = """
import asyncio
import os
import threading
from pathlib import Path
from my_analyzers import slower

def drawing():
    # the controller of workers draws in a process of its own
    names = {thread.name for thread in threading.enumerate()}
    return "otel-diag-progress" in names or "PYTEST_XDIST_WORKER" in os.environ

def ticks():
    file = Path("ticks")
    return file.stat().st_size if file.exists() else 0

async def diagnose(investigation):
    enough = ticks() + 14
    while drawing() and ticks() < enough:
        await asyncio.sleep(0.02)
    return await slower(investigation)
"""


@pytest.fixture
def suite(pytester, diag) -> None:
    """A suite of quick tests around one with two sessions that take a while."""
    pytester.makepyfile(SUITE, slow_analyzer=SLOW)
    pytester.makeconftest(NO_DELAYS)


def on_a_terminal(pytester, recording, cache, *arguments: str, **more) -> tuple[str, list[str]]:
    command = [sys.executable, "-m", "pytest", f"--otel-diag-target=replay:{recording}", *arguments]
    options = [f"--otel-diag-cache={cache}", "--otel-diag-analyzer=slow_analyzer:diagnose"]
    return terminal.run([*command, *options, "-p", "no:cacheprovider", *NO_HYPOTHESIS], pytester.path, **more)


def test_a_terminal_shows_what_runs_in_place_and_keeps_what_ended(suite, pytester, recording, cache) -> None:
    raw, frames = on_a_terminal(pytester, recording, cache, columns=90)
    tails = [frame.rstrip().splitlines()[-3:] for frame in frames if frame.strip()]
    drawn = [tail for tail in tails if any("incident-back: investigate," in line for line in tail)]
    assert any(
        tail[0].endswith("test_a_terminal_shows_what_runs_in_place_and_keeps_what_ended.py .")
        for tail in drawn
    )
    assert any("incident-middle: " in line for tail in drawn for line in tail), "both at once"
    final = frames[-1]
    assert "investigate" not in final and "baseline" not in final, "nothing drawn is left behind"
    assert final.count("detected, root cause ranked 1") == 2
    assert "[2 scored: 2/2 detected]" in final.replace("\n", "")
    assert ".py .. " in final and ".py . " in final, "letters of pytest stay on its own lines"
    assert "said by the test" not in final
    assert "\x1b[32m" in raw


def test_the_controller_of_workers_shows_their_sessions(suite, pytester, recording, cache) -> None:
    _, frames = on_a_terminal(pytester, recording, cache, "-n", "2", columns=90)
    tails = [frame.rstrip().splitlines()[-3:] for frame in frames if frame.strip()]
    drawn = [line for tail in tails for line in tail if ": investigate, " in line]
    assert any("incident-back: " in line for line in drawn)
    assert any("incident-middle: " in line for line in drawn)
    final = frames[-1]
    assert "investigate" not in final and "baseline" not in final, "nothing drawn is left behind"
    assert final.count("detected, root cause ranked 1") == 2
    assert "[2 scored: 2/2 detected]" in final.replace("\n", "")


def test_colours_can_be_switched_off_and_long_test_names_stay_whole(
    suite, pytester, recording, cache
) -> None:
    raw, frames = on_a_terminal(pytester, recording, cache, "-v", columns=200, environment={"NO_COLOR": "1"})
    assert "\x1b[3" not in raw
    lines = frames[-1].splitlines()
    assert sum("PASSED" in line and "test_" in line for line in lines) == 3
    assert sum(line.startswith("  incident-") for line in lines) == 2


def test_a_log_gets_bounded_lines_and_no_codes(suite, pytester, diag) -> None:
    out = diag(analyzer="slow_analyzer:diagnose", own=True).stdout.str()
    assert "\x1b" not in out
    lines = out.splitlines()
    ended = [line for line in lines if line.startswith("  incident-") and "ranked 1" in line]
    running = [line for line in lines if line.startswith("  incident-") and "investigate, " in line]
    assert len(ended) == 2
    assert 2 <= len(running) <= 12, "at each change of phase, and as often as QUIET_S says"
    assert ".py .\n" in out, "a letter stands on a line of its file"


def test_quiet_runs_and_runs_without_progress(suite, pytester, diag) -> None:
    quiet = diag("-q").stdout.str()
    assert quiet.count("detected, root cause ranked 1") == 2
    lines = [line.split() for line in quiet.splitlines()]
    assert [line[0] for line in lines if line and set(line[0]) == {"."}] == [".", ".", "."]
    for none in (["-qq"], ["-p", "no:terminal"]):
        out = diag(*none, "-k", "two")
        assert out.ret == 0
        assert "detected, root cause" not in out.stdout.str()
