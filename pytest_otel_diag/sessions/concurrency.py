"""State that the sessions of one target share in this process: turns, and whether the target recovered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.ports import Target
from pytest_otel_diag.sessions.impact.recovery import RecoveryGoal


@dataclass(frozen=True)
class Unrecovered:
    """An incident that the target had not recovered from when its session ended.

    ``cause`` names it for the next session, which looks again at telemetry since ``since_ns``.
    """

    cause: str
    goal: RecoveryGoal
    since_ns: Nanos


@dataclass
class TargetState:
    """State of one target in this process."""

    unrecovered: Unrecovered | None = None
    _places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = field(
        default_factory=WeakKeyDictionary
    )

    @asynccontextmanager
    async def turn(self, most: int | None, waits: Callable[[str], None]) -> AsyncIterator[None]:
        """Hold one of *most* places (None: no limit), in order of arrival.

        *waits* gets the reason of the wait, and '' when it is over.
        """
        if most is None:
            yield
            return
        places = self._places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(most))
        if places.locked():
            waits("another session of this process")
        async with places:
            waits("")
            yield


_STATES: WeakKeyDictionary[object, TargetState] = WeakKeyDictionary()


def state_of(target: Target) -> TargetState:
    """Return the state that all engines over targets of this identity share."""
    return _STATES.setdefault(target.identity, TargetState())
