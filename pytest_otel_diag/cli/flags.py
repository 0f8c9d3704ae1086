"""``otel-diag flags``: what is written against what is served, and flags set and taken back by hand.

Exit codes of all commands: 0 as asked for, and served so; 1 what is served is not what is written, or could
not be asked; 2 it could not be done, the message says why.
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

from pytest_otel_diag.cli.flags_print import print_all_off, print_json, print_overview, print_row, told
from pytest_otel_diag.config.options import OPTIONS, resolve
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, FlagError, nearest
from pytest_otel_diag.flags.access import open_flags
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.flags.surface import FlagAccess
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.operations.flag_overview import Overview, contexts, key_of, known, overview
from pytest_otel_diag.operations.flag_watch import changes, seen
from pytest_otel_diag.operations.manual_flags import AllOff, Hands, all_off, reset, set_flag

T = TypeVar("T")

DIFFERENT = 1
_FORMATS = ("text", "json")

app = typer.Typer(
    help="Flags of a running system: what is written, what is served; set them by hand, take that back.",
    no_args_is_help=True,
)

Control = Annotated[
    str | None,
    typer.Option(
        "--flags",
        help="Where flags are written: file:PATH, flagd-ui:URL, configmap:NAMESPACE/NAME, command:… or "
        "class:MODULE:ATTRIBUTE. Without it the flagd-ui behind the frontend.",
    ),
]
ServedBy = Annotated[
    str | None,
    typer.Option(
        "--flagd",
        help="Where flags are evaluated: ofrep:URL, flagd:URL or grpc:HOST:PORT. Without it flagd behind "
        "the frontend.",
    ),
]
Frontend = Annotated[str | None, typer.Option(help="Where the demo's frontend-proxy answers.")]
Format = Annotated[str, typer.Option("--format", help="text or json.")]
StateDir = Annotated[str | None, typer.Option("--state", help="Folder of the journal, one a machine.")]
LeaseWait = Annotated[
    float, typer.Option("--lease-wait-s", min=0, help="Seconds to wait while a run holds the system.")
]
ServedWait = Annotated[
    float, typer.Option("--wait", min=0.1, help="Seconds to wait until flagd answers as written.")
]


def _settings(**given: str | None) -> Settings:
    spelling = {option.name: option.ini for option in OPTIONS}
    command_line = {spelling[name]: value for name, value in given.items() if value is not None}
    return Settings.of(resolve(command_line, {}))


def _access(settings: Settings) -> FlagAccess:
    from pytest_otel_diag.targets.live.target import access_of  # noqa: PLC0415 - brings a whole target along

    return access_of(settings)


def _checked(format_: str) -> bool:
    """Return whether JSON was asked for; raises ConfigurationError for an unknown format."""
    if format_ not in _FORMATS:
        raise ConfigurationError(
            f"--format={format_!r}{nearest(format_, _FORMATS)}; allowed are text and json"
        )
    return format_ == "json"


def _with_flags(access: FlagAccess, work: Callable[[SurfaceFlags], Awaitable[T]]) -> T:
    # It complains of every rule that deals variants out to users when it is asked for nobody.
    logging.getLogger("openfeature").addHandler(logging.NullHandler())

    async def run() -> T:
        flags = open_flags(access, now=time.time_ns)
        try:
            return await work(flags)
        finally:
            await flags.aclose()

    return asyncio.run(run())


def _by_hand(
    settings: Settings, lease_wait_s: float, served_s: float, work: Callable[[Hands], Awaitable[T]]
) -> T:
    access = _access(settings)

    def tell(text: str) -> None:
        typer.echo(text, err=True)

    return _with_flags(
        access,
        lambda flags: work(Hands(flags, access, settings.state_dir(), tell, lease_wait_s, served_s)),
    )


@app.command("list")
def list_(
    control: Control = None,
    flagd: ServedBy = None,
    frontend: Frontend = None,
    output: Format = "text",
) -> None:
    """Show every flag: what is written, what is served, and why they differ.

    Exit codes: 0 they agree, 1 they differ or nothing is served, 2 the flags cannot be read.
    """
    as_json = _checked(output)
    access = _access(_settings(flags=control, flagd=flagd, frontend=frontend))
    found, where = _with_flags(access, _overview)
    if as_json:
        print_json({**where, **told(found), "flags": [row.body() for row in found.rows]})
    else:
        print_overview(found, where)
    raise typer.Exit(0 if found.agrees else DIFFERENT)


async def _overview(flags: SurfaceFlags) -> tuple[Overview, dict[str, str]]:
    return await overview(flags), {"written_at": flags.surface.name, "served_by": flags.reader.name}


@app.command()
def show(
    flag: Annotated[str, typer.Argument(help="A flag, by any of its names.")],
    control: Control = None,
    flagd: ServedBy = None,
    frontend: Frontend = None,
    output: Format = "text",
) -> None:
    """Show one flag: variants, rule, what is served to whom.

    Exit codes: 0 written and served agree, 1 they differ or nothing is served, 2 no such flag.
    """
    as_json = _checked(output)
    access = _access(_settings(flags=control, flagd=flagd, frontend=frontend))
    found, where = _with_flags(access, _overview)
    row = found.row(key_of(flag, found.document.flags))
    variants = dict(found.document.flags[row.flag].variants)
    if as_json:
        print_json({**where, **told(found), "variants": variants, **row.body()})
    else:
        print_row(row, found, variants)
    raise typer.Exit(0 if row.agrees and not found.unserved else DIFFERENT)


@app.command("set")
def set_(  # noqa: PLR0913 - parameters of a command are its options
    *,
    flag: Annotated[str, typer.Argument(help="A flag, by any of its names.")],
    variant: Annotated[str, typer.Argument(help="One of its variants.")],
    control: Control = None,
    flagd: ServedBy = None,
    frontend: Frontend = None,
    state: StateDir = None,
    lease_wait_s: LeaseWait = 0.0,
    wait_s: ServedWait = 30.0,
    force: Annotated[
        bool, typer.Option("--force", help="Write although flagd serves something else than is written.")
    ] = False,
) -> None:
    """Set a flag, in its rule where one decides, and wait until that is served.

    It stays so when this command ends. otel-diag flags reset puts the document from before back, byte for
    byte; runs on this machine refuse to start until then.

    Exit codes: 0 served, 1 written but not served in time, 2 refused; nothing has changed then, unless the
    message says so.
    """
    settings = _settings(flags=control, flagd=flagd, frontend=frontend, state=state)
    access = _access(settings)

    async def work(hands: Hands) -> tuple[str, bool]:
        found = await overview(hands.flags)
        if not force:
            _refuse_stale(found, access.control)
        key = key_of(flag, found.document.flags)
        asked = contexts(found.document.flags[key], found.comparison.demo)
        return key, await set_flag(hands, FlagChange(key=key, variant=variant), asked)

    key, served = _by_hand(settings, lease_wait_s, wait_s, work)
    if not served:
        typer.echo(
            f"{key}={variant} is written, but not served after {wait_s:g} s; see otel-diag flags show {key}, "
            "and take it back with otel-diag flags reset",
            err=True,
        )
        raise typer.Exit(DIFFERENT)
    typer.echo(f"{key}={variant} is served. It stays so until: otel-diag flags reset")


def _refuse_stale(found: Overview, control: str) -> None:
    """Raise FlagError where a write would take back an edit that flagd-ui has not seen."""
    different = [row.flag for row in found.rows if not row.agrees]
    if control.startswith("flagd-ui:") and different and not found.unserved:
        raise FlagError(
            f"flagd serves {', '.join(different)} otherwise than flagd-ui has it: the file was edited beside "
            "flagd-ui, which read it when it started, and a write would take that edit back. Start flagd-ui "
            "again (docker compose restart flagd-ui), or write anyway with --force"
        )


@app.command("reset")
def reset_(  # noqa: PLR0913 - parameters of a command are its options
    *,
    flags: Annotated[
        list[str] | None, typer.Argument(help="Only these flags, by any of their names.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all-off", help="Set every flag to off, whoever set it.")
    ] = False,
    control: Control = None,
    flagd: ServedBy = None,
    frontend: Frontend = None,
    state: StateDir = None,
    lease_wait_s: LeaseWait = 0.0,
    wait_s: ServedWait = 30.0,
) -> None:
    """Take back what was set by hand: the document from before the first set, byte for byte.

    With --all-off every flag goes to off instead (to what the demo ships where off is no healthy state),
    and the document from before is saved to a file that is named.

    Exit codes: 0 taken back and served, or nothing was set; 1 written but not served in time; 2 refused.
    """
    settings = _settings(flags=control, flagd=flagd, frontend=frontend, state=state)
    if everything and flags:
        raise ConfigurationError("--all-off sets every flag to off; name no flags, or leave --all-off out")
    if everything:
        done = _by_hand(settings, lease_wait_s, wait_s, _all_off)
        print_all_off(done)
        raise typer.Exit(0 if done.served else DIFFERENT)

    async def work(hands: Hands) -> str:
        written = (await hands.flags.document()).flags if flags else {}
        return await reset(hands, [key_of(name, written) for name in flags or ()])

    typer.echo(
        _by_hand(settings, lease_wait_s, wait_s, work)
        or "nothing was set by hand here. Faults that a run left on: otel-diag heal; every flag to off: "
        "otel-diag flags reset --all-off"
    )


async def _all_off(hands: Hands) -> AllOff:
    demo = (await overview(hands.flags)).comparison.demo

    def shipped(key: str) -> str:
        found = known(key, demo)
        return found[1].default if found is not None else "off"

    return await all_off(hands, shipped)


@app.command()
def watch(
    control: Control = None,
    flagd: ServedBy = None,
    frontend: Frontend = None,
    output: Format = "text",
    for_s: Annotated[
        float | None, typer.Option("--for", min=0, help="Seconds to watch; without it until Ctrl-C.")
    ] = None,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Print every change of what is written or served, with its time.

    Exit codes: 0 when it ends, 2 when the options are wrong.
    """
    as_json = _checked(output)
    access = _access(_settings(flags=control, flagd=flagd, frontend=frontend))

    async def work(flags: SurfaceFlags) -> None:
        until_s = None if for_s is None else time.monotonic() + for_s
        before = await seen(flags)
        _tell("watching", f"{flags.name}: {before.summary}", as_json)
        while until_s is None or time.monotonic() < until_s:
            await asyncio.sleep(
                every_s if until_s is None else min(every_s, max(0, until_s - time.monotonic()))
            )
            after = await seen(flags)
            for flag, text in changes(before, after):
                _tell(flag, text, as_json)
            before = after.over(before)

    try:
        _with_flags(access, work)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _tell(flag: str, text: str, as_json: bool) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = (
        json.dumps({"at": at, "flag": flag, "change": text}, ensure_ascii=False)
        if as_json
        else f"{at}  {flag}  {text}"
    )
    typer.echo(line)
    sys.stdout.flush()
