"""Options that commands share.

Settings of a run are options of a command too: their spelling, help and parser come from the one declaration
in :mod:`pytest_otel_diag.config.options`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from pytest_otel_diag.config.declaration import Option, boolean
from pytest_otel_diag.config.options import OPTIONS, resolve
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, nearest

T = TypeVar("T")

Wanted = Annotated[
    list[str] | None,
    typer.Option("--scenario", metavar="TEXT", help="Only scenarios whose id contains this (repeatable)."),
]
Recorded = Annotated[
    str,
    typer.Argument(
        metavar="RECORDING|RUN[/SESSION]",
        help="A recording, the folder of a run that kept telemetry, or a session of it.",
    ),
]
Incident = Annotated[
    str, typer.Option(metavar="ID", help="The incident or control, where a recording has several.")
]
Format = Annotated[str, typer.Option("--format", help="text or json.")]
_FORMATS = ("text", "json")
RUN_SETTINGS = tuple(option.name for option in OPTIONS if not option.pytest_only)
"""Names of the settings of a run without pytest."""
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def wants_json(output: str) -> bool:
    """Return whether ``--format`` is json; raises ConfigurationError for an unknown format."""
    if output not in _FORMATS:
        raise ConfigurationError(
            f"--format={output!r}: choose from {', '.join(_FORMATS)}{nearest(output, _FORMATS)}"
        )
    return output == "json"


def takes_settings(*names: str, others: bool = True) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Make the settings *names* options of a command, which receives all settings as ``settings``.

    Settings without an option of the command come from the environment. With ``others=False`` they keep their
    defaults, so that a mistake in them cannot stop the command.
    """
    by_name = {option.name: option for option in OPTIONS}
    chosen = [by_name[name] for name in names]
    return takes_options(
        chosen, "settings", lambda given: Settings.of(resolve(given, {}, only=None if others else chosen))
    )


def takes_options(
    options: Sequence[Option], parameter: str, make: Callable[[dict[str, Any]], Any]
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Make declared *options* options of a command.

    The command receives what *make* returns for the values that were given, by ini spelling, as *parameter*.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        own = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def command(**arguments: Any) -> T:
            values = {option.ini: arguments.pop(option.name) for option in options}
            given = {name: value for name, value in values.items() if value is not None}
            return function(**arguments, **{parameter: make(given)})

        kept = [each for name, each in own.parameters.items() if name != parameter]
        taken = [
            inspect.Parameter(option.name, _KEYWORD, default=None, annotation=_typed(option))
            for option in options
        ]
        parameters = [*(each.replace(kind=_KEYWORD) for each in kept), *taken]
        # Typer reads both: which parameters there are, and their types.
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__dict__["__signature__"] = own.replace(parameters=parameters)
        return command

    return decorate


def _typed(option: Option) -> Any:
    """Return the annotation from which typer makes the command's option."""
    spellings = [option.command, *filter(None, [option.alias])]
    if option.parse is boolean:
        spellings = [f"{option.command}/--no-{option.command[2:]}"]
        return Annotated[bool | None, typer.Option(*spellings, help=_help(option))]
    return Annotated[str | None, typer.Option(*spellings, help=_help(option), metavar=option.metavar)]


def _help(option: Option) -> str:
    text = option.help[0].upper() + option.help[1:] if option.help[0].islower() else option.help
    shown = (
        ""
        if str(option.default) in ("None", "") or option.parse is boolean
        else f" (default: {option.default})"
    )
    return f"{text}{shown} [{option.environment}]"
