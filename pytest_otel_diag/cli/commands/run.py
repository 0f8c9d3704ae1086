"""``otel-diag run``: runs every scenario of a target, without pytest."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.cli.interruption import Stop
from pytest_otel_diag.cli.options import RUN_SETTINGS, Wanted, takes_settings
from pytest_otel_diag.cli.progress import phase_lines
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, nearest
from pytest_otel_diag.model.events import SessionEvent
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.ports import Target
from pytest_otel_diag.reports.terminal import summary
from pytest_otel_diag.reports.writers import run_writers
from pytest_otel_diag.runs.events import EventWriter
from pytest_otel_diag.runs.forecast import forecast
from pytest_otel_diag.runs.place import RunPlace
from pytest_otel_diag.runs.run import Run, begin
from pytest_otel_diag.runs.runner import PreparedScenario, Runner

Echo = Callable[[str], object]


@takes_settings(*RUN_SETTINGS)
def command(
    settings: Settings,
    scenario: Wanted = None,
    controls: Annotated[bool, typer.Option(help="Run the controls too.")] = True,
) -> None:
    """Diagnose every scenario of a target without pytest, and judge the run by the gate.

    Exit codes: 0 pass, 11 gate failed, 12 infrastructure, 13 inconclusive.
    """
    raise typer.Exit(run(settings, tuple(scenario or ()), controls, typer.echo))


def run(settings: Settings, wanted: Sequence[str], controls: bool, echo: Echo) -> int:
    """Run the scenarios whose id contains one of *wanted* (all if it is empty); return the exit code.

    That is the gate's code, 2 after Ctrl-C, 128 plus the number of the signal that ended the run; 0 for a run
    that only sets up its faults, once each is served. Raises ConfigurationError when no scenario is left, and
    ScenarioRejected when the target refuses one.
    """
    # Without pytest, the gate is the only verdict of a run.
    settings = replace(settings, gate=not settings.setup_only)
    place = RunPlace.new(Path.cwd() / settings.reports, time.time_ns())
    with Runner(settings, folder=place.directory) as runner:
        chosen = chosen_scenarios(runner.target, wanted, controls)
        prepared = runner.prepare_each(runner.repeated(chosen))
        if expected := forecast(place.directory.parent, str(settings.analyzer)):
            echo(expected.described(len(prepared)))
        identity = runner.identity(settings.analyzer.reveal())
        manifest = begin(place, settings, Path.cwd(), runner.target.describe())
        kept = Run(settings, place, manifest, writers=run_writers())
        stop = Stop()
        ended: list[SessionResult] = []

        async def work() -> int:
            interrupted = ""
            try:
                interrupted = await _run_each(runner, prepared, kept, ended, echo)
            except asyncio.CancelledError:
                interrupted = f"interrupted ({stop.reason})"
                raise
            finally:
                code = kept.finish([identity], interrupted)
                for line in ("", *summary(kept, shutil.get_terminal_size().columns), *kept.alarms):
                    echo(line)
            if settings.setup_only and all(result.status is Status.SKIPPED for result in ended):
                return 0
            return code

        return stop.run(work)


def chosen_scenarios(target: Target, wanted: Sequence[str], controls: bool) -> list[Scenario]:
    """Return the target's scenarios whose id contains one of *wanted* (all if it is empty).

    Raises ConfigurationError when none is left.
    """
    known = target.scenarios()
    kept = [scenario for scenario in known if controls or not scenario.control]
    chosen = [s for s in kept if not wanted or any(text in s.id for text in wanted)]
    if not chosen:
        hint = nearest(wanted[0], [scenario.id for scenario in known]) if len(wanted) == 1 else ""
        raise ConfigurationError(
            f"no scenario to run: target {target.name} has {len(known)}, none with "
            f"{' or '.join(repr(text) for text in wanted) or 'a fault'} in its id{hint}"
        )
    return chosen


async def _run_each(
    runner: Runner, work: Sequence[PreparedScenario], kept: Run, ended: list[SessionResult], echo: Echo
) -> str:
    """Run the sessions one after another; return why the rest was not run, empty if all were."""

    def keep(result: SessionResult) -> None:
        ended.append(result)
        kept.add(result)
        echo(f"{result.scenario.id}  {result.summary}  ({result.wall_s:.1f} s)")

    events = EventWriter(kept.directory)
    try:
        for prepared in work:
            if any(result.cleanup is not None and result.cleanup.left_on for result in ended):
                return "stopped after the session that left its fault on"
            lines = phase_lines(prepared.scenario.id, echo)

            def emit(event: SessionEvent, lines: Callable[[SessionEvent], None] = lines) -> None:
                events.emit(event)
                lines(event)

            await runner.run(prepared, keep, emit=emit)
    finally:
        events.close()
    return ""
