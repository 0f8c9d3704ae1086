"""Traffic that a session asks its target for when the system's own calls are too few to show the fault."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_otel_diag.ports import Traffic
from pytest_otel_diag.sessions.impact.comparison import Comparison
from pytest_otel_diag.stats.two_sample import Load

_GROWTH = 3.0
"""Driven traffic is at most this multiple of the usual one."""

_LEAST_CALLS = 5
"""Calls that may be driven at once however rare the usual ones are."""

_CALLS_TO_LEARN = 10
"""Calls to drive where the baseline does not say how many are needed."""

_MARGIN = 1.1
"""Factor on the calls needed: forecasts are inexact, and the last calls are not exported in time."""


@dataclass
class TrafficDriver:
    """Asks the target for missing calls, *most* at most over the whole wait; ``calls`` were asked for."""

    traffic: Traffic
    comparison: Comparison
    most: int
    calls: int = 0
    refused: bool = False

    @property
    def exhausted(self) -> bool:
        """Whether no more calls can be had: the target makes none, or the most were made."""
        return self.refused or self.calls >= self.most

    async def drive(self, seen: Mapping[str, Load], *, remaining_s: float, step_s: float) -> None:
        """Ask for some of the calls that will be missing *remaining_s* seconds from now.

        Called every *step_s* seconds. Several times the usual traffic at once would slow services down, and
        that would look like an impact.
        """
        missing = shortages(self.comparison, seen, remaining_s)
        if self.refused or not missing:
            return
        rates = [self.comparison.loads[name].rate for name in missing if name in self.comparison.loads]
        at_once = max(_LEAST_CALLS, math.ceil(_GROWTH * max(rates, default=0.0) * step_s))
        wanted = min(max(missing.values()), at_once, self.most - self.calls)
        if wanted <= 0:
            return
        tried = await self.traffic.drive(sorted(missing), wanted)
        self.calls += tried
        self.refused = tried == 0


def shortages(comparison: Comparison, seen: Mapping[str, Load], remaining_s: float) -> dict[str, int]:
    """Return how many calls each expected service will lack in *remaining_s* seconds, where it lacks any."""
    missing = {}
    for name in comparison.expected:
        before = comparison.loads.get(name)
        forecast = (before.rate if before else 0.0) * max(0.0, remaining_s)
        forecast += seen[name].calls if name in seen else 0
        missing[name] = math.ceil(_MARGIN * (_wanted(comparison, name) - forecast))
    return {name: calls for name, calls in missing.items() if calls > 0}


def _wanted(comparison: Comparison, service: str) -> int:
    """Return the calls that show the smallest effect which the baseline allows to be seen at all."""
    for effect in (comparison.effect, 0.5, 1.0):
        needed = comparison.reachable(service, effect)
        if needed is not None:
            return needed
    return _CALLS_TO_LEARN
