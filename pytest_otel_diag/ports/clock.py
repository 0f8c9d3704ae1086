"""The port to time."""

from __future__ import annotations

from typing import Protocol

from pytest_otel_diag.model.base import Nanos


class Clock(Protocol):
    """Wall clock or virtual time."""

    def now(self) -> Nanos:
        """Return the current instant."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once *seconds* have passed on this clock."""
        ...
