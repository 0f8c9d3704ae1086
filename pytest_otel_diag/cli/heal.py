"""``otel-diag heal`` and ``otel-diag emergency-stop``: take back faults that are still on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.config.options import OPTIONS, resolve
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.surface import FlagAccess
from pytest_otel_diag.operations.emergency import stop_owners, switch_all_off
from pytest_otel_diag.undo.heal import Healed, Outcome, heal

Echo = Callable[[str], None]

STOP_WAIT_S = 30.0
_NEEDED = ("state", "flags", "flagd")

State = Annotated[Path | None, typer.Option(help="Folder of the journal; see --otel-diag-state.")]
Force = Annotated[
    bool,
    typer.Option(
        help="Also faults of runs that live or are of other hosts, and without proof that flags are served."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
AllOff = Annotated[bool, typer.Option("--all-off", help="Then set every flag that can be off to off.")]
Flags = Annotated[str | None, typer.Option(help="Where flags are written, for --all-off: file:PATH, ...")]
Flagd = Annotated[str | None, typer.Option(help="Where flags are evaluated, for --all-off: ofrep:URL, ...")]
Wait = Annotated[float, typer.Option(help="How long runs may take to end, in seconds.", min=0.0)]


def heal_command(state: State = None, force: Force = False, dry_run: DryRun = False) -> None:
    """Take back what killed runs left on; exit code 1 when a fault may still be on.

    What --otel-diag-skip-cleanup left on is taken back too. Runs that live are left alone.
    """
    raise typer.Exit(healing(_settings(state).state_dir(), typer.echo, force=force, dry_run=dry_run))


def emergency_stop_command(
    state: State = None,
    all_off: AllOff = False,
    flags: Flags = None,
    flagd: Flagd = None,
    wait_s: Wait = STOP_WAIT_S,
) -> None:
    """Everything off, now: end the runs, take back every fault; exit code 1 when one may still be on."""
    settings = _settings(state, flags, flagd)
    access = _access(settings) if all_off else None
    raise typer.Exit(emergency_stop(settings.state_dir(), access, typer.echo, wait_s=wait_s))


def healing(state_dir: Path, echo: Echo, *, force: bool, dry_run: bool) -> int:
    """Heal and tell; return the exit code."""
    healed = asyncio.run(heal(state_dir, force=force, dry_run=dry_run))
    if not healed:
        echo(f"nothing to heal: no fault is open in {state_dir}")
    for one in healed:
        echo(_line(one))
    waiting = dry_run and all(one.outcome is Outcome.WOULD_RESTORE for one in healed)
    return 0 if waiting or all(one.gone for one in healed) else 1


def emergency_stop(state_dir: Path, access: FlagAccess | None, echo: Echo, *, wait_s: float) -> int:
    """End runs, take faults back and, with *access*, switch every flag off; return the exit code."""
    return asyncio.run(_stop(state_dir, access, echo, wait_s))


async def _stop(state_dir: Path, access: FlagAccess | None, echo: Echo, wait_s: float) -> int:
    echo(f"1. ending the runs that are at work in {state_dir}")
    running = await stop_owners(state_dir, wait_s=wait_s, tell=lambda text: echo(f"   {text}"))
    for owner in running:
        echo(f"   STILL RUNNING after {wait_s:g} s: {owner.sentence}")
    echo("2. taking back every open fault")
    healed = await heal(state_dir, force=True)
    for one in healed or ():
        echo(f"   {_line(one)}")
    off = True
    if access is not None:
        echo(f"3. switching off every flag of {access.control}")
        off = await switch_all_off(access, opener=open_flags, tell=lambda text: echo(f"   {text}"))
    good = off and not running and all(one.gone for one in healed)
    echo("no fault of ours is on" if good else "A FAULT MAY STILL BE ON; see above")
    return 0 if good else 1


def _line(one: Healed) -> str:
    return f"{one.outcome.upper():<14} {one.identity}  {one.faults}: {one.detail}"


def _access(settings: Settings) -> FlagAccess:
    if not (settings.flags and settings.flagd):
        raise ConfigurationError(
            "--all-off needs to know where flags are written and where they are evaluated: give --flags, for "
            "example file:PATH, and --flagd, for example ofrep:http://localhost:8016"
        )
    return FlagAccess(control=settings.flags, served=settings.flagd)


def _settings(state: Path | None, flags: str | None = None, flagd: str | None = None) -> Settings:
    """Return the few settings that matter here; a mistake in others must not keep anybody from healing."""
    options = [option for option in OPTIONS if option.name in _NEEDED]
    given = {"state": state, "flags": flags, "flagd": flagd}
    command_line = {option.ini: given[option.name] for option in options if given[option.name] is not None}
    return Settings.of(resolve(command_line, {}, only=options))
