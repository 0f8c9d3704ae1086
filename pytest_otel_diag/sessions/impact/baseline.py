"""Learns what the target looks like before the fault, and checks that it is healthy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pytest_otel_diag.errors import TelemetryError
from pytest_otel_diag.model.events import ServiceSample
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.telemetry import CallEdge, ServiceHealth
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.sessions.context import SessionContext
from pytest_otel_diag.sessions.impact.assess import looks
from pytest_otel_diag.sessions.impact.comparison import Comparison, health_in, loads_of
from pytest_otel_diag.sessions.impact.evidence import EvidenceBaseline
from pytest_otel_diag.sessions.impact.levels import SERVICE_SIGNALS, count_of, expected_checks, shared
from pytest_otel_diag.sessions.impact.samples import samples
from pytest_otel_diag.sessions.impact.watchlist import observe, watchlist
from pytest_otel_diag.sessions.investigation.threads import both, together
from pytest_otel_diag.sessions.settings import EngineSettings
from pytest_otel_diag.stats.two_sample import Load, binomial_at_least

_LEAST_BUCKETS = 8
_REFERENCES = 5
"""Quiet windows that a baseline is extended by at most."""

_ENOUGH_CALLS = 100
"""Calls of a service from which its own baseline is enough."""


@dataclass(frozen=True)
class Baseline:
    """What telemetry showed before the fault.

    ``window`` is the session's own window, None without telemetry in it. ``edges`` are the calls of that
    window where they were asked for, ``samples`` its service health.
    """

    window: Window | None
    comparison: Comparison
    edges: tuple[CallEdge, ...] = ()
    samples: tuple[ServiceSample, ...] = ()


async def learn(context: SessionContext, window: Window) -> Baseline:
    """Return the baseline of the session's own *window*.

    Where the window holds few calls, the quiet reference windows of the target are added. Metrics and logs
    always use them, being sparse. Raises TelemetryError.
    """
    telemetry, reference = context.system.telemetry, context.system.reference[-_REFERENCES:]
    expectation, bucket_s = context.scenario.expectation, bucket_seconds(context.timing)
    causes = {cause.service for cause in expectation.root_causes}
    expected = causes | {anomaly.service for anomaly in expectation.anomalies}
    health = await health_in(telemetry, window, bucket_s)
    own = await _own_window(telemetry, health, window)
    windows: tuple[Window, ...] = (own,) if own and health else ()
    loads = loads_of(health, windows, bucket_s)
    quiet = reference if _thin(loads, expected) else ()
    others, edges = await both(
        lambda: together(*(partial(health_in, telemetry, one, bucket_s) for one in quiet)),
        lambda: _edges(telemetry, (windows or quiet[-1:]) if causes else ()),
    )
    if quiet:
        pooled = [*health, *(row for rows in others for row in rows)]
        loads = loads_of(pooled, (*windows, *quiet), bucket_s)
    callers = {edge.caller for edge in edges if edge.callee in causes}
    watched = frozenset(expected | callers) if expected else frozenset(loads)
    beside = watchlist(expectation, traced=loads)
    before = await observe(telemetry, (window, *reference), bucket_s, beside)
    settings, wait_s = context.settings, context.impact_timeout_s
    comparison = Comparison(
        loads=loads,
        expected=frozenset(expected),
        watched=watched,
        bucket_s=bucket_s,
        levels=shared(
            settings.alpha,
            expected_checks(expectation, loads, beside, before),
            tests=len(SERVICE_SIGNALS) * max(1, len(watched)) + count_of(beside),
            looks=looks(context.timing, wait_s),
        ),
        power=settings.power,
        effect=settings.min_error_ratio,
        causes=frozenset(causes),
        evidence=EvidenceBaseline(watched=beside, before=before, wait_s=wait_s),
    )
    return Baseline(own, comparison, edges, tuple(samples(health, window, bucket_s)))


async def _own_window(telemetry: Telemetry, health: Sequence[ServiceHealth], window: Window) -> Window | None:
    """Return the part of the window that holds telemetry, None where there is none."""
    if health:
        return first_data(health, window)
    latest = await telemetry.latest()
    return None if latest is None or latest <= window.start_ns else window


def _thin(loads: Mapping[str, Load], expected: Collection[str]) -> bool:
    """Whether an expected service (any service, when none is expected) has few calls to compare with."""
    calls = [loads[name].calls if name in loads else 0 for name in expected or loads]
    return min(calls, default=0) < _ENOUGH_CALLS


async def _edges(telemetry: Telemetry, windows: Sequence[Window]) -> tuple[CallEdge, ...]:
    try:
        return tuple([edge for window in windows for edge in await telemetry.call_edges(window)])
    except TelemetryError:
        return ()  # the callers of root causes are then not watched; the services themselves are


def first_data(health: Sequence[ServiceHealth], window: Window) -> Window:
    """Return the window from its first data on, where more than a quarter of it is empty before that."""
    first = min((row.bucket_start_ns for row in health if row.requests), default=window.start_ns)
    gap_s = (first - window.start_ns) / NANOS_PER_SECOND
    return Window(start_ns=first, end_ns=window.end_ns) if gap_s > window.duration_s / 4 else window


def bucket_seconds(timing: Timing) -> float:
    """Return the width of a bucket: the poll interval, less where the baseline would have few buckets."""
    return min(timing.impact_poll_s, timing.baseline_s / _LEAST_BUCKETS)


def sickness(baseline: Baseline, settings: EngineSettings, *, control: bool) -> str:
    """Return why the baseline cannot be used ('' when it can); a control needs no calls to compare with."""
    comparison = baseline.comparison
    if baseline.window is None and not comparison.loads:
        return "no telemetry before the fault and no quiet window to use instead; is anything exported?"
    if comparison.empty and not control:
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
