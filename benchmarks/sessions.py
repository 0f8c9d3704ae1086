"""``python -m benchmarks.sessions [--sessions 12] [--json FILE]``.

Measures CPU and wall seconds of whole sessions by phase. One session warms the process up, then a fixed
list of scenarios of the simulated shop runs one after the other: faults of the catalog and quiet controls.
CPU seconds are those of the whole process, the embedded engine's threads included, between the session's
events; on a machine that is busy with other work they hold better than wall seconds do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.model.events import PhaseEnded, PhaseStarted, SessionEvent
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.runs.runner import Runner
from pytest_otel_diag.targets.shop.target import ShopTarget

OUTSIDE = "outside phases"


class PhaseTimes:
    """CPU and wall seconds of each session by phase, read from its events."""

    def __init__(self) -> None:
        self.sessions: list[dict[str, tuple[float, float]]] = []
        self._phase = OUTSIDE
        self._spent: dict[str, list[float]] = {}
        self._at = (0.0, 0.0)

    def begin(self) -> None:
        """Begin a session."""
        self._phase, self._spent = OUTSIDE, defaultdict(lambda: [0.0, 0.0])
        self._at = (time.process_time(), time.perf_counter())

    def end(self) -> None:
        """End the session and keep its times."""
        self._turn(OUTSIDE)
        self.sessions.append({phase: (cpu, wall) for phase, (cpu, wall) in self._spent.items()})

    def emit(self, event: SessionEvent) -> None:
        """Note the phase that the session is in."""
        if isinstance(event, PhaseStarted):
            self._turn(str(event.phase))
        elif isinstance(event, PhaseEnded):
            self._turn(OUTSIDE)

    def _turn(self, phase: str) -> None:
        now = (time.process_time(), time.perf_counter())
        spent = self._spent[self._phase]
        spent[0] += now[0] - self._at[0]
        spent[1] += now[1] - self._at[1]
        self._phase, self._at = phase, now

    def table(self) -> dict[str, tuple[float, float]]:
        """Return mean CPU and wall seconds a session by phase, in the order of the phases."""
        phases = dict.fromkeys(phase for session in self.sessions for phase in session)
        count = len(self.sessions)
        return {
            phase: (
                sum(session.get(phase, (0.0, 0.0))[0] for session in self.sessions) / count,
                sum(session.get(phase, (0.0, 0.0))[1] for session in self.sessions) / count,
            )
            for phase in phases
        }

    def totals(self) -> list[tuple[float, float]]:
        """Return CPU and wall seconds of each session."""
        return [
            (sum(cpu for cpu, _ in session.values()), sum(wall for _, wall in session.values()))
            for session in self.sessions
        ]


def chosen(count: int) -> list[Scenario]:
    """Return *count* scenarios: three of the catalog's, then a control, and so on."""
    faults, controls = catalog.scenarios(), catalog.controls()
    step = max(1, len(faults) // count)
    picked: list[Scenario] = []
    for index in range(count):
        source, at = (controls, index // 4) if index % 4 == 3 else (faults, index * step)
        picked.append(source[at % len(source)])
    return picked


def measure(count: int) -> PhaseTimes:
    """Run the sessions and return their times."""
    times = PhaseTimes()
    settings = Settings()
    target = ShopTarget.from_settings("", settings=settings, worker="")
    with Runner(settings, target=target) as runner:
        scenarios = chosen(count)
        for number, scenario in enumerate([scenarios[0], *scenarios]):
            prepared = runner.prepare(scenario)
            times.begin()
            asyncio.run(runner.run(prepared, analyzer="builtin", emit=times.emit))
            times.end()
            if not number:
                times.sessions.clear()
    target.close()
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    times = measure(arguments.sessions)
    table, totals = times.table(), times.totals()
    print(f"{'phase':<16}  CPU s a session  wall s a session")
    for phase, (cpu, wall) in table.items():
        print(f"{phase:<16}  {cpu:>15.3f}  {wall:>16.3f}")
    cpus, walls = [cpu for cpu, _ in totals], [wall for _, wall in totals]
    print(f"{'mean':<16}  {statistics.mean(cpus):>15.3f}  {statistics.mean(walls):>16.3f}")
    print(f"{'median':<16}  {statistics.median(cpus):>15.3f}  {statistics.median(walls):>16.3f}")
    if arguments.json:
        document: dict[str, Any] = {"phases": table, "sessions": totals}
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
