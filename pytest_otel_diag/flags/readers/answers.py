"""Shared by all readers: the same errors and the same value types for every protocol."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_otel_diag.errors import FlagError, nearest
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.flags import FlagValue, ServedFlag


class NotEvaluated(FlagError):
    """The service answered without a value: the flag is unknown, disabled or broken."""


class UnnamedAnswer(NotEvaluated):
    """The service answered with *value* but named no variant, which OFREP allows."""

    def __init__(self, text: str, value: Any) -> None:
        super().__init__(text)
        self.value = value


class UnknownFlag(NotEvaluated):
    """The service has no flag of that name."""


class FlagDisabled(NotEvaluated):
    """The flag is disabled, so services use their own defaults."""


def wall_ns() -> Nanos:
    """Return this machine's time in UTC nanoseconds; the default clock."""
    return time.time_ns()


def unknown(key: str, known: Iterable[str], name: str) -> UnknownFlag:
    """Return the error for an unknown flag; *known* are the existing names, if known."""
    names = sorted(known)
    choice = f"; known flags: {', '.join(names)}" if names else ""
    return UnknownFlag(f"{name} serves no flag {key!r}{nearest(key, names)}{choice}")


def disabled(key: str, name: str) -> FlagDisabled:
    """Return the error for a disabled flag."""
    return FlagDisabled(
        f"{name} has no value for flag {key!r}, which is DISABLED: services use their own defaults; "
        "set its state to ENABLED"
    )


def no_variant(key: str, context: Mapping[str, FlagValue], name: str) -> NotEvaluated:
    """Return the error for an answer without a variant."""
    return NotEvaluated(
        f"{name} has no variant of flag {key!r} for the context {dict(context)}: services use their own "
        "defaults; check its default variant and targeting"
    )


def not_evaluated(
    key: str, context: Mapping[str, FlagValue], name: str, code: str, message: str
) -> NotEvaluated:
    """Return the error for an evaluation that was refused with *code* and *message*."""
    return NotEvaluated(
        f"flag {key!r} cannot be evaluated by {name} in the context {dict(context)}: {code}, "
        f"{message}; its targeting may name a variant that it does not have"
    )


def served_flag(key: str, variant: str, value: Any, name: str, *, at_ns: Nanos) -> ServedFlag:
    """Return the answer; raises NotEvaluated for a value that no flag can have, such as an array."""
    if not isinstance(value, bool | int | float | str | dict):
        raise NotEvaluated(
            f"{name} answered {variant!r} for flag {key!r} with the value {value!r}; supported are booleans, "
            "numbers, strings and objects"
        )
    return ServedFlag(key=key, variant=variant, value=value, at_ns=at_ns)


def number(value: Any) -> int | float | None:
    """Return the number in a protocol's value; None for anything else.

    Protocols write integers as text or floats, so ``"100"`` and ``100.0`` are 100.
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
    """Return the value with whole floats as integers, recursively, since JSON does not distinguish them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
