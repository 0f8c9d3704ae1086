"""Per-session databases in a store, which are dropped on any exit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from pytest_otel_diag.daemon import start_thread
from pytest_otel_diag.errors import TelemetryError

T = TypeVar("T")

LAST_DROPS_S = 10.0
"""How long the exit of a process waits to drop the remaining databases."""


class PrivateDatabases:
    """The per-session databases of one store; thread-safe.

    A name is registered before its database is created and until it is dropped. Failed drops are repeated
    with each later drop and at the end, together with the databases of sessions that never ended.
    """

    def __init__(self, drop: Callable[[str], None]) -> None:
        self._drop = drop
        self._lock = threading.Lock()
        self._over: dict[str, bool] = {}

    def add(self, name: str) -> str:
        """Register a database before its creation; return its name."""
        with self._lock:
            self._over[name] = False
        return name

    def drop(self, name: str) -> None:
        """Drop the database of an ended session (blocking); a missing database is no error.

        Also repeats earlier failed drops. Raises TelemetryError when the drop fails.
        """
        with self._lock:
            if name not in self._over:
                return
            self._over[name] = True
        self._dropped(name)
        with suppress(TelemetryError):  # reported at the first failure
            for earlier in self._names(over=True):
                self._dropped(earlier)

    def drop_all(self, timeout_s: float = LAST_DROPS_S) -> tuple[str, ...]:
        """Drop all databases, also of running sessions; return those that could not be dropped in time.

        The engine cannot be interrupted, so remaining drops continue in a daemon thread.
        """
        if not self._names():
            return ()
        start_thread(self._drop_each, "otel-diag-drop").join(timeout_s)
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
    """Run *make* and *release* in threads, each to its end, also under cancellation.

    *release* gets None when *make* failed. A first cancellation propagates after both, a second one at
    once. Raises the errors of both.
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
