"""Is the target back to its baseline? Asked before the next session may start."""

from __future__ import annotations

from dataclasses import replace

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.impact import evidence
from pytest_otel_diag.sessions.impact.assess import Comparison, as_before, deviations, loads_in, looks
from pytest_otel_diag.sessions.impact.evidence import Deviation
from pytest_otel_diag.sessions.impact.watchlist import observe

_BUCKETS = 6


async def recover(
    session: TargetSession, comparison: Comparison, timing: Timing, *, since_ns: Nanos
) -> tuple[bool | None, str]:
    """Poll until the last six buckets after *since_ns* look like the baseline, and expected metrics too.

    What a fault leaves behind for good (a cache that stays full) ends in False with what still
    deviates; that is told, and says nothing against the session that caused it.

    Returns (True, ''), (False, why) after ``recover_timeout_s`` of the target's clock, or (None, why)
    when no telemetry came after *since_ns*: then nothing is known. Raises TelemetryError.
    """
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
            continue  # no need to ask for metrics: it is too early whatever they say
        residue, unseen = await _residue(session, comparison, Window(start_ns=since_ns, end_ns=end_ns))
        if whole and calm and not residue and not unseen:
            return True, ""
        worst = [one.detail for one in (*deviations(comparison, loads, grown=True), *residue)]
        state = (False, "; ".join(worst[:3]) or unseen or "too little traffic since the undo to tell")
    return state


async def _residue(
    session: TargetSession, comparison: Comparison, window: Window
) -> tuple[list[Deviation], str]:
    """Return what the metrics' newest points still show, and which have not come ('' when all have).

    The newest point alone: what was high right after the undo may have come down since. Lines that
    were logged and instances that began are over, so neither counts.
    """
    quiet = comparison.quiet
    if not quiet.watched.metrics:
        return [], ""
    only = replace(quiet.watched, operations=(), logs=())
    seen = await observe(session.telemetry, (window,), comparison.bucket_s, only)
    newest = {series: points[-1:] for series, points in seen.metrics.items()}
    now = replace(seen, metrics=newest, restarts={})
    known = {
        watch.service for watch in only.metrics for series in quiet.before.metrics if watch.covers(series)
    }
    missing = sorted(known - {service for service, *_ in newest})
    unseen = f"no point of the metrics of {', '.join(missing)} since the undo" if missing else ""
    return evidence.deviations(replace(quiet, watched=only), now, {}), unseen
