"""The verdict of one look at telemetry: the clearest deviation, or the reason why none is visible.

Pure functions of a :class:`Comparison` and a :class:`Measurement`. The reasons come with the number of calls
behind them and, at the rates seen so far, the time until there will be enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.session import Impact, ImpactReason
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.sessions.impact.comparison import Comparison
from pytest_otel_diag.sessions.impact.deviations import Measurement, all_deviations
from pytest_otel_diag.sessions.impact.evidence import Deviation, EvidenceBaseline
from pytest_otel_diag.sessions.impact.watchlist import Observed
from pytest_otel_diag.stats.metric_shift import LEAST_POINTS
from pytest_otel_diag.stats.two_sample import LEAST_EXPECTED_CALLS, Load

_POISSON_MARGIN = 3
"""Calls added to a count for the highest rate that it may still mean: the 95 % bound of a count of zero."""


def looks(timing: Timing, timeout_s: float) -> int:
    """Return how often a wait of *timeout_s* seconds looks at telemetry, at least once."""
    return max(1, -(-seconds_to_ns(timeout_s) // seconds_to_ns(timing.impact_poll_s)))


def assess(comparison: Comparison, seen: Measurement, found: Sequence[Deviation] | None = None) -> Impact:
    """Return VISIBLE with the clearest deviation, or the reason why there is none.

    *found* are the deviations, where the caller has them already.
    """
    deviations = all_deviations(comparison, seen) if found is None else found
    focus = _Focus.of(comparison, seen, _busiest(comparison, seen.loads))
    if deviations:
        best = min(deviations, key=lambda deviation: deviation.strength)
        return Impact(
            reason=ImpactReason.VISIBLE,
            service=best.service,
            signal=best.signal,
            detail=best.detail,
            calls_seen=focus.calls,
            calls_needed=focus.needed or 0,
        )
    reason, detail = focus.reason()
    rare = _rarest(comparison, seen) if reason is ImpactReason.NO_EFFECT else None
    if rare is not None:  # many calls of a busy caller say little about the rare calls behind it
        focus = rare
        reason, detail = focus.reason()
    if seen.observed is not None:
        reason, detail = _with_metrics(comparison.evidence, seen.observed, reason, detail)
    return Impact(
        reason=reason,
        service=focus.service,
        detail=detail,
        calls_seen=focus.calls,
        calls_needed=focus.needed or 0,
        eta_s=focus.eta_s,
    )


@dataclass(frozen=True)
class _Focus:
    """The service that a missing impact is explained by, with its loads and the calls it needs."""

    service: str | None
    before: Load | None
    after: Load | None
    calls: int
    needed: int | None

    @classmethod
    def of(cls, comparison: Comparison, seen: Measurement, service: str | None) -> _Focus:
        before = comparison.loads.get(service) if service is not None else None
        after = seen.loads.get(service) if service is not None else None
        return cls(service, before, after, seen.calls(service), comparison.calls_needed(service))

    @property
    def eta_s(self) -> float | None:
        """Seconds until the calls needed will have been made, at the rate before and since together."""
        if self.needed is None or self.before is None:
            return None
        known = [load for load in (self.before, self.after) if load is not None]
        seconds = sum(load.seconds for load in known)
        calls = sum(load.calls for load in known)
        missing = max(0, self.needed - self.calls)
        return missing * seconds / calls if calls else None

    def reason(self) -> tuple[ImpactReason, str]:
        """Return why no impact is visible, with its sentence."""
        name = self.service or "any service"
        when = "" if self.eta_s is None else f", the rest at the rate seen in about {self.eta_s:.0f} s"
        if not self.calls:
            wanted = "" if self.needed is None else f"; needs about {self.needed}{when}"
            return ImpactReason.NO_TRAFFIC, f"no call of {name} since the fault began{wanted}"
        if self.before is None:
            return ImpactReason.NO_EFFECT, f"nothing to compare with: no baseline telemetry of {name}"
        if self.needed is None:
            return (
                ImpactReason.TOO_RARE,
                f"{self.before.calls} baseline calls of {name} are too few to compare with; "
                "lengthen baseline_s",
            )
        if self.calls < self.needed:
            return (
                ImpactReason.TOO_RARE,
                f"needs about {self.needed} calls of {name}, has {self.calls}{when}; "
                "lengthen impact_timeout_s or drive traffic",
            )
        return ImpactReason.NO_EFFECT, f"{self.calls} calls of {name} look like the baseline"


def _busiest(comparison: Comparison, after: Mapping[str, Load]) -> str | None:
    """Return the busiest expected service, of all services when none is expected."""
    names = comparison.expected or frozenset(comparison.loads) | frozenset(after)

    def calls(name: str) -> tuple[int, int, str]:
        now, before = after.get(name), comparison.loads.get(name)
        return (now.calls if now else 0, before.calls if before else 0, name)

    return max(names, key=calls, default=None)


def _rarest(comparison: Comparison, seen: Measurement) -> _Focus | None:
    """Return the expected service that lacks the largest share of the calls it needs.

    A service without any call since is left out: the fault itself may have cut it off.
    """
    focuses = [
        _Focus.of(comparison, seen, name)
        for name in sorted(comparison.expected & comparison.loads.keys() & seen.loads.keys())
    ]
    short = [one for one in focuses if one.needed is not None and 0 < one.calls < one.needed]
    return min(short, key=lambda one: one.calls / (one.needed or 1), default=None)


def _with_metrics(
    baseline: EvidenceBaseline, observed: Observed, reason: ImpactReason, detail: str
) -> tuple[ImpactReason, str]:
    """Return the reason once the watched metrics are taken into account."""
    if not baseline.watched.metrics:
        return reason, detail
    names = ", ".join(dict.fromkeys(watch.service for watch in baseline.watched.metrics))
    before, now = baseline.points(baseline.before), baseline.points(observed)
    if not before and not now:
        return reason, detail  # the metrics are as silent as the calls
    if reason is not ImpactReason.NO_TRAFFIC:
        return reason, f"{detail}; of its metrics {now} points"
    if before < LEAST_POINTS:
        return (
            ImpactReason.TOO_RARE,
            f"{before} points of the metrics of {names} before the fault are too few to compare with; "
            "lengthen baseline_s",
        )
    if not now:
        return ImpactReason.NOT_YET_EXPORTED, f"no point of the metrics of {names} since the fault began"
    return ImpactReason.NO_EFFECT, f"{now} points of the metrics of {names} look like the {before} before"


def hopeless(comparison: Comparison, seen: Mapping[str, Load], wait_s: float) -> bool:
    """Whether not even a fault that fails every call can show by the end of a wait of *wait_s* seconds.

    False wherever operations, metrics or logs may show the fault. Rates are taken as high as the counts may
    still mean.
    """
    watched = comparison.evidence.watched
    if watched.operations or watched.metrics or watched.logs:
        return False
    return not any(
        _may_show(comparison, name, seen.get(name), wait_s)
        for name, before in comparison.loads.items()
        if name in comparison.watched and before.calls and before.seconds > 0
    )


def _may_show(comparison: Comparison, service: str, seen: Load | None, wait_s: float) -> bool:
    before = comparison.loads[service]
    calls, passed_s = (seen.calls, seen.seconds) if seen is not None else (0, 0.0)
    rate = (before.calls + _POISSON_MARGIN) / before.seconds
    most = calls + rate * max(0.0, wait_s - passed_s)
    if most >= LEAST_EXPECTED_CALLS or rate * wait_s >= LEAST_EXPECTED_CALLS:
        return True  # a changed request rate could show
    strongest = comparison.calls_needed(service, effect=1.0)
    return strongest is not None and most >= strongest
