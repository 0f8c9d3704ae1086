"""Waits until the target is back to its baseline, so that the next session may start."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.impact import evidence
from pytest_otel_diag.sessions.impact.assess import looks
from pytest_otel_diag.sessions.impact.comparison import Comparison, loads_in
from pytest_otel_diag.sessions.impact.deviations import Measurement, as_before, service_deviations
from pytest_otel_diag.sessions.impact.evidence import Deviation, EvidenceBaseline, LookLevels
from pytest_otel_diag.sessions.impact.levels import Levels
from pytest_otel_diag.sessions.impact.watchlist import observe

_BUCKETS = 6
"""Newest buckets that must look like the baseline."""

_SHOWN = 3
"""Deviations that are named where the target has not recovered."""


@dataclass(frozen=True)
class RecoveryGoal:
    """What a target must look like again, and for how long to wait for it."""

    comparison: Comparison
    timing: Timing

    @classmethod
    def after(cls, comparison: Comparison, timing: Timing, *, alpha: float) -> RecoveryGoal | None:
        """Return the goal of a session with this baseline; None where the baseline is empty.

        ``alpha`` is not divided among tests and looks: it is harder to count as recovered than as not
        visibly broken.
        """
        if comparison.empty:
            return None
        return cls(replace(comparison, levels=Levels(alpha)), timing)

    def of_calls(self) -> RecoveryGoal:
        """Return the goal without metrics and logs: memory that stays used has become normal."""
        return replace(self, comparison=replace(self.comparison, evidence=EvidenceBaseline()))


async def recover(session: TargetSession, goal: RecoveryGoal, *, since_ns: Nanos) -> tuple[bool | None, str]:
    """Poll until the newest buckets after *since_ns* look like the baseline, and expected metrics too.

    Returns (True, ''), (False, why) after ``recover_timeout_s`` of the target's clock, or (None, why) when no
    telemetry came after *since_ns*, so that nothing is known. What a fault leaves behind for good (a cache
    that stays full) ends in False with what still deviates; the session that caused it counts all the same.
    Raises TelemetryError.
    """
    comparison, timing = goal.comparison, goal.timing
    span_ns = seconds_to_ns(_BUCKETS * comparison.bucket_s)
    state: tuple[bool | None, str] = (None, "no telemetry came after the undo")
    count = looks(timing, timing.recover_timeout_s)
    for look in range(count):
        await session.clock.sleep(min(timing.impact_poll_s, timing.recover_timeout_s))
        latest = await session.telemetry.latest()
        if latest is None or latest <= since_ns:
            continue
        end_ns = min(latest, session.clock.now())
        window = Window(start_ns=max(since_ns, end_ns - span_ns), end_ns=end_ns)
        loads = await loads_in(session.telemetry, (window,), comparison.bucket_s)
        # Half a bucket of tolerance: the newest span ends a little before the bucket does.
        whole = end_ns - since_ns >= span_ns - seconds_to_ns(comparison.bucket_s / 2)
        calm = not comparison.loads or as_before(comparison, loads)
        if not (whole and calm) and look < count - 1:
            continue  # too early whatever the metrics say, so they are not asked for
        residue, missing = await _metric_residue(
            session, comparison, Window(start_ns=since_ns, end_ns=end_ns)
        )
        if whole and calm and not residue and not missing:
            return True, ""
        changed = service_deviations(comparison, Measurement(loads, driven=True))
        worst = [one.detail for one in (*changed, *residue)]
        state = (False, "; ".join(worst[:_SHOWN]) or missing or "too little traffic since the undo to judge")
    return state


async def _metric_residue(
    session: TargetSession, comparison: Comparison, window: Window
) -> tuple[list[Deviation], str]:
    """Return how the newest points of the metrics still deviate, and which are missing ('' for none).

    Only the newest point counts: what was high right after the undo may have come down since. Log lines and
    restarts are events of the past and do not count.
    """
    baseline = comparison.evidence
    if not baseline.watched.metrics:
        return [], ""
    metrics_only = replace(baseline.watched, operations=(), logs=())
    seen = await observe(session.telemetry, (window,), comparison.bucket_s, metrics_only)
    newest = {series: points[-1:] for series, points in seen.metrics.items()}
    known = {
        watch.service
        for watch in metrics_only.metrics
        for series in baseline.before.metrics
        if watch.covers(series)
    }
    absent = sorted(known - {service for service, *_ in newest})
    missing = f"no point of the metrics of {', '.join(absent)} since the undo" if absent else ""
    now = replace(seen, metrics=newest, restarts={})
    levels = LookLevels(comparison.levels, last=True)
    return evidence.deviations(replace(baseline, watched=metrics_only), now, {}, levels), missing
