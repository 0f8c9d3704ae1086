"""The verdict of one look at telemetry: the deviation that shows the fault, or the reason why none does.

Pure functions of a :class:`Comparison` and a :class:`Measurement`. The reasons come with the number of calls
behind them and, at the rates seen so far, the time until there will be enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.session import Impact, ImpactReason
from pytest_otel_diag.model.windows import seconds_to_ns
from pytest_otel_diag.sessions.impact.comparison import Comparison
from pytest_otel_diag.sessions.impact.deviations import Measurement, all_deviations
from pytest_otel_diag.sessions.impact.evidence import Deviation, EvidenceBaseline
from pytest_otel_diag.sessions.impact.subjects import explaining, subject_of
from pytest_otel_diag.sessions.impact.watchlist import Observed
from pytest_otel_diag.stats.metric_shift import LEAST_POINTS
from pytest_otel_diag.stats.two_sample import LEAST_EXPECTED_CALLS, Load

_POISSON_MARGIN = 3
"""Calls added to a count for the highest rate that it may still mean: the 95 % bound of a count of zero."""


def looks(timing: Timing, timeout_s: float) -> int:
    """Return how often a wait of *timeout_s* seconds looks at telemetry, at least once."""
    return max(1, -(-seconds_to_ns(timeout_s) // seconds_to_ns(timing.impact_poll_s)))


def assess(comparison: Comparison, seen: Measurement, found: Sequence[Deviation] | None = None) -> Impact:
    """Return VISIBLE with the deviation that shows the fault best, or the reason why there is none.

    *found* are the deviations, where the caller has them already.
    """
    deviations = all_deviations(comparison, seen) if found is None else found
    if deviations:
        best = min(deviations, key=lambda one: _expected_first(comparison, one))
        subject = subject_of(comparison, seen, best.service)
        return Impact(
            reason=ImpactReason.VISIBLE,
            service=best.service,
            signal=best.signal,
            detail=best.detail + _root_cause(comparison, seen, best.service),
            calls_seen=subject.calls,
            calls_needed=subject.needed.calls,
        )
    subject = explaining(comparison, seen)
    reason, detail = subject.reason()
    if seen.observed is not None:
        reason, detail = _with_metrics(comparison.evidence, seen.observed, reason, detail)
    return Impact(
        reason=reason,
        service=subject.service,
        detail=detail,
        calls_seen=subject.calls,
        calls_needed=subject.needed.calls,
        eta_s=subject.eta_s,
    )


def _root_cause(comparison: Comparison, seen: Measurement, service: str) -> str:
    """Return what the errors of the root cause are where another *service* shows the fault, '' for none."""
    if service in comparison.causes or not comparison.causes:
        return ""
    subject = explaining(comparison, seen)
    return f" ({subject.numbers})" if subject.service in comparison.causes and subject.calls else ""


def _expected_first(comparison: Comparison, one: Deviation) -> tuple[bool, bool, tuple[float, str, str]]:
    """Return a sort key: root causes first, then other expected services, then the clearest."""
    return (one.service not in comparison.causes, one.service not in comparison.expected, one.strength)


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
        return reason, f"{detail}; so do {now} points of the metrics of {names}"
    if before < LEAST_POINTS:
        return (
            ImpactReason.TOO_RARE,
            f"{before} points of the metrics of {names} before the fault are too few to compare with, it "
            f"takes {LEAST_POINTS}; lengthen baseline_s",
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
    strongest = comparison.reachable(service, effect=1.0)
    return strongest is not None and most >= strongest
