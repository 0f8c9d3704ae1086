"""Is the target back to its baseline? Asked before the next session may start."""

from __future__ import annotations

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.sessions.impact import Comparison, as_before, deviations, loads_in, looks

_BUCKETS = 6


async def recover(
    session: TargetSession, comparison: Comparison, timing: Timing, *, since_ns: Nanos
) -> tuple[bool | None, str]:
    """Poll until the last six buckets after *since_ns* look like the baseline.

    Returns (True, ''), (False, why) after ``recover_timeout_s`` of the target's clock, or (None, why)
    when no telemetry came after *since_ns*: then nothing is known. Raises TelemetryError.
    """
    span_ns = seconds_to_ns(_BUCKETS * comparison.bucket_s)
    state: tuple[bool | None, str] = (None, "no telemetry came after the undo")
    for _ in range(looks(timing, timing.recover_timeout_s)):
        await session.clock.sleep(min(timing.impact_poll_s, timing.recover_timeout_s))
        latest = await session.telemetry.latest()
        if latest is None or latest <= since_ns:
            continue
        end_ns = min(latest, session.clock.now())
        window = Window(start_ns=max(since_ns, end_ns - span_ns), end_ns=end_ns)
        loads = await loads_in(session.telemetry, (window,), comparison.bucket_s)
        # Half a bucket of tolerance: the newest span ends a little before the bucket does.
        whole = end_ns - since_ns >= span_ns - seconds_to_ns(comparison.bucket_s / 2)
        if whole and as_before(comparison, loads):
            return True, ""
        worst = [deviation.detail for deviation in deviations(comparison, loads, grown=True)]
        state = (False, "; ".join(worst[:3]) or "too little traffic since the undo to tell")
    return state
