"""The ``otel-diag`` command, put together from the modules in ``commands``."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from pytest_otel_diag import __version__

COMMANDS = {
    "init": "init:command",
    "mcp-bridge": "mcp_bridge:command",
    "receive": "receive:command",
    "record": "record:command",
    "report": "report:command",
    "investigate": "investigate:command",
    "serve": "serve:command",
    "doctor": "doctor:command",
    "sql": "sql:command",
    "self-test": "self_test:command",
    "heal": "heal:heal_command",
    "emergency-stop": "heal:emergency_stop_command",
    "run": "run:command",
    "recordings": "recordings:app",
    "catalog": "catalog:app",
    "shop": "shop:shop",
    "scenarios": "scenarios:app",
    "flags": "flags:app",
}
"""Every command, in the order of the help: the module in ``commands``, and the function or group there."""


class _Commands(Mapping[str, Any]):
    """Commands by name. The module of each is imported when the command is first used.

    Together they import half of the package, and a user calls one of them at a time.
    """

    def __getitem__(self, name: str) -> Any:
        return _loaded(name, COMMANDS[name])

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


@functools.cache
def _loaded(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(f"pytest_otel_diag.cli.commands.{module}"), attribute)
    if isinstance(found, typer.Typer):
        command: Any = get_group(found)
    else:
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        command = get_command(alone)
    command.name = name
    return command


class _Group(TyperGroup):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.commands = cast(MutableMapping[str, Any], _Commands())  # nothing adds to it


app = typer.Typer(
    help="Put a diagnosis of OpenTelemetry systems under test.",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"otel-diag {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options of the command itself."""
