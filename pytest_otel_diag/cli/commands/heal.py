"""``otel-diag heal`` and ``otel-diag emergency-stop``: restore faults that are still on."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from pytest_otel_diag.cli.options import takes_settings
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.operations.emergency import StillRunning, StopEvent, stop_runs, switch_all_off
from pytest_otel_diag.targets.live.target import access_of
from pytest_otel_diag.undo.heal import Healed, HealOutcome, heal

STOP_WAIT_S = 30.0


@takes_settings("state", "frontend", "flags", "flagd", others=False)
def heal_command(
    settings: Settings,
    force: Annotated[
        bool,
        typer.Option(
            help="Include faults of runs that are alive or on other hosts, and flags that nothing serves."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Restore the flags that killed runs left on; exit code 1 when a fault may still be on.

    Faults that --otel-diag-skip-cleanup left on are restored too. Runs that are alive are left alone.
    """
    state_dir = settings.state_dir()
    known = access_of(settings)
    healed = asyncio.run(heal(state_dir, force=force, dry_run=dry_run, known=known))
    if not healed:
        typer.echo(f"nothing to heal: no fault is open in {state_dir}")
    for one in healed:
        typer.echo(_line(one))
    only_shown = dry_run and all(one.outcome is HealOutcome.WOULD_RESTORE for one in healed)
    raise typer.Exit(0 if only_shown or all(one.gone for one in healed) else 1)


@takes_settings("state", "frontend", "flags", "flagd", others=False)
def emergency_stop_command(
    settings: Settings,
    all_off: Annotated[
        bool, typer.Option("--all-off", help="Then set every flag that has an off variant to off.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait-s", help="How long runs may take to end, in seconds.", min=0.0)
    ] = STOP_WAIT_S,
) -> None:
    """End all runs and restore every fault, now; exit code 1 when a fault may still be on."""
    access = _access(settings) if all_off else None
    raise typer.Exit(asyncio.run(_stop(settings, access, wait_s)))


async def _stop(settings: Settings, access: FlagAddress | None, wait_s: float) -> int:
    state_dir = settings.state_dir()
    typer.echo(f"1. ending the runs at work in {state_dir}")
    good = True
    async for event in stop_runs(state_dir, wait_s=wait_s):
        typer.echo(f"   {_stop_line(event, wait_s)}")
        good = good and not isinstance(event, StillRunning)
    typer.echo("2. restoring every open fault")
    for one in await heal(state_dir, force=True, known=access_of(settings)):
        typer.echo(f"   {_line(one)}")
        good = good and one.gone
    if access is not None:
        typer.echo(f"3. setting every flag of {access.control} to off")
        async for switched in switch_all_off(access):
            good = good and switched.off
            if switched.outcome != "was off":
                detail = f": {switched.detail}" if switched.detail else ""
                outcome = switched.outcome if switched.off else switched.outcome.upper()
                typer.echo(f"   {switched.flag}: {outcome}{detail}")
    typer.echo("no fault of ours is on" if good else "A FAULT MAY STILL BE ON; see above")
    return 0 if good else 1


def _stop_line(event: StopEvent, wait_s: float) -> str:
    if isinstance(event, StillRunning):
        return f"STILL RUNNING after {wait_s:g} s: {event.owner.sentence}"
    outcomes = {
        "asked to end": f"process {event.pid} asked to end",
        "not permitted": f"no permission to stop process {event.pid}",
        "unreachable": f"process {event.pid} cannot be reached from here",
    }
    return f"{outcomes[event.outcome]}: {event.owner.sentence}"


def _line(one: Healed) -> str:
    return f"{one.outcome.upper():<14} {one.identity}  {one.faults}: {one.detail}"


def _access(settings: Settings) -> FlagAddress:
    if not (settings.flags and settings.flagd):
        raise ConfigurationError(
            "--all-off needs to know where flags are written and where they are evaluated: give --flags, for "
            "example file:PATH, and --flagd, for example ofrep:http://localhost:8016"
        )
    return FlagAddress(control=settings.flags, served=settings.flagd)
