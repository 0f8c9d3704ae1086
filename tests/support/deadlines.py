"""Waiting without depending on how fast the machine is.

A deadline only decides how late a broken test fails, so every one is generous and scales with the environment
variable ``OTEL_DIAG_TEST_SLOWNESS``. Tests of time limits move the clock instead of waiting for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

SLOWNESS = float(os.environ.get("OTEL_DIAG_TEST_SLOWNESS", "4"))
"""How many times slower than an idle laptop this machine may be."""

_POLL_S = 0.01


def deadline_s(seconds: float) -> float:
    """Return how long to wait for something that takes less than *seconds* on an idle laptop."""
    return seconds * SLOWNESS


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Return the result of *condition* once it is true, or its last one after ``deadline_s(seconds)``."""
    deadline = time.monotonic() + deadline_s(seconds)
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return found


async def eventually_async(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Return the result of *condition* once it is true, while other tasks run; see :func:`eventually`."""
    deadline = time.monotonic() + deadline_s(seconds)
    while not (found := condition()) and time.monotonic() < deadline:  # noqa: ASYNC110 - any condition
        await asyncio.sleep(_POLL_S)
    return found


class LoopClock:
    """The clock of the running event loop, which a test can advance so that timeouts expire at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._real = self._loop.time
        self.ahead_s = 0.0
        self._loop.time = lambda: self._real() + self.ahead_s  # type: ignore[method-assign]  # that is the point

    def advance(self, seconds: float) -> None:
        """Advance the clock, from any thread."""
        self.ahead_s += seconds
        self._loop.call_soon_threadsafe(lambda: None)  # wakes the loop, which looks at its timers

    async def skip(self, seconds: float) -> None:
        """Advance the clock and let everything run that is due by then."""
        self.advance(seconds)
        for _ in range(5):
            await asyncio.sleep(0)

    async def hang(self, seconds: float) -> None:
        """Advance the clock, then wait until cancelled."""
        self.advance(seconds)
        await asyncio.Event().wait()
