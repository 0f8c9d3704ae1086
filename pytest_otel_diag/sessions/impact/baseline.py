"""What the target was like before the fault, and whether that can be compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pytest_otel_diag.errors import TelemetryError
from pytest_otel_diag.model.events import ServiceSample
from pytest_otel_diag.model.scenario import Expectation, Timing
from pytest_otel_diag.model.telemetry import CallEdge, ServiceHealth
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.sessions.impact import samples as series
from pytest_otel_diag.sessions.impact.assess import SIGNALS, Comparison, health_in, loads_of
from pytest_otel_diag.sessions.impact.evidence import Quiet, count_of
from pytest_otel_diag.sessions.impact.watchlist import observe, watchlist
from pytest_otel_diag.sessions.investigation.threads import both, together
from pytest_otel_diag.sessions.settings import EngineSettings
from pytest_otel_diag.stats.two_sample import Load, binomial_at_least

_MIN_BUCKETS = 8
_REFERENCES = 5
_ENOUGH_CALLS = 100


@dataclass(frozen=True)
class Baseline:
    """The session's own window before the fault (None: no telemetry), and what to compare with.

    ``edges`` are the calls of that window where they were asked for, ``samples`` its service health.
    """

    window: Window | None
    comparison: Comparison
    edges: tuple[CallEdge, ...] = ()
    samples: tuple[ServiceSample, ...] = ()


async def learn(
    telemetry: Telemetry,
    window: Window,
    reference: Sequence[Window],
    *,
    expectation: Expectation,
    base: Comparison,
) -> Baseline:
    """Return the baseline; where it holds few calls, quiet windows are compared with too.

    *base* gives bucket width and statistics: its ``alpha`` for one whole look, that of its ``quiet``
    for the whole wait. Metrics and logs always use the quiet windows, being sparse. Raises
    TelemetryError.
    """
    causes = {cause.service for cause in expectation.root_causes}
    expected = causes | {anomaly.service for anomaly in expectation.anomalies}
    health = await health_in(telemetry, window, base.bucket_s)
    own: Window | None = first_data(health, window)
    if not health:
        latest = await telemetry.latest()
        own = None if latest is None or latest <= window.start_ns else window
    places: tuple[Window, ...] = (own,) if own and health else ()
    loads = loads_of(health, places, base.bucket_s)
    quiet = tuple(reference[-_REFERENCES:]) if _thin(loads, expected) else ()
    others, edges = await both(
        lambda: together(*(partial(health_in, telemetry, window, base.bucket_s) for window in quiet)),
        lambda: _edges(telemetry, (places or quiet[-1:]) if causes else ()),
    )
    if quiet:
        pooled = [*health, *(row for rows in others for row in rows)]
        loads = loads_of(pooled, (*places, *quiet), base.bucket_s)
    callers = {edge.caller for edge in edges if edge.callee in causes}
    watched = frozenset(expected | callers) if expected else frozenset(loads)
    beside = watchlist(expectation, traced=loads)
    count = SIGNALS * max(1, len(watched)) + count_of(beside)
    comparison = replace(
        base,
        loads=loads,
        expected=frozenset(expected),
        watched=watched,
        alpha=base.alpha / count,
        quiet=Quiet(
            watched=beside,
            before=await observe(telemetry, (window, *reference[-_REFERENCES:]), base.bucket_s, beside),
            alpha=base.quiet.alpha / count,
            looks=base.quiet.looks,
            wait_s=base.quiet.wait_s,
        ),
    )
    return Baseline(own, comparison, edges, tuple(series.samples(health, window, base.bucket_s)))


def _thin(loads: Mapping[str, Load], expected: Collection[str]) -> bool:
    """Whether a service that is expected to suffer (any, when none is) has few calls to compare with."""
    calls = [loads[name].calls if name in loads else 0 for name in expected or loads]
    return min(calls, default=0) < _ENOUGH_CALLS


async def _edges(telemetry: Telemetry, windows: Sequence[Window]) -> tuple[CallEdge, ...]:
    try:
        return tuple([edge for window in windows for edge in await telemetry.call_edges(window)])
    except TelemetryError:
        return ()  # knowing the callers widens the view; the services themselves are still watched


def first_data(health: Sequence[ServiceHealth], window: Window) -> Window:
    """Return the window from its first data on, when more than a quarter of it lies before that."""
    first = min((row.bucket_start_ns for row in health if row.requests), default=window.start_ns)
    gap_s = (first - window.start_ns) / NANOS_PER_SECOND
    return Window(start_ns=first, end_ns=window.end_ns) if gap_s > window.duration_s / 4 else window


def bucket_seconds(timing: Timing) -> float:
    """Return the width of a bucket: the poll interval, or less where the baseline would have few buckets."""
    return min(timing.impact_poll_s, timing.baseline_s / _MIN_BUCKETS)


def sickness(baseline: Baseline, settings: EngineSettings, *, control: bool) -> str:
    """Return why this baseline is none ('' when it is fine); a control needs no calls to compare with."""
    comparison = baseline.comparison
    if baseline.window is None and not comparison.loads:
        return "no telemetry before the fault and no quiet window to use instead; is anything exported?"
    if not comparison.loads and not control and not comparison.quiet.seen:
        return (
            "no calls in traces before the fault, so its impact cannot be seen; export traces, drive "
            "traffic, or set require_impact to False where the fault is known to be there"
        )
    limit = settings.max_baseline_error_ratio
    for service in sorted(comparison.watched & comparison.loads.keys()):
        load = comparison.loads[service]
        if load.error_ratio > limit and binomial_at_least(load.errors, load.calls, limit) <= 0.05:
            return (
                f"{service} already fails {load.errors} of {load.calls} calls before the fault "
                f"(limit {limit:.0%}); heal the target first"
            )
    return ""
