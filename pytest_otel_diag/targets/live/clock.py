"""The clock of a live session: this machine's, shifted to the clock that stamps telemetry."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.targets.clock import WallClock

TOLERATED_S = 1.0
"""Clocks that differ by less count as equal, as those of the hosts of one system do."""

_ROUNDS = 5


class LiveClock(WallClock):
    """Wall time plus *offset_ns*, constant for a session."""

    def __init__(self, offset_ns: Nanos = 0, *, wall: Callable[[], Nanos] = time.time_ns) -> None:
        self.offset_ns = offset_ns
        self._wall = wall

    def now(self) -> Nanos:
        """Return UTC nanoseconds as the telemetry's hosts count them."""
        return self._wall() + self.offset_ns


@dataclass(frozen=True, slots=True)
class Offset:
    """How far another clock is ahead of ours (negative: behind), and the error of the measurement."""

    offset_ns: Nanos
    error_ns: Nanos

    @property
    def offset_s(self) -> float:
        """The offset in seconds."""
        return self.offset_ns / NANOS_PER_SECOND

    @property
    def matters(self) -> bool:
        """Whether windows on our clock would miss the telemetry they are meant for."""
        return abs(self.offset_ns) > TOLERATED_S * NANOS_PER_SECOND + self.error_ns

    def __str__(self) -> str:
        return f"{self.offset_s:+.3f} s (± {self.error_ns / NANOS_PER_SECOND:.3f} s)"


def measured(other: Callable[[], Nanos], *, wall: Callable[[], Nanos] = time.time_ns) -> Offset:
    """Return the offset of the clock that *other* reads (blocking), by the fastest of a few reads.

    The clock was read some time during the request, so the error is half of the request's duration.
    """
    best: Offset | None = None
    for _ in range(_ROUNDS):
        before_ns = wall()
        read_ns = other()
        after_ns = wall()
        half_ns = max(0, after_ns - before_ns) // 2
        if best is None or half_ns < best.error_ns:
            best = Offset(read_ns - before_ns - half_ns, half_ns)
    assert best is not None
    return best
