"""What readers of served flags share: errors in the same words, values in the same types."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_otel_diag.errors import FlagError, nearest
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagValue


class NotEvaluated(FlagError):
    """The service is there, and has no value to tell: what is asked is unknown, disabled or broken."""


class UnknownFlag(NotEvaluated):
    """The service knows no flag of that name."""


class FlagDisabled(NotEvaluated):
    """The flag is there and answers nothing: services use their own defaults."""


def wall_ns() -> Nanos:
    """Return the time of this machine in UTC nanoseconds, where nobody gave a clock."""
    return time.time_ns()


def unknown(key: str, known: Iterable[str], name: str) -> UnknownFlag:
    """Return the error for a flag that is not there; *known* are the names that are, none when not known."""
    names = sorted(known)
    there = f"; there are {', '.join(names)}" if names else ""
    return UnknownFlag(f"{name} serves no flag {key!r}{nearest(key, names)}{there}")


def disabled(key: str, name: str) -> FlagDisabled:
    """Return the error for a flag that is switched off as such."""
    return FlagDisabled(
        f"{name} answers nothing for flag {key!r}, it is DISABLED: services use their own defaults; "
        "set its state to ENABLED"
    )


def no_variant(key: str, context: Mapping[str, FlagValue], name: str) -> NotEvaluated:
    """Return the error for an answer without a variant: services then use their own defaults."""
    return NotEvaluated(
        f"{name} answers no variant of flag {key!r} for the context {dict(context)}: services use their own "
        "defaults; check its default variant and targeting"
    )


def number(value: Any) -> int | float | None:
    """Return a number that a protocol may have written as text or as a float; None for anything else.

    ``"100"`` and ``100.0`` are 100: protocols write integers either way.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    if isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    if isinstance(value, int):
        return value
    return int(found) if found.is_integer() else found


def plain(value: Any) -> Any:
    """Return an object with whole floats as integers, all the way down: JSON does not tell them apart."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
