"""What the rest of a wait can still bring: when enough calls will be there, and whether any can be enough.

Rates are those seen so far. Where a wait is called hopeless the rate is taken as high as it may well be:
three calls more than were counted, which is where the 95 % bound of a Poisson count of zero lies.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_otel_diag.sessions.impact.assess import Comparison
from pytest_otel_diag.stats.two_sample import Load, calls_needed

_MORE = 3
_RATE_CALLS = 10
"""Calls from which a changed request rate could show; see :func:`.exposure.rate_p`."""


def hopeless(comparison: Comparison, seen: Mapping[str, Load], wait_s: float) -> bool:
    """Whether by the end of a wait of *wait_s* seconds not even a fault that fails every call can show.

    Says no wherever something else than the calls of services may show it: operations, metrics, logs.
    """
    watched = comparison.quiet.watched
    if watched.operations or watched.metrics or watched.logs:
        return False
    return not any(
        _may_show(comparison, before, seen.get(name), wait_s)
        for name, before in comparison.loads.items()
        if name in comparison.watched and before.calls and before.seconds > 0
    )


def _may_show(comparison: Comparison, before: Load, seen: Load | None, wait_s: float) -> bool:
    so_far, passed_s = (seen.calls, seen.seconds) if seen is not None else (0, 0.0)
    rate = (before.calls + _MORE) / before.seconds
    most = so_far + rate * max(0.0, wait_s - passed_s)
    if most >= _RATE_CALLS or rate * wait_s >= _RATE_CALLS:
        return True
    strongest = calls_needed(before, effect=1.0, alpha=comparison.alpha, power=comparison.power)
    return strongest is not None and most >= strongest
