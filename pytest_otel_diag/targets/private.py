"""What sessions make for themselves in a store: none of it stays, whoever is cancelled, whatever fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from pytest_otel_diag.errors import TelemetryError

T = TypeVar("T")

LAST_DROPS_S = 10.0
"""How long the end of a process waits for what could not be dropped before."""


class PrivateDatabases:
    """The databases that sessions made for themselves in one store; safe from several threads.

    A name is known from before its database is made until it is dropped. What cannot be dropped is tried
    again with every later drop, and at the end, together with what sessions that never ended left.
    """

    def __init__(self, drop: Callable[[str], None]) -> None:
        self._drop = drop
        self._lock = threading.Lock()
        self._over: dict[str, bool] = {}

    def add(self, name: str) -> str:
        """Remember a database that is about to be made; return its name."""
        with self._lock:
            self._over[name] = False
        return name

    def drop(self, name: str) -> None:
        """Drop the database of a session that is over (blocking); one that is gone already is no error.

        Raises the TelemetryError that kept it from being dropped. Earlier ones that are left are tried too.
        """
        with self._lock:
            if name not in self._over:
                return
            self._over[name] = True
        self._dropped(name)
        with suppress(TelemetryError):  # told when it happened first
            for earlier in self._names(over=True):
                self._dropped(earlier)

    def drop_all(self, timeout_s: float = LAST_DROPS_S) -> tuple[str, ...]:
        """Drop all that are left, running sessions' too; return those that could not be dropped in time.

        The engine cannot be interrupted: what still waits then is left to a daemon thread.
        """
        if not self._names():
            return ()
        work = threading.Thread(target=self._drop_each, daemon=True, name="otel-diag-drop")
        work.start()
        work.join(timeout_s)
        return self._names()

    def _drop_each(self) -> None:
        for name in self._names():
            with suppress(TelemetryError):
                self._dropped(name)

    def _dropped(self, name: str) -> None:
        self._drop(name)
        with self._lock:
            self._over.pop(name, None)

    def _names(self, *, over: bool = False) -> tuple[str, ...]:
        with self._lock:
            return tuple(name for name, ended in self._over.items() if ended or not over)


@asynccontextmanager
async def held(make: Callable[[], T], release: Callable[[T | None], None]) -> AsyncIterator[T]:
    """Make something in a thread, and release it in one: both run to their end, whoever is cancelled.

    *release* gets None when *make* failed. A first cancellation is passed on once both are done, a second one
    at once. Raises what the two raise.
    """
    loop = asyncio.get_running_loop()
    making = loop.run_in_executor(None, make)
    try:
        yield await asyncio.shield(making)
    finally:
        await asyncio.shield(loop.create_task(_released(making, release)))


async def _released(making: asyncio.Future[T], release: Callable[[T | None], None]) -> None:
    await asyncio.wait([making])
    made = making.result() if making.exception() is None else None
    await asyncio.get_running_loop().run_in_executor(None, release, made)
