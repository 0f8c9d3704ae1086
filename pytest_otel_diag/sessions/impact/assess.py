"""Does telemetry show the fault? Compares services with their baseline and names a reason when not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.events import ServiceSample, ServiceState
from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.session import Impact, ImpactReason
from pytest_otel_diag.model.telemetry import ServiceHealth
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import TargetSession, Telemetry
from pytest_otel_diag.sessions.impact import evidence, reasons
from pytest_otel_diag.sessions.impact import samples as series
from pytest_otel_diag.sessions.impact.evidence import Deviation, Quiet
from pytest_otel_diag.sessions.impact.watchlist import Observed, observe
from pytest_otel_diag.stats.metric_shift import LEAST_POINTS
from pytest_otel_diag.stats.two_sample import (
    Load,
    calls_needed,
    error_p,
    latency_p,
    latency_ratio,
    rate_p,
)

SIGNALS = 3
"""Signals a service is compared by: errors, latency, request rate."""
_LATENCY_CHANGE = 1.25
_LATENCY_CHANGE_DRIVEN = 2.0
_RATE_CHANGE = 2.0

_FILLING = 2
"""Newest buckets that say nothing of traffic that fell."""

_DRIVEN_GROWTH = 3.0
"""Driven traffic is at most this multiple of the usual one."""
_DRIVEN_AT_ONCE = 5
_CALLS_TO_LEARN = 10
"""Calls to drive where the baseline says nothing about how many are needed."""


@dataclass(frozen=True)
class Comparison:
    """What impact is measured against.

    ``alpha`` is for one service, signal and look (Bonferroni). ``expected`` are the services the
    scenario expects to suffer, empty for all; ``watched`` adds the callers of its root causes, since
    a slow network shows on the caller's side. ``quiet`` is what else the scenario expects to see.
    """

    loads: Mapping[str, Load]
    expected: frozenset[str]
    watched: frozenset[str]
    bucket_s: float
    alpha: float
    power: float
    effect: float
    quiet: Quiet = field(default_factory=Quiet)


@dataclass
class Driven:
    """Traffic the target was asked to make."""

    calls: int = 0
    refused: bool = False


@dataclass
class ImpactWatch:
    """Polls telemetry from the start of the fault; one look is one :class:`Impact`."""

    session: TargetSession
    comparison: Comparison
    start_ns: Nanos
    driven: Driven = field(default_factory=Driven)
    loads: Mapping[str, Load] = field(default_factory=dict)
    samples: tuple[ServiceSample, ...] = ()
    _changes: series.Changes = field(default_factory=series.Changes)

    async def look(self) -> Impact:
        """Return what is visible now; raises TelemetryError when telemetry cannot answer.

        ``samples`` are afterwards the buckets of service health that changed since the last look.
        """
        self.samples = ()
        telemetry, comparison = self.session.telemetry, self.comparison
        window = Window(start_ns=self.start_ns, end_ns=max(self.session.clock.now(), self.start_ns))
        health = await health_in(telemetry, window, comparison.bucket_s)
        exported = as_far_as(health, window, comparison.bucket_s)
        observed = await observe(telemetry, (exported,), comparison.bucket_s, comparison.quiet.watched)
        if not health and observed.empty:
            # Asked only here: in a quiet system silence may be late exports or missing calls.
            latest = await telemetry.latest()
            if latest is None or latest <= self.start_ns:
                return Impact(
                    reason=ImpactReason.NOT_YET_EXPORTED,
                    detail="no telemetry is newer than the start of the fault",
                )
        self.loads = loads_of(health, (exported,), comparison.bucket_s)
        settled = settled_loads(health, exported, comparison.bucket_s)
        grown = bool(self.driven.calls)
        found = all_deviations(comparison, self.loads, grown=grown, observed=observed, settled=settled)
        impact = assessed(comparison, self.loads, found, observed)
        self._sample(health, exported, states_of(found, settled))
        if impact.reason is ImpactReason.VISIBLE:
            impact = impact.model_copy(update={"time_to_impact_s": exported.duration_s})
        return impact

    def _sample(
        self, health: Sequence[ServiceHealth], exported: Window, states: Mapping[str, ServiceState]
    ) -> None:
        bucket_s = self.comparison.bucket_s
        silent = [service for service, state in states.items() if state == "silent"]
        self.samples = self._changes.since_last(
            [
                *series.samples(health, exported, bucket_s, states=states),
                *series.idle(health, exported, bucket_s, services=silent),
            ]
        )

    async def drive(self, *, remaining_s: float, most: int, step_s: float) -> None:
        """Ask the target for the calls that will be missing when the wait ends, a few each time.

        Several times the usual traffic at once would slow services down, and that would look like an
        impact.
        """
        missing = shortages(self.comparison, self.loads, remaining_s)
        if self.driven.refused or not missing:
            return
        rates = [self.comparison.loads[name].rate for name in missing if name in self.comparison.loads]
        gently = max(_DRIVEN_AT_ONCE, math.ceil(_DRIVEN_GROWTH * max(rates, default=0.0) * step_s))
        wanted = min(max(missing.values()), gently, most - self.driven.calls)
        if wanted <= 0:
            return
        made = await self.session.traffic.drive(sorted(missing), wanted)
        self.driven.calls += made
        self.driven.refused = made == 0


def shortages(comparison: Comparison, seen: Mapping[str, Load], remaining_s: float) -> dict[str, int]:
    """Return how many calls each expected service will lack at the end of the wait, where it lacks any."""
    missing = {}
    for name in comparison.expected:
        before = comparison.loads.get(name)
        forecast = (before.rate if before else 0.0) * max(0.0, remaining_s)
        forecast += seen[name].calls if name in seen else 0
        # A tenth more: a forecast is none to the call, and calls of the last moment are not seen.
        missing[name] = math.ceil(1.1 * (_wanted(comparison, before) - forecast))
    return {name: calls for name, calls in missing.items() if calls > 0}


def _wanted(comparison: Comparison, before: Load | None) -> int:
    """Return the calls that show the smallest effect that the baseline allows to be seen at all."""
    for effect in (comparison.effect, 0.5, 1.0):
        needed = (
            calls_needed(before, effect=effect, alpha=comparison.alpha, power=comparison.power)
            if before
            else None
        )
        if needed is not None:
            return needed
    return _CALLS_TO_LEARN


async def loads_in(telemetry: Telemetry, windows: Sequence[Window], bucket_s: float) -> dict[str, Load]:
    """Return the load of each service over the windows together; empty where there are no traces."""
    health: list[ServiceHealth] = []
    for window in windows:
        health.extend(await health_in(telemetry, window, bucket_s))
    return loads_of(health, windows, bucket_s)


def loads_of(health: Iterable[ServiceHealth], windows: Sequence[Window], bucket_s: float) -> dict[str, Load]:
    """Return the load of each service from its buckets in the windows."""
    pieces: dict[str, list[ServiceHealth]] = {}
    for row in health:
        pieces.setdefault(row.service, []).append(row)
    seconds = sum(window.duration_s for window in windows)
    buckets = sum(max(1, round(window.duration_s / bucket_s)) for window in windows)
    return {service: _load(rows, seconds, buckets) for service, rows in pieces.items()}


def as_far_as(health: Sequence[ServiceHealth], window: Window, bucket_s: float) -> Window:
    """Return the window up to the newest bucket with calls: later ones may not be exported yet."""
    newest = max((row.bucket_start_ns for row in health if row.requests), default=window.end_ns)
    return Window(start_ns=window.start_ns, end_ns=min(window.end_ns, newest + seconds_to_ns(bucket_s)))


def settled_loads(health: Sequence[ServiceHealth], window: Window, bucket_s: float) -> dict[str, Load]:
    """Return the loads without the newest buckets: services export at times of their own, so these fill up.

    What is half exported looks like traffic that fell.
    """
    end_ns = max(window.start_ns, window.end_ns - _FILLING * seconds_to_ns(bucket_s))
    rows = [row for row in health if row.bucket_start_ns < end_ns]
    return loads_of(rows, (Window(start_ns=window.start_ns, end_ns=end_ns),), bucket_s)


async def health_in(telemetry: Telemetry, window: Window, bucket_s: float) -> Sequence[ServiceHealth]:
    """Return service health, nothing for a store without traces."""
    try:
        return await telemetry.service_health(window, bucket_s)
    except SchemaError:
        return ()


def _load(rows: Sequence[ServiceHealth], seconds: float, buckets: int) -> Load:
    busy = [row for row in rows if row.requests]
    idle = max(0, buckets - len(busy))
    return Load(
        calls=sum(row.requests for row in busy),
        errors=sum(row.errors for row in busy),
        seconds=seconds,
        bucket_calls=(*(row.requests for row in busy), *([0] * idle)),
        bucket_p95_ms=tuple(row.p95_ms for row in busy),
    )


def assess(
    comparison: Comparison,
    after: Mapping[str, Load],
    *,
    grown: bool = False,
    observed: Observed | None = None,
    settled: Mapping[str, Load] | None = None,
) -> Impact:
    """Return VISIBLE with the clearest deviation, or the reason why there is none.

    ``grown`` says that traffic was added on purpose: more requests are then no impact, and what
    follows the load must have grown by more. ``settled`` are the :func:`settled_loads`.
    """
    found = all_deviations(comparison, after, grown=grown, observed=observed, settled=settled)
    return assessed(comparison, after, found, observed)


def all_deviations(
    comparison: Comparison,
    after: Mapping[str, Load],
    *,
    grown: bool = False,
    observed: Observed | None = None,
    settled: Mapping[str, Load] | None = None,
) -> list[Deviation]:
    """Return what deviates of services, operations, metrics and logs; arguments as for :func:`assess`."""
    some = any(load.calls for load in after.values())
    found = deviations(comparison, after, grown=grown, settled=settled) if some else []
    if observed is not None:
        growth = _growth(comparison, after) if grown else {}
        found += evidence.deviations(comparison.quiet, observed, growth)
    return found


def states_of(found: Iterable[Deviation], settled: Mapping[str, Load]) -> dict[str, ServiceState]:
    """Return the health of each service that deviates; one without calls since the fault is silent."""
    signals: dict[str, set[str]] = {}
    for deviation in found:
        signals.setdefault(deviation.service, set()).add(deviation.signal)
    states: dict[str, ServiceState] = {}
    for service, which in signals.items():
        calls = settled[service].calls if service in settled else 0
        if "request_rate" in which and not calls:
            states[service] = "silent"
        else:
            states[service] = "failing" if "error_rate" in which else "degraded"
    return states


def assessed(
    comparison: Comparison,
    after: Mapping[str, Load],
    found: Sequence[Deviation],
    observed: Observed | None = None,
) -> Impact:
    """Return VISIBLE with the clearest deviation *found*, or the reason why there is none."""
    focus = _focus(comparison, after)
    seen = after[focus].calls if focus is not None and focus in after else 0
    before = comparison.loads.get(focus) if focus else None
    needed = (
        calls_needed(before, effect=comparison.effect, alpha=comparison.alpha, power=comparison.power)
        if before
        else None
    )
    if found:
        best = min(found, key=lambda deviation: deviation.strength)
        return Impact(
            reason=ImpactReason.VISIBLE,
            service=best.service,
            signal=best.signal,
            detail=best.detail,
            calls_seen=seen,
            calls_needed=needed or 0,
        )
    eta_s = reasons.remaining_s(before, after.get(focus) if focus is not None else None, needed)
    reason, detail = reasons.why_not(focus, before, (seen, needed), eta_s)
    rare = _rarest(comparison, after) if reason is ImpactReason.NO_EFFECT else None
    if rare is not None:  # many calls of a busy caller say little about the rare ones behind it
        focus, seen, needed = rare
        eta_s = reasons.remaining_s(comparison.loads[focus], after[focus], needed)
        reason, detail = reasons.why_not(focus, comparison.loads[focus], (seen, needed), eta_s)
    if observed is not None:
        reason, detail = _beside_calls(comparison.quiet, observed, (reason, detail))
    return Impact(
        reason=reason,
        service=focus,
        detail=detail,
        calls_seen=seen,
        calls_needed=needed or 0,
        eta_s=eta_s,
    )


def _rarest(comparison: Comparison, after: Mapping[str, Load]) -> tuple[str, int, int] | None:
    """Return the expected service that lacks most of the calls it needs, with what it has and needs.

    A service without any call since is left out: the fault itself may have cut it off.
    """
    short = []
    for name in comparison.expected & comparison.loads.keys() & after.keys():
        seen, before = after[name].calls, comparison.loads[name]
        needed = calls_needed(
            before, effect=comparison.effect, alpha=comparison.alpha, power=comparison.power
        )
        if needed is not None and 0 < seen < needed:
            short.append((seen / needed, name, seen, needed))
    return min(short)[1:] if short else None


def _growth(comparison: Comparison, after: Mapping[str, Load]) -> dict[str, float]:
    """Return by how much traffic grew: of each watched service, and at most for those without calls."""
    grown = {
        name: after[name].rate / load.rate
        for name, load in comparison.loads.items()
        if name in after and load.rate > 0
    }
    most = max((grown[name] for name in grown if name in comparison.expected), default=1.0)
    beside = {watch.service for watch in comparison.quiet.watched.metrics} | set(
        comparison.quiet.watched.logs
    )
    return {**dict.fromkeys(beside, most), **grown}


def _beside_calls(
    quiet: Quiet, observed: Observed, told: tuple[ImpactReason, str]
) -> tuple[ImpactReason, str]:
    """Return the reason once the metrics that were looked at are known too."""
    if not quiet.watched.metrics:
        return told
    names = ", ".join(dict.fromkeys(watch.service for watch in quiet.watched.metrics))
    before, now = quiet.points(quiet.before), quiet.points(observed)
    if not before and not now:
        return told  # real silence
    if told[0] is not ImpactReason.NO_TRAFFIC:
        return told[0], f"{told[1]}; of its metrics {now} points"
    if before < LEAST_POINTS:
        return (
            ImpactReason.TOO_RARE,
            f"{before} points of the metrics of {names} before the fault are too few to compare with; "
            "lengthen baseline_s",
        )
    if not now:
        return ImpactReason.NOT_YET_EXPORTED, f"no point of the metrics of {names} since the fault began"
    return ImpactReason.NO_EFFECT, f"{now} points of the metrics of {names} look like the {before} before"


def _focus(comparison: Comparison, after: Mapping[str, Load]) -> str | None:
    """Return the busiest expected service (any service when none is expected)."""
    names = comparison.expected or frozenset(comparison.loads) | frozenset(after)

    def calls(name: str) -> tuple[int, int, str]:
        now, then = after.get(name), comparison.loads.get(name)
        return (now.calls if now else 0, then.calls if then else 0, name)

    return max(names, key=calls, default=None)


def deviations(
    comparison: Comparison,
    after: Mapping[str, Load],
    *,
    grown: bool = False,
    settled: Mapping[str, Load] | None = None,
) -> list[Deviation]:
    """Return every watched service and signal that deviates significantly and by enough to matter.

    Traffic that fell is judged by ``settled``, where that is given.
    """
    steady = after if settled is None else settled
    found: list[Deviation] = []
    for service in sorted(comparison.watched):
        before = comparison.loads.get(service)
        if before is not None:
            now = after.get(service, _gone(after))
            found.extend(_deviations_of(service, before, now, grown=grown))
            found.extend(_fallen(service, before, steady.get(service, _gone(steady))))
    held = [replace(deviation, alpha=comparison.alpha) for deviation in found]
    return [deviation for deviation in held if deviation.p_value <= deviation.alpha]


def _deviations_of(service: str, before: Load, after: Load, *, grown: bool) -> Iterable[Deviation]:
    yield Deviation(
        service,
        "error_rate",
        error_p(before, after),
        f"{service} fails {after.errors} of {after.calls} calls, before {before.errors} of {before.calls}",
    )
    ratio = latency_ratio(before, after)
    change = _LATENCY_CHANGE_DRIVEN if grown else _LATENCY_CHANGE
    if not 1 / change < ratio < change:
        yield Deviation(
            service, "latency", latency_p(before, after), f"{service} p95 is {ratio:.2f} times the baseline"
        )
    if before.rate and after.rate >= _RATE_CHANGE * before.rate and not grown:
        yield _other_rate(service, before, after)


def _fallen(service: str, before: Load, after: Load) -> Iterable[Deviation]:
    if before.rate and after.rate <= before.rate / _RATE_CHANGE:
        yield _other_rate(service, before, after)


def _other_rate(service: str, before: Load, after: Load) -> Deviation:
    told = f"{service} gets {after.rate:.2f} calls a second, before {before.rate:.2f}"
    return Deviation(service, "request_rate", rate_p(before, after), told)


def _gone(others: Mapping[str, Load]) -> Load:
    return Load(calls=0, errors=0, seconds=max((load.seconds for load in others.values()), default=0.0))


def as_before(comparison: Comparison, after: Mapping[str, Load]) -> bool:
    """Whether the watched services that had calls before have calls again and none deviates."""
    busy = [name for name in comparison.watched if name in comparison.loads]
    served = all(name in after and after[name].calls for name in busy)
    return bool(busy) and served and not deviations(comparison, after, grown=True)


def looks(timing: Timing, timeout_s: float) -> int:
    """Return how often the wait looks at telemetry, at least once."""
    return max(1, -(-seconds_to_ns(timeout_s) // seconds_to_ns(timing.impact_poll_s)))
