"""Watches flags and yields every change of what is written and what is served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags.controller import SurfaceFlags
from pytest_otel_diag.operations.flag_overview import Context, FlagOverview, overview

ServedKey = tuple[str, str]
"""A flag and the context in which it was evaluated, as text."""


@dataclass(frozen=True)
class FlagSnapshot:
    """The flags at one moment: variants written by flag, served by flag and context.

    ``on`` lists flags that are not as shipped. ``problem`` says what could not be read, empty when all could.
    """

    written: Mapping[str, str] = field(default_factory=dict)
    served: Mapping[ServedKey, str] = field(default_factory=dict)
    on: tuple[str, ...] = ()
    problem: str = ""

    def filled_from(self, before: FlagSnapshot) -> FlagSnapshot:
        """Return this snapshot with what could not be read as it was *before*, so a gap hides no change."""
        return FlagSnapshot(
            self.written or before.written, self.served or before.served, self.on, self.problem
        )


@dataclass(frozen=True)
class VariantChanged:
    """A flag is written or served with another variant; None where it was, or is, absent.

    ``context`` is the context in which it was evaluated, as text.
    """

    flag: str
    what: Literal["written", "served"]
    before: str | None
    after: str | None
    context: str = ""


@dataclass(frozen=True)
class ReadingChanged:
    """The flags cannot be read any more, for the reason ``problem``, or can again (empty)."""

    problem: str


WatchEvent = FlagSnapshot | VariantChanged | ReadingChanged
"""The first snapshot, then changes."""


async def watch(
    flags: SurfaceFlags,
    *,
    every_s: float,
    for_s: float | None = None,
    clock_s: Callable[[], float] = time.monotonic,
) -> AsyncIterator[WatchEvent]:
    """Yield a snapshot, then every change; read every *every_s* seconds for *for_s*, endlessly for None."""
    until_s = None if for_s is None else clock_s() + for_s
    before = await snapshot(flags)
    yield before
    while until_s is None or clock_s() < until_s:
        await asyncio.sleep(every_s if until_s is None else min(every_s, max(0.0, until_s - clock_s())))
        after = await snapshot(flags)
        for change in changes(before, after):
            yield change
        before = after.filled_from(before)


async def snapshot(flags: SurfaceFlags) -> FlagSnapshot:
    """Read the flags once; ``problem`` says what could not be read."""
    try:
        found = await overview(flags)
    except FlagError as error:
        return FlagSnapshot(problem=f"not readable: {error}")
    written = {row.flag: row.written for row in found.rows if row.written}
    problem = f"not served: {found.unserved}" if found.unserved else ""
    return FlagSnapshot(written, _served(found), found.comparison.on, problem)


def _served(found: FlagOverview) -> dict[ServedKey, str]:
    return {
        (row.flag, _as_text(answer.context)): answer.variant or "nothing"
        for row in found.rows
        for answer in row.answers
    }


def _as_text(context: Context) -> str:
    return ", ".join(f"{key}={value}" for key, value in context.items())


def changes(before: FlagSnapshot, after: FlagSnapshot) -> Iterator[VariantChanged | ReadingChanged]:
    """Yield every change between two snapshots; a lasting problem is one change."""
    if after.problem != before.problem:
        yield ReadingChanged(after.problem)
    if after.written:
        for flag in dict.fromkeys((*before.written, *after.written)):
            old, new = before.written.get(flag), after.written.get(flag)
            if old != new:
                yield VariantChanged(flag, "written", old, new)
    if after.served:
        for flag, context in dict.fromkeys((*before.served, *after.served)):
            old, new = before.served.get((flag, context)), after.served.get((flag, context))
            if old != new:
                yield VariantChanged(flag, "served", old, new, context)
