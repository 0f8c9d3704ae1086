"""What engines over one target share: whose turn it is, and whether the target is well.

A target is told from others by identity; one that stands for another names it in ``wrapped``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.ports import Target
from pytest_otel_diag.sessions.impact.assess import Comparison


@dataclass(frozen=True)
class Unwell:
    """What a session left behind: ``cause`` is told to the next one, which looks again since ``since_ns``."""

    cause: str
    comparison: Comparison
    timing: Timing
    since_ns: Nanos


@dataclass
class Shared:
    """State of one target in this process."""

    unwell: Unwell | None = None
    _turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = field(
        default_factory=WeakKeyDictionary
    )

    @asynccontextmanager
    async def turn(self, most: int | None, tell: Callable[[str], None]) -> AsyncIterator[None]:
        """Hold one of *most* places (None: no limit), in order of arrival; *tell* gets what is waited for."""
        if most is None:
            yield
            return
        places = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(most))
        if places.locked():
            tell("another session of this process")
        async with places:
            tell("")
            yield


_SHARED: WeakKeyDictionary[Target, Shared] = WeakKeyDictionary()


def shared_of(target: Target) -> Shared:
    """Return what all engines over the target share; a target that cannot be a key shares nothing."""
    try:
        return _SHARED.setdefault(getattr(target, "wrapped", target), Shared())
    except TypeError:
        return Shared()
