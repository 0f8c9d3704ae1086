"""However and wherever a session ends, the flags are restored byte for byte and served.

Real pytest processes, real flagds, real files. Each cell combines a way to end with a point of the session.
The simulated shop with its embedded store runs in the cells of one point, a system in memory in the others.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import flagd
from tests.support.deadlines import deadline_s
from tests.undo.cells import FLAG, VARIANT, Cell, cell, until

POINTS = ("before the write", "before the witness", "impact wait", "analysis", "restore")
WITH_STORE = "analysis"
RAISED = ("exception", "assertion", "timeout")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
BOTH = "SIGKILL, guardian too"
WAYS = (*RAISED, *SIGNALS, BOTH)
NAMES = {"SIGINT": "Ctrl-C"}

BACK_S = 30.0
"""How long a restore may take after the end of a session; on an idle machine it takes less than one."""

RAISING = f"""
import killed_target
import pytest

CASES = [(way, point) for way in {RAISED!r} for point in {POINTS!r}]


@pytest.mark.otel_flag({FLAG!r}, variant={VARIANT!r})
@pytest.mark.otel_timing(baseline_s=60, observe_s=30, impact_timeout_s=60, recover_timeout_s=0)
@pytest.mark.parametrize(("way", "point"), CASES)
def test_raised(planned, diagnosis):
    pass


@pytest.fixture
def planned(way, point):
    killed_target.PLAN.update(act=way, point=point)
    killed_target._passed.clear()
"""

WATCH = """
import json
import os
from pathlib import Path

PLAN = json.loads(os.environ["KILLED"])
ORIGINAL = Path(PLAN["document"]).read_bytes()


def pytest_runtest_logfinish(nodeid):
    import killed_target
    state = {
        "cell": f"{killed_target.PLAN['act']}/{killed_target.PLAN['point']}",
        "passed": list(killed_target._passed),
        "same": Path(PLAN["document"]).read_bytes() == ORIGINAL,
        "entries": len(list((Path(os.environ["OTEL_DIAG_STATE"]) / "journal").glob("*.json"))),
    }
    with (Path(PLAN["folder"]) / "cells.jsonl").open("a") as file:
        file.write(json.dumps(state) + "\\n")
"""


@dataclass(frozen=True)
class Ended:
    """One cell: whether the fault was on (or the point reached), is off, after how long, and by whom."""

    was_on: bool
    back: bool
    took_s: float | None
    by: str

    @property
    def shown(self) -> str:
        time = "" if self.took_s is None else f"{self.took_s:4.1f}s "
        return f"{'back' if self.back else 'FAULT ON'} {time}{self.by}"


def ended(folder: Path, way: str, point: str) -> Ended:
    """Run one session to the point, end it that way, and report the result."""
    with cell(folder) as place:
        process = place.start(point=point, target="killed:shop" if point == WITH_STORE else "killed")
        try:
            there = place.reached(process)
            was_on = place.document.read_bytes() != place.original
            if way == BOTH:
                return _both(place, process, there, was_on, POINTS.index(point))
            os.kill(process.pid, getattr(signal, "SIGKILL" if way == "SIGKILL" else way))
            begun = time.monotonic()
            if way != "SIGKILL":
                time.sleep(0.3)  # it arrives while the session is still at its point
                place.go_on()
            back = until(place.as_before, BACK_S)
            took_s = time.monotonic() - begun
            process.wait(deadline_s(BACK_S))
            differs = place.differs
            return Ended(was_on, back and not differs, took_s, f"{_who(place)} {differs}".strip())
        finally:
            process.kill()
            process.wait()


def _both(
    place: Cell, process: subprocess.Popen[bytes], there: dict[str, int], was_on: bool, turn: int
) -> Ended:
    os.kill(there["guardian"], signal.SIGKILL)
    process.kill()
    process.wait()
    left = bool(place.entries)
    place.again()
    begun = time.monotonic()
    if turn % 2:
        done = place.command("heal").returncode
        by = "heal"
    else:
        following = place.start("-k", "fault")
        following.wait(timeout=deadline_s(60))
        done, by = following.returncode, "the next run"
    return Ended(was_on, done == 0 and left and place.as_before(), time.monotonic() - begun, by)


def _who(place: Cell) -> str:
    log = place.state / "guardian.log"
    return "guardian" if log.exists() and "restored" in log.read_text() else "session"


def raised(folder: Path) -> dict[tuple[str, str], Ended]:
    """Run the cells that need no signal: one process, a session each."""
    with cell(folder) as place:
        (folder / "tests" / "test_one.py").write_text(RAISING)
        (folder / "tests" / "conftest.py").write_text(WATCH)
        # This limit makes the timeouts; a session that waits for nothing is well within it.
        process = place.start("--otel-diag-session-timeout-s=30")
        process.wait(timeout=deadline_s(280))
        lines = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
        served = place.served() == place.variants
        found = {
            tuple(line["cell"].split("/")): Ended(
                line["passed"] != [], line["same"] and not line["entries"] and served, None, "session"
            )
            for line in lines
        }
        assert len(found) == len(RAISED) * len(POINTS), place.output
        return found


def test_the_flags_are_back_in_every_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flagd.binary()
    cells: dict[tuple[str, str], Ended] = {}
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        together = pool.submit(raised, tmp_path / "raised")
        apart = {
            (way, point): pool.submit(ended, tmp_path / f"{number}-{turn}", way, point)
            for number, way in enumerate((*SIGNALS, BOTH))
            for turn, point in enumerate(POINTS)
        }
        cells.update(together.result())
        cells.update({key: job.result() for key, job in apart.items()})
    table = _table(cells)
    reports = Path("reports")
    reports.mkdir(exist_ok=True)
    (reports / "kill-matrix.txt").write_text(table)
    with capsys.disabled():
        print(f"\n{table}")
    assert not [key for key, one in cells.items() if not one.back], table
    # The cells would prove nothing if the fault had not been on.
    vacuous = [(way, point) for (way, point), one in cells.items() if not one.was_on and point != POINTS[0]]
    assert not vacuous, table


def _table(cells: dict[tuple[str, str], Ended]) -> str:
    width = max(len(one.shown) for one in cells.values()) + 2
    head = " " * 24 + "".join(f"{point:<{width}}" for point in POINTS)
    rows = [
        f"{NAMES.get(way, way):<24}" + "".join(f"{cells[way, point].shown:<{width}}" for point in POINTS)
        for way in WAYS
    ]
    return "\n".join([head, *rows]) + "\n"
