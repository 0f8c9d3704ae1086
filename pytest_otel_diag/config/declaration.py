"""How options are declared: as fields of a dataclass, each with its parser and help text.

Standard library only: the plugin's entry module reads the declared options at every start of pytest.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pytest_otel_diag.errors import nearest

Value = TypeVar("Value")
Default = TypeVar("Default")
Number = TypeVar("Number", int, float)

ENVIRONMENT_PREFIX = "OTEL_DIAG_"
"""How the names of environment variables of options begin."""

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True, slots=True)
class Option:
    """One option, with every spelling it has.

    ``flag`` options take no value on the command line. ``legacy_environment`` is an environment variable of
    another tool that sets the option too; ``scale`` converts its unit and ``inverted`` says that it means the
    opposite. ``bare`` is the value on pytest's command line where the option is given without one; empty:
    it needs one. ``alias`` is a second spelling that the ``otel-diag`` command accepts. ``pytest_only``
    options mean nothing to a run without pytest.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    metavar: str = "VALUE"
    flag: bool = False
    legacy_environment: str | None = None
    scale: float = 1.0
    inverted: bool = False
    alias: str = ""
    bare: str = ""
    pytest_only: bool = False

    @property
    def cli(self) -> str:
        """Spelling on pytest's command line."""
        return f"--otel-diag-{self.name.replace('_', '-')}"

    @property
    def command(self) -> str:
        """Spelling on the command line of ``otel-diag``."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def ini(self) -> str:
        """Spelling in pytest's ini files, and the destination on its command line."""
        return f"otel_diag_{self.name}"

    @property
    def environment(self) -> str:
        """Name of the environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.name.upper()}"


def option(
    parse: Callable[[str], Value],
    default: Default,
    help: str,
    **details: Any,
) -> Value | Default:
    """Declare a field of an options dataclass; *details* are the remaining attributes of :class:`Option`."""
    metadata = {"parse": parse, "help": help, **details}
    # The dataclass decorator replaces the field by its value, of which the caller declares the type.
    return cast(Value, dataclasses.field(default=default, metadata=metadata))


def declared(options: type[Any]) -> tuple[Option, ...]:
    """Return the options that the fields of a dataclass declare, in their order."""
    return tuple(
        Option(name=field.name, default=field.default, **field.metadata)
        for field in dataclasses.fields(options)
        if field.metadata
    )


def above_zero(kind: type[Number]) -> Callable[[str], Number]:
    """Return a parser of finite numbers above 0."""

    def parse(text: str) -> Number:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError("must be a finite number above 0")
        return value

    parse.__name__ = "whole number above 0" if kind is int else "number above 0"
    return parse


def whole_number(text: str) -> int:
    """Parse a whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise ValueError("must be a whole number from 0 on")
    return value


def variables(text: str) -> str:
    """Parse names of environment variables, separated by commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"{name!r} is no name of an environment variable; give names, not values")
    return ",".join(names)


def ratio(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("must be a ratio between 0 and 1")
    return value


def share(text: str) -> float:
    """Parse a number above 0 and up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError("must be a ratio above 0 and up to 1")
    return value


def choice(*allowed: str) -> Callable[[str], str]:
    """Return a parser that accepts the *allowed* words only."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"choose from {', '.join(allowed)}{nearest(text, allowed)}")
        return text

    return parse


def tape(text: str) -> str:
    """Parse ``record:DIR`` or ``replay:DIR``; an empty text is neither."""
    kind, _, folder = text.partition(":")
    if text and (kind not in ("record", "replay") or not folder):
        raise ValueError(f"must be record:DIR or replay:DIR{nearest(kind, ('record', 'replay'))}")
    return text


def boolean(text: str) -> bool:
    """Parse the usual spellings of yes and no; an empty text is no."""
    spellings = {"1": True, "true": True, "yes": True, "on": True}
    spellings |= {"0": False, "false": False, "no": False, "off": False, "": False}
    try:
        return spellings[text.strip().lower()]
    except KeyError:
        raise ValueError("choose from true, false, yes, no, on, off, 1, 0") from None


def duration(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``5m`` or ``1h30m``; raises ValueError for anything else."""
    matched = _DURATION.fullmatch(text.strip())
    if matched is None or not any(matched.groups()):
        raise ValueError("must be a time such as 90s, 5m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in matched.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise ValueError("must be longer than 0 seconds")
    return total
