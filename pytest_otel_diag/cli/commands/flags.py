"""``otel-diag flags``: compare written and served flags, set flags by hand and restore them.

Exit codes of all commands: 0 done, and served as written; 1 not served as written, or the served flags cannot
be read; 2 not done, the message says why.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from pytest_otel_diag.cli.commands import flags_output
from pytest_otel_diag.cli.options import Format, takes_settings, wants_json
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import FlagAddress
from pytest_otel_diag.operations.flag_overview import key_of, overview
from pytest_otel_diag.operations.flag_watch import (
    FlagSnapshot,
    ReadingChanged,
    VariantChanged,
    WatchEvent,
    watch,
)
from pytest_otel_diag.operations.manual_flags import FlagsReset, ManualFlags, all_off, reset, set_flag

T = TypeVar("T")

DIFFERENT = 1

app = typer.Typer(
    help="Flags of a running system: what is written, what is served; set them by hand, restore them.",
    no_args_is_help=True,
)

LeaseWait = Annotated[
    float, typer.Option("--lease-wait-s", min=0, help="Seconds to wait while a run holds the system.")
]
ServedWait = Annotated[
    float, typer.Option("--wait", min=0.1, help="Seconds to wait until flagd serves the flags as written.")
]


def _access(settings: Settings) -> FlagAddress:
    from pytest_otel_diag.targets.live.target import access_of  # noqa: PLC0415 - imports a whole target

    return access_of(settings)


def _with_flags(access: FlagAddress, work: Callable[[SurfaceFlags], Awaitable[T]]) -> T:
    # The library logs an error for every rule that needs a user when it is evaluated without one.
    logging.getLogger("openfeature").addHandler(logging.NullHandler())

    async def run() -> T:
        flags = open_flags(access, now=time.time_ns)
        try:
            return await work(flags)
        finally:
            await flags.aclose()

    return asyncio.run(run())


def _by_hand(
    settings: Settings, lease_wait_s: float, served_s: float, work: Callable[[ManualFlags], Awaitable[T]]
) -> T:
    access = _access(settings)

    def notify(text: str) -> None:
        typer.echo(text, err=True)

    return _with_flags(
        access,
        lambda flags: work(ManualFlags(flags, settings.state_dir(), notify, lease_wait_s, served_s)),
    )


@app.command("list")
@takes_settings("flags", "flagd", "frontend")
def list_(settings: Settings, output: Format = "text") -> None:
    """Show every flag: what is written, what is served, and why they differ.

    Exit codes: 0 they agree, 1 they differ or the served flags cannot be read, 2 the written flags cannot be
    read.
    """
    show = flags_output.overview_json if wants_json(output) else flags_output.overview_text
    found = _with_flags(_access(settings), overview)
    show(found)
    raise typer.Exit(0 if found.agrees else DIFFERENT)


@app.command()
@takes_settings("flags", "flagd", "frontend")
def show(
    settings: Settings,
    flag: Annotated[str, typer.Argument(help="A flag, by any of its names.")],
    output: Format = "text",
) -> None:
    """Show one flag: its variants, its rule, and what is served in which context.

    Exit codes: 0 written and served agree, 1 they differ or the served flags cannot be read, 2 no such flag.
    """
    show_row = flags_output.row_json if wants_json(output) else flags_output.row_text
    found = _with_flags(_access(settings), overview)
    row = found.row(key_of(flag, found.document))
    show_row(row, found, found.document.flags[row.flag].variants)
    raise typer.Exit(0 if row.agrees and not found.unserved else DIFFERENT)


@app.command("set")
@takes_settings("flags", "flagd", "frontend", "state")
def set_(
    settings: Settings,
    flag: Annotated[str, typer.Argument(help="A flag, by any of its names.")],
    variant: Annotated[str, typer.Argument(help="One of its variants.")],
    lease_wait_s: LeaseWait = 0.0,
    wait_s: ServedWait = 30.0,
    force: Annotated[
        bool, typer.Option("--force", help="Write although flagd serves something else than is written.")
    ] = False,
) -> None:
    """Set a flag, in its rule where one decides, and wait until it is served.

    The flag stays set when this command ends. otel-diag flags reset writes the document from before back,
    byte for byte; runs on this machine refuse to start until then.

    Exit codes: 0 served, 1 written but not served in time, 2 refused; nothing has changed then, unless the
    message says otherwise.
    """
    done = _by_hand(
        settings, lease_wait_s, wait_s, lambda manual: set_flag(manual, flag, variant, force=force)
    )
    if not done.served:
        typer.echo(
            f"{done.flag}={variant} is written, but not served after {wait_s:g} s; see otel-diag flags show "
            f"{done.flag}, and restore it with otel-diag flags reset",
            err=True,
        )
        raise typer.Exit(DIFFERENT)
    typer.echo(f"{done.flag}={variant} is served. It stays set until: otel-diag flags reset")


@app.command("reset")
@takes_settings("flags", "flagd", "frontend", "state")
def reset_(
    settings: Settings,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Only these flags, by any of their names.", metavar="[FLAGS]..."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all-off", help="Set every flag to off, whoever set it.")
    ] = False,
    lease_wait_s: LeaseWait = 0.0,
    wait_s: ServedWait = 30.0,
) -> None:
    """Restore what was set by hand: the document from before the first set, byte for byte.

    With --all-off every flag is set to off instead (to what the demo ships where off is no healthy state),
    and the document from before is saved to a file.

    Exit codes: 0 restored and served, or nothing was set; 1 written but not served in time; 2 refused.
    """
    if everything and names:
        raise ConfigurationError("--all-off sets every flag to off; name no flags, or leave --all-off out")
    if everything:
        off = _by_hand(settings, lease_wait_s, wait_s, all_off)
        flags_output.all_off_text(off)
        raise typer.Exit(0 if off.served else DIFFERENT)
    done = _by_hand(settings, lease_wait_s, wait_s, lambda manual: reset(manual, names or ()))
    typer.echo(_restored(done))


def _restored(done: FlagsReset | None) -> str:
    if done is None:
        return (
            "nothing was set by hand here. To restore faults that a run left on: otel-diag heal; to set "
            "every flag to off: otel-diag flags reset --all-off"
        )
    still = f"; still set: {', '.join(done.still_set)}" if done.still_set else ""
    return f"{done.faults} restored: {done.detail}{still}"


@app.command("watch")
@takes_settings("flags", "flagd", "frontend")
def watch_(
    settings: Settings,
    output: Format = "text",
    for_s: Annotated[
        float | None, typer.Option("--for", min=0, help="Seconds to watch; by default until Ctrl-C.")
    ] = None,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two readings.")] = 1.0,
) -> None:
    """Print every change of what is written or served, with its time.

    Exit codes: 0 when it ends, 2 when the options are wrong.
    """
    as_json = wants_json(output)

    async def work(flags: SurfaceFlags) -> None:
        async for event in watch(flags, every_s=every_s, for_s=for_s):
            _print_event(*_event_text(event, flags.name), as_json=as_json)

    try:
        _with_flags(_access(settings), work)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _event_text(event: WatchEvent, name: str) -> tuple[str, str]:
    """Return the subject of an event and what happened."""
    if isinstance(event, FlagSnapshot):
        found = f"{len(event.written)} flags, not as shipped: {', '.join(event.on) or 'none'}"
        return "watching", f"{name}: {event.problem or found}"
    if isinstance(event, ReadingChanged):
        return "(flags)", event.problem or "readable and served again"
    return event.flag, _change_text(event)


def _change_text(event: VariantChanged) -> str:
    context = f" for {event.context}" if event.context else ""
    return f"{event.what} {event.before or 'absent'} → {event.after or 'absent'}{context}"


def _print_event(flag: str, text: str, *, as_json: bool) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = (
        json.dumps({"at": at, "flag": flag, "change": text}, ensure_ascii=False)
        if as_json
        else f"{at}  {flag}  {text}"
    )
    typer.echo(line)
    sys.stdout.flush()
