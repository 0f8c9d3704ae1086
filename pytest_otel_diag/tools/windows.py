"""Windows as arguments and results of tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from pytest_otel_diag.model.base import Model, Nanos
from pytest_otel_diag.model.windows import Window, iso
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.tools.contract import ToolError

_ALLOWED = '"incident", "baseline", "reference" or {"start_ns": …, "end_ns": …} in UTC nanoseconds'
_ROUNDED_NS = 1_000_000
"""Nanoseconds by which a bound may lie outside: clients that hold numbers as doubles round them by 256."""

_NANOSECONDS_FROM = 10**17
"""Smaller instants (before 1973) are seconds, milliseconds or microseconds written by mistake."""

Name = Literal["incident", "baseline", "reference"]


class Period(Model):
    """A window by its bounds."""

    start_ns: Nanos = Field(description="Start, UTC nanoseconds since 1970.")
    end_ns: Nanos = Field(description="End (exclusive), UTC nanoseconds since 1970.")


def _read(value: Any) -> Any:
    """Return a name or a period; raises ValueError for anything else."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("incident", "baseline", "reference"):
            return text.lower()
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"a window is {_ALLOWED}") from None
    if not isinstance(value, Mapping | Period):
        raise ValueError(f"a window is {_ALLOWED}")
    try:
        return Period.model_validate(value)
    except ValidationError:
        raise ValueError(f"a window is {_ALLOWED}") from None


WindowArgument = Annotated[Name | Period, BeforeValidator(_read)]
"""A window of the investigation by name, or a period of the session's time."""

WINDOW_TEXT = 'Window: "incident", "baseline", "reference", or {"start_ns": …, "end_ns": …} (UTC ns).'
AGAINST_TEXT = "Window to compare with, in the same form; default: baseline, without one reference."


class Shown(Model):
    """A window in a result: ``start_ns`` is part of it, ``end_ns`` is not.

    Where it consists of several, these are the bounds of all, and ``seconds`` is the time inside of them.
    """

    name: str
    start_ns: Nanos
    end_ns: Nanos
    start_utc: str
    end_utc: str
    seconds: float
    windows: int = 1


def shown(wanted: Name | Period, windows: Sequence[Window]) -> Shown:
    """Return the windows, one at least, for a result."""
    start_ns = min(window.start_ns for window in windows)
    end_ns = max(window.end_ns for window in windows)
    return Shown(
        name=wanted if isinstance(wanted, str) else "period",
        start_ns=start_ns,
        end_ns=end_ns,
        start_utc=iso(start_ns),
        end_utc=iso(end_ns),
        seconds=round(seconds(windows), 3),
        windows=len(windows),
    )


def seconds(windows: Sequence[Window]) -> float:
    """Return the length of the windows together."""
    return sum(window.duration_s for window in windows)


def session_bounds(investigation: Investigation) -> Window:
    """Return the time from the start of the first window of the investigation to the end of the last."""
    windows = [investigation.incident, *_optional(investigation), *investigation.reference]
    return Window(start_ns=min(one.start_ns for one in windows), end_ns=max(one.end_ns for one in windows))


def _optional(investigation: Investigation) -> tuple[Window, ...]:
    return () if investigation.baseline is None else (investigation.baseline,)


def windows_of(investigation: Investigation, wanted: Name | Period) -> tuple[Window, ...]:
    """Return the windows that the argument means; raises ToolError for those that there are not."""
    if isinstance(wanted, Period):
        return (_period(investigation, wanted),)
    named = {
        "incident": (investigation.incident,),
        "baseline": _optional(investigation),
        "reference": investigation.reference,
    }
    if not named[wanted]:
        there = ", ".join(name for name, windows in named.items() if windows)
        raise ToolError(f"this investigation has no {wanted} window; it has {there}")
    return named[wanted]


def _period(investigation: Investigation, period: Period) -> Window:
    bounds = session_bounds(investigation)
    session = f"{bounds.start_ns} to {bounds.end_ns} ({bounds})"
    if 0 < period.start_ns < _NANOSECONDS_FROM:
        raise ToolError(
            f"start_ns={period.start_ns} is no instant of the session in nanoseconds; "
            f"the session covers {session}"
        )
    if period.start_ns >= period.end_ns:
        raise ToolError(
            f"the window from start_ns={period.start_ns} to end_ns={period.end_ns} holds no time; "
            "start_ns must be before end_ns"
        )
    if period.start_ns < bounds.start_ns - _ROUNDED_NS or period.end_ns > bounds.end_ns + _ROUNDED_NS:
        raise ToolError(
            f"the window from {period.start_ns} to {period.end_ns} lies outside of the session, "
            f"which covers {session}; stay within it"
        )
    return Window(start_ns=max(period.start_ns, bounds.start_ns), end_ns=min(period.end_ns, bounds.end_ns))


def compared(
    investigation: Investigation, window: Name | Period, against: Name | Period | None
) -> tuple[Shown, Shown, tuple[Window, ...], tuple[Window, ...]]:
    """Return both sides of a comparison, for the result and as windows; the second without the first.

    Raises ToolError where nothing is left to compare with.
    """
    if against is None:
        against = "baseline" if investigation.baseline is not None else "reference"
    after = windows_of(investigation, window)
    before = tuple(piece for one in windows_of(investigation, against) for piece in one.minus(after))
    if not before:
        raise ToolError("window and against are the same time; name another window in against")
    return shown(window, after), shown(against, before), after, before
