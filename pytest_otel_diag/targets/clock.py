"""Clocks of targets: wall time, and virtual time that passes instantly."""

from __future__ import annotations

import asyncio
import time

from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import seconds_to_ns


class WallClock:
    """The clock of this machine."""

    def now(self) -> Nanos:
        """Return UTC nanoseconds."""
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        """Wait for *seconds* of real time."""
        await asyncio.sleep(_checked(seconds))


class VirtualClock:
    """Virtual time that advances only by sleeping; one per session and event loop."""

    def __init__(self, start_ns: Nanos) -> None:
        self._now_ns = start_ns

    def now(self) -> Nanos:
        """Return the virtual instant in UTC nanoseconds."""
        return self._now_ns

    async def sleep(self, seconds: float) -> None:
        """Advance virtual time by *seconds* and yield to other tasks; no real time passes."""
        self._now_ns += seconds_to_ns(_checked(seconds))
        await asyncio.sleep(0)

    async def sleep_until(self, instant_ns: Nanos) -> None:
        """Advance time to the instant; does nothing when it has passed."""
        self._now_ns = max(self._now_ns, instant_ns)
        await asyncio.sleep(0)


def _checked(seconds: float) -> float:
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"cannot sleep {seconds} s; give a finite number of seconds from 0")
    return seconds
