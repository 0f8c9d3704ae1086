"""Why an impact is not seen: in words, with the number of calls behind it."""

from __future__ import annotations

from pytest_otel_diag.model.session import ImpactReason
from pytest_otel_diag.stats.two_sample import Load


def remaining_s(before: Load | None, after: Load | None, needed: int | None) -> float | None:
    """Return in how many seconds the calls needed will be there, at the rate before and since together."""
    if needed is None or before is None:
        return None
    known = [load for load in (before, after) if load is not None]
    seconds = sum(load.seconds for load in known)
    calls = sum(load.calls for load in known)
    missing = max(0, needed - (after.calls if after is not None else 0))
    return missing * seconds / calls if calls else None


def why_not(
    focus: str | None, before: Load | None, calls: tuple[int, int | None], eta_s: float | None
) -> tuple[ImpactReason, str]:
    """Return the reason and its sentence; *calls* are those seen and those needed."""
    name, (seen, needed) = focus or "any service", calls
    when = "" if eta_s is None else f", the rest at the rate seen in about {eta_s:.0f} s"
    if not seen:
        wanted = "" if needed is None else f"; needs about {needed}{when}"
        return ImpactReason.NO_TRAFFIC, f"no call of {name} since the fault began{wanted}"
    if before is None:
        return ImpactReason.NO_EFFECT, f"nothing to compare with: no baseline telemetry of {name}"
    if needed is None:
        return (
            ImpactReason.TOO_RARE,
            f"{before.calls} baseline calls of {name} are too few to compare with; lengthen baseline_s",
        )
    if seen < needed:
        return (
            ImpactReason.TOO_RARE,
            f"needs about {needed} calls of {name}, has {seen}{when}; lengthen impact_timeout_s or drive "
            "traffic",
        )
    return ImpactReason.NO_EFFECT, f"{seen} calls of {name} look like the baseline"
