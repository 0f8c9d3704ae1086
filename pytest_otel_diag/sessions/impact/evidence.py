"""Which operations, metrics and logs deviate from their baseline. Pure; :mod:`.watchlist` reads them.

The chance of a false alarm of each test and look is that of :mod:`.levels`, divided evenly among the spans,
series and templates that the test covers.

* Operations: failed calls as for services; slow calls by the tail of the distribution. A call exceeds ``r``
  times the slowest of ``n`` calls before with a probability of at most 1 / (r (n + 1)): the chance of being
  the largest, with a tail no lighter than Pareto's of index 1, which is heavier than that of latencies. So
  three rare calls of ten seconds count where a percentile does not move.
* Metrics: see :mod:`pytest_otel_diag.stats.metric_shift`.
* Logs: volume by the rate test of calls; warnings, and each template, by the number of buckets that hold
  one (Fisher's exact test), since lines come in bursts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.sessions.impact.levels import LOG_TESTS, OPERATION_TESTS, SLOW, Check, Levels
from pytest_otel_diag.sessions.impact.watchlist import MetricWatch, Observed, Series, Watchlist
from pytest_otel_diag.stats.metric_shift import LEAST_POINTS, Point, fall_p, restarts_p, rise_p
from pytest_otel_diag.stats.two_sample import (
    Load,
    binomial_at_least,
    error_p,
    fisher_p,
    latency_p,
    latency_ratio,
    rate_p,
)

_SLOW = (3.0, 10.0, 30.0)
"""Multiples of the slowest baseline call from which calls count as slow."""

LATENCY_CHANGE = 1.25
"""Factor by which latency must change to matter."""

LATENCY_CHANGE_DRIVEN = 2.0
"""The same where the session drives traffic, which slows services down a little."""

_VOLUME_CHANGE = 2.0
"""Factor by which log lines, or the buckets that hold one, must increase to matter."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A signal that differs from its baseline; significant where ``p_value`` is at most ``alpha``."""

    service: str
    signal: str
    p_value: float
    detail: str
    alpha: float = 1.0

    @property
    def strength(self) -> tuple[float, str, str]:
        """Sort key: the clearest deviation first."""
        return (self.p_value / self.alpha if self.alpha else math.inf, self.service, self.signal)


@dataclass(frozen=True)
class EvidenceBaseline:
    """The watchlist and what it showed before the fault; the wait lasts ``wait_s`` seconds."""

    watched: Watchlist = field(default_factory=Watchlist)
    before: Observed = field(default_factory=Observed)
    wait_s: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether the baseline holds enough to compare with."""
        return self.points(self.before) >= LEAST_POINTS or bool(self.before.lines)

    def points(self, observed: Observed) -> int:
        """Return the number of points of the watched metric that has most."""
        covered = [len(observed.metrics[series]) for series in observed.metrics if self.covers(series)]
        return max(covered, default=0)

    def covers(self, series: Series) -> bool:
        """Whether the series shows one of the watched signals."""
        return any(one.covers(series) for one in self.watched.metrics)


@dataclass(frozen=True)
class LookLevels:
    """The levels of one look, the *last* of the wait or one before it."""

    levels: Levels
    last: bool = False

    def of(self, service: str, kind: str, operation: str = "") -> float:
        """Return the chance of a false alarm that the test may take at this look."""
        return self.levels.at(Check(service, kind, operation), last=self.last)


def deviations(
    baseline: EvidenceBaseline, after: Observed, growth: Mapping[str, float], levels: LookLevels
) -> list[Deviation]:
    """Return what deviates significantly and by enough to matter.

    *growth* is the factor by which the session increased the traffic of a service: what follows the load must
    exceed that as well.
    """
    families = (_operations, _metrics, _logs)
    found = [deviation for family in families for deviation in family(baseline, after, growth, levels)]
    return [deviation for deviation in found if deviation.p_value <= deviation.alpha]


def _operations(
    baseline: EvidenceBaseline, after: Observed, growth: Mapping[str, float], levels: LookLevels
) -> Iterator[Deviation]:
    for service, operation in baseline.watched.operations:
        spans = [
            span for span in baseline.before.operations if baseline.watched.matches(service, operation, span)
        ]
        for span in spans:
            if span in after.operations:
                yield from _operation(
                    span,
                    baseline.before.operations[span],
                    after.operations[span],
                    change=LATENCY_CHANGE_DRIVEN if growth.get(service, 1.0) > 1 else LATENCY_CHANGE,
                    alphas={
                        kind: levels.of(service, kind, operation) / len(spans) for kind in OPERATION_TESTS
                    },
                )


def _operation(
    span: tuple[str, str], before: Load, now: Load, *, change: float, alphas: Mapping[str, float]
) -> Iterator[Deviation]:
    service, name = span[0], f"{span[1]} of {span[0]}"
    yield Deviation(
        service,
        Signal.ERROR_RATE,
        error_p(before, now),
        f"{name} fails {now.errors} of {now.calls} calls, before {before.errors} of {before.calls}",
        alphas[Signal.ERROR_RATE],
    )
    slow, p_value = slow_p(before, now)
    yield Deviation(
        service,
        Signal.LATENCY,
        p_value,
        f"{slow} of {now.calls} calls of {name} take far longer than the slowest before "
        f"({max(before.bucket_max_ms, default=0.0):.0f} ms)",
        alphas[SLOW],
    )
    ratio = latency_ratio(before, now)
    if not 1 / change < ratio < change:
        detail = f"p95 of {name} is {ratio:.2f} times the baseline"
        yield Deviation(service, Signal.LATENCY, latency_p(before, now), detail, alphas[Signal.LATENCY])


def slow_p(before: Load, after: Load) -> tuple[int, float]:
    """Return how many calls are far slower than any before, and the p-value of "the tail is the same"."""
    slowest = max(before.bucket_max_ms, default=0.0)
    best = (0, 1.0)
    if slowest <= 0 or not before.calls:
        return best
    for factor in _SLOW:
        slow = sum(1 for value in after.bucket_max_ms if value > factor * slowest)
        p_value = min(
            1.0, len(_SLOW) * binomial_at_least(slow, after.calls, 1 / (factor * (before.calls + 1)))
        )
        best = min(best, (slow, p_value), key=lambda one: one[1])
    return best


def _metrics(
    baseline: EvidenceBaseline, after: Observed, growth: Mapping[str, float], levels: LookLevels
) -> Iterator[Deviation]:
    for watch in baseline.watched.metrics:
        grown = growth.get(watch.service, 1.0) if watch.floor.grows else 1.0
        series = [
            one for one, points in baseline.before.metrics.items() if watch.covers(one) and _usable(points)
        ]
        parts = max(1, len(series) + (watch.signal is Signal.RESTART))
        whole = levels.levels.of(Check(watch.service, watch.signal)) / parts
        for one in series:
            looks = _points_expected(baseline.before.metrics[one], baseline, levels.levels.looks)
            yield from _metric(watch, one, baseline, after, alpha=whole / looks, grown=grown)
        if watch.signal is Signal.RESTART:
            began = after.restarts.get(watch.service, 0)
            before = baseline.before.restarts.get(watch.service, 0)
            yield Deviation(
                watch.service,
                Signal.RESTART,
                restarts_p(before, baseline.before.seconds, began, after.seconds),
                f"{began} instances of {watch.service} began in {after.seconds:.0f} s, before {before} in "
                f"{baseline.before.seconds:.0f} s",
                levels.of(watch.service, watch.signal) / parts,
            )


def _usable(points: tuple[Point, ...]) -> bool:
    return len(points) >= LEAST_POINTS


def _metric(
    watch: MetricWatch,
    series: Series,
    baseline: EvidenceBaseline,
    after: Observed,
    *,
    alpha: float,
    grown: float,
) -> Iterator[Deviation]:
    before = baseline.before.metrics[series]
    now = after.metrics.get(series, ())
    if not now:
        return
    eased = [Point(point.at_s, point.value / max(1.0, grown)) for point in now]
    ps = []
    if watch.direction != "down":
        ps.append(rise_p(before, eased, watch.floor))
    if watch.direction != "up":
        ps.append(fall_p(before, now, watch.floor))
    p_value = min(1.0, len(ps) * min(ps))
    values = [point.value for point in before]
    yield Deviation(
        watch.service,
        watch.signal,
        p_value,
        f"{series[1]} of {watch.service} is {now[-1].value:.4g}, "
        f"before {min(values):.4g} to {max(values):.4g}",
        alpha,
    )


def _points_expected(before: tuple[Point, ...], baseline: EvidenceBaseline, looks: int) -> int:
    """Return how many of the *looks* of the wait see a new point: points come more rarely than looks."""
    gaps = sorted(late.at_s - early.at_s for early, late in pairwise(before))
    typical = gaps[len(gaps) // 2]
    expected = math.ceil(baseline.wait_s / typical) if typical > 0 else looks
    return min(max(1, expected), looks)


def _logs(
    baseline: EvidenceBaseline, after: Observed, growth: Mapping[str, float], levels: LookLevels
) -> Iterator[Deviation]:
    volume, severe_lines, templates = LOG_TESTS
    for service in baseline.watched.logs:
        now = after.lines.get(service)
        if now is None:
            continue
        grown = max(1.0, growth.get(service, 1.0))
        before = baseline.before.lines.get(service, Load(calls=0, errors=0, seconds=baseline.before.seconds))
        if now.rate >= _VOLUME_CHANGE * grown * before.rate and before.calls:
            detail = f"{service} logs {now.rate:.2f} lines a second, before {before.rate:.2f}"
            yield Deviation(service, Signal.LOGS, rate_p(before, now), detail, levels.of(service, volume))
        severe = (baseline.before.severe_buckets.get(service, 0), after.severe_buckets.get(service, 0))
        yield Deviation(
            service,
            Signal.LOGS,
            _more_p(*severe, baseline.before, after),
            f"{service} warns in {severe[1]} of {after.log_buckets} stretches of time, before in {severe[0]} "
            f"of {baseline.before.log_buckets}",
            levels.of(service, severe_lines),
        )
        alpha = levels.of(service, templates)
        yield from _templates(service, baseline, after, alpha=alpha, driven=grown > 1)


def _templates(
    service: str, baseline: EvidenceBaseline, after: Observed, *, alpha: float, driven: bool
) -> Iterator[Deviation]:
    kinds = [(key, *found) for key, found in after.kinds.items() if key[0] == service]
    for key, buckets, severe in kinds:
        if driven and not severe:
            continue  # driven traffic may log what was rarely logged before
        seen, _ = baseline.before.kinds.get(key, (0, False))
        yield Deviation(
            service,
            Signal.LOGS,
            _more_p(seen, buckets, baseline.before, after),
            f"{service} logs {key[1][:80]!r} in {buckets} of {after.log_buckets} stretches of time, before "
            f"in {seen} of {baseline.before.log_buckets}",
            alpha / len(kinds),
        )


def _more_p(seen: int, now: int, before: Observed, after: Observed) -> float:
    """Return the p-value of "no larger share of buckets holds a line"; 1 for less than twice the share."""
    if not before.log_buckets or now * before.log_buckets < _VOLUME_CHANGE * seen * after.log_buckets:
        return 1.0
    return fisher_p(seen, before.log_buckets, now, after.log_buckets)
