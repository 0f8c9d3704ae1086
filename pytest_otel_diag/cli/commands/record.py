"""``otel-diag record``: runs sessions of a target and keeps their telemetry, without a diagnosis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.cli.commands.run import chosen_scenarios
from pytest_otel_diag.cli.options import Wanted, takes_settings
from pytest_otel_diag.cli.progress import phase_lines
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.recordings.capture import Capture, Kept
from pytest_otel_diag.recordings.time_shift import ANONYMOUS_NS, Shift, instant_of
from pytest_otel_diag.runs.opening import open_capture
from pytest_otel_diag.runs.runner import PreparedScenario, Runner
from pytest_otel_diag.scoring.gate_outcome import EXIT_INFRASTRUCTURE

RECORD_SETTINGS = (
    *("target", "repeat", "seed", "store", "cache"),
    *("frontend", "flags", "flagd", "otlp_receiver", "drive", "restart", "state", "lease_wait_s"),
    *("impact_timeout_s", "impact_poll_s", "impact_threshold", "observe_s", "session_timeout_s"),
)
"""Settings that mean something to a session without an analyzer."""

Echo = Callable[[str], object]

_NO_ANALYZER = "none"


class NoAnalyzer:
    """Returns an empty answer at once, for sessions that are only recorded."""

    async def diagnose(self, investigation: Investigation) -> Diagnosis:  # noqa: ARG002 - the port
        """Return an empty answer."""
        return Diagnosis(detected=False)


def shift_of(shift_to: str | None, anonymise: bool) -> Shift | None:
    """Return the shift that the options ask for; raises RecordingError or ConfigurationError."""
    if shift_to is not None and anonymise:
        raise ConfigurationError("give --shift-to or --anonymise-time, not both")
    if anonymise:
        return Shift(ANONYMOUS_NS, secret=True)
    return None if shift_to is None else Shift(instant_of(shift_to))


@takes_settings(*RECORD_SETTINGS)
def command(  # noqa: PLR0913 - parameters of a command are its options
    *,
    settings: Settings,
    out: Annotated[Path, typer.Option(help="Folder for the recordings, one per session.")],
    scenario: Wanted = None,
    controls: Annotated[int, typer.Option(min=0, help="Controls to record beside the faults.")] = 0,
    shift_to: Annotated[
        str | None, typer.Option(help="Start of each recording, for example 2026-01-31T08:00:00Z.")
    ] = None,
    anonymise_time: Annotated[
        bool, typer.Option("--anonymise-time", help="Let each recording start with the year 2000.")
    ] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave out telemetry that reveals the flag.")
    ] = False,
) -> None:
    """Turn faults on, wait for their impact, undo them, and keep the telemetry with the ground truth.

    Exit codes: 0 every session was recorded, 12 at least one was not.
    """
    settings = replace(settings, record=str(out))
    capture = Capture(out.expanduser().absolute(), shift=shift_of(shift_to, anonymise_time), redact=redact)
    raise typer.Exit(record(settings, capture, tuple(scenario or ()), controls, typer.echo))


def record(settings: Settings, capture: Capture, wanted: Sequence[str], controls: int, echo: Echo) -> int:
    """Record the scenarios whose id contains one of *wanted*, and so many *controls*; return the exit code.

    Raises ConfigurationError when no scenario is left, ScenarioRejected when the target refuses one.
    """
    open_capture(settings)  # refuses a target that cannot be recorded before anything is touched
    with Runner(settings, analyzers={_NO_ANALYZER: NoAnalyzer()}, capture=capture) as runner:
        work = runner.prepare_each(_work(runner, wanted, controls))
        asyncio.run(_record(runner, work, capture, echo))
    lost = [kept for kept in capture.kept if kept.manifest is None]
    missing = len(work) - len(capture.kept) + len(lost)
    echo(f"{len(work) - missing} of {len(work)} sessions kept in {capture.directory}")
    return EXIT_INFRASTRUCTURE if missing else 0


def _work(runner: Runner, wanted: Sequence[str], controls: int) -> Iterator[tuple[Scenario, int]]:
    """Yield each scenario with the number of its repeat."""
    yield from runner.repeated(chosen_scenarios(runner.target, wanted, controls=True))
    if controls:
        quiet = runner.target.scenario_for(())
        if quiet is None:
            raise ConfigurationError(f"the target {runner.target.name} has no control; drop --controls")
        yield from ((quiet, repeat) for repeat in range(controls))


async def _record(runner: Runner, work: Sequence[PreparedScenario], capture: Capture, echo: Echo) -> None:
    for prepared in work:
        emit = phase_lines(prepared.scenario.id, echo)
        result = await runner.run(prepared, analyzer=_NO_ANALYZER, emit=emit)
        kept = next((one for one in capture.kept if one.session_id == result.session_id), None)
        echo(f"{result.scenario.id}  {_line(result, kept)}")


def _line(result: SessionResult, kept: Kept | None) -> str:
    impact = f"{result.impact.reason}, " if result.impact else ""
    if kept is not None and kept.manifest is not None:
        rows = sum(file.rows for file in kept.manifest.files)
        return f"{impact}{rows:,} rows in {kept.folder}"
    reason = kept.reason if kept is not None else f"{result.status.value}: {result.reason}"
    return f"{impact}not kept: {'; '.join([reason, *result.notes])}"
