"""Do single operations, metrics or logs deviate from what they were? Pure; :mod:`.signals` reads them.

The chance of an impact that is not there is split evenly over every test that the expectation makes
possible (Bonferroni), and within one over its looks, series and templates.

* Operations: failed calls as for services; slow calls by the tail. A call may exceed ``r`` times the
  slowest of ``n`` calls before with probability 1 / (r (n + 1)): the chance to be the largest, and a tail
  no lighter than Pareto's with index 1, heavier than latencies have. So three rare calls of ten seconds
  count where a percentile does not move.
* Metrics: see :mod:`.levels`.
* Logs: volume by the rate test of calls; warnings, and each template, by the buckets of time that hold
  one (Fisher's exact test), since lines come in bursts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.sessions.impact.watchlist import MetricWatch, Observed, Series, Watchlist
from pytest_otel_diag.stats.metric_shift import LEAST_POINTS, Point, fall_p, restarts_p, rise_p
from pytest_otel_diag.stats.two_sample import (
    Load,
    binomial_at_least,
    error_p,
    latency_p,
    latency_ratio,
    rate_p,
)

_SLOW = (3.0, 10.0, 30.0)
"""Multiples of the slowest call before from which calls count as slow."""
_LATENCY_CHANGE = 1.25
_LATENCY_CHANGE_DRIVEN = 2.0
_MORE = 2.0


@dataclass(frozen=True, slots=True)
class Deviation:
    """Something that no longer behaves like its baseline; ``alpha`` is what its p-value is held against."""

    service: str
    signal: str
    p_value: float
    detail: str
    alpha: float = 1.0

    @property
    def strength(self) -> tuple[float, str, str]:
        """Sorts the clearest deviation first."""
        return (self.p_value / self.alpha if self.alpha else math.inf, self.service, self.signal)


@dataclass(frozen=True)
class Quiet:
    """The watchlist before the fault.

    ``alpha`` is for one test over the whole wait of ``wait_s`` seconds and ``looks`` looks.
    """

    watched: Watchlist = field(default_factory=Watchlist)
    before: Observed = field(default_factory=Observed)
    alpha: float = 0.0
    looks: int = 1
    wait_s: float = 0.0

    @property
    def seen(self) -> bool:
        """Whether there is anything to compare with."""
        return self.points(self.before) >= LEAST_POINTS or bool(self.before.lines)

    def points(self, observed: Observed) -> int:
        """Return how many points the watched metrics have there, of the one that has most."""
        covered = [len(observed.metrics[series]) for series in observed.metrics if self.covers(series)]
        return max(covered, default=0)

    def covers(self, series: Series) -> bool:
        """Whether one of the watched signals is shown by the series."""
        return any(one.covers(series) for one in self.watched.metrics)


def count_of(watched: Watchlist) -> int:
    """Return how many tests the watchlist makes: three an operation, one a metric signal, three a log."""
    return 3 * len(watched.operations) + len(watched.metrics) + 3 * len(watched.logs)


def deviations(quiet: Quiet, after: Observed, growth: Mapping[str, float]) -> list[Deviation]:
    """Return what deviates significantly and by enough to matter.

    *growth* tells for services whose traffic was increased on purpose by how much: what follows the
    load must exceed that as well.
    """
    families = (_operations, _metrics, _logs)
    found = [deviation for family in families for deviation in family(quiet, after, growth)]
    return [deviation for deviation in found if deviation.p_value <= deviation.alpha]


def _operations(quiet: Quiet, after: Observed, growth: Mapping[str, float]) -> Iterator[Deviation]:
    spans = [key for key in quiet.before.operations if key in after.operations]
    alpha = quiet.alpha / quiet.looks * len(quiet.watched.operations) / max(1, len(spans))
    for service, operation in spans:
        before, now = quiet.before.operations[service, operation], after.operations[service, operation]
        name = f"{operation} of {service}"
        yield Deviation(
            service,
            "error_rate",
            error_p(before, now),
            f"{name} fails {now.errors} of {now.calls} calls, before {before.errors} of {before.calls}",
            alpha,
        )
        slow, p_value = slow_p(before, now)
        yield Deviation(
            service,
            "latency",
            p_value,
            f"{slow} of {now.calls} calls of {name} take far longer than the slowest before "
            f"({max(before.bucket_max_ms, default=0.0):.0f} ms)",
            alpha,
        )
        ratio = latency_ratio(before, now)
        change = _LATENCY_CHANGE_DRIVEN if growth.get(service, 1.0) > 1 else _LATENCY_CHANGE
        if not 1 / change < ratio < change:
            yield Deviation(
                service,
                "latency",
                latency_p(before, now),
                f"{name}: p95 is {ratio:.2f} times the baseline",
                alpha,
            )


def slow_p(before: Load, after: Load) -> tuple[int, float]:
    """Return how many calls are far slower than all before, and the p-value of "the tail is the same"."""
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


def _metrics(quiet: Quiet, after: Observed, growth: Mapping[str, float]) -> Iterator[Deviation]:
    for watch in quiet.watched.metrics:
        grown = growth.get(watch.service, 1.0) if watch.floor.grows else 1.0
        series = [
            one for one, points in quiet.before.metrics.items() if watch.covers(one) and _usable(points)
        ]
        share = quiet.alpha / max(1, len(series) + (watch.signal is Signal.RESTART))
        for one in series:
            yield from _metric(watch, one, quiet, after, (share, grown))
        if watch.signal is Signal.RESTART:
            began = after.restarts.get(watch.service, 0)
            before = quiet.before.restarts.get(watch.service, 0)
            yield Deviation(
                watch.service,
                "restart",
                restarts_p(before, quiet.before.seconds, began, after.seconds),
                f"{began} instances of {watch.service} began in {after.seconds:.0f} s, before {before} in "
                f"{quiet.before.seconds:.0f} s",
                share / quiet.looks,
            )


def _usable(points: tuple[Point, ...]) -> bool:
    return len(points) >= LEAST_POINTS


def _metric(
    watch: MetricWatch, series: Series, quiet: Quiet, after: Observed, level: tuple[float, float]
) -> Iterator[Deviation]:
    share, grown = level
    before = quiet.before.metrics[series]
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
        share / _points_expected(before, quiet),
    )


def _points_expected(before: tuple[Point, ...], quiet: Quiet) -> int:
    """Return how many looks of the wait see something new: points come more rarely than looks."""
    gaps = sorted(late.at_s - early.at_s for early, late in pairwise(before))
    typical = gaps[len(gaps) // 2]
    expected = math.ceil(quiet.wait_s / typical) if typical > 0 else quiet.looks
    return min(max(1, expected), max(1, quiet.looks))


def _logs(quiet: Quiet, after: Observed, growth: Mapping[str, float]) -> Iterator[Deviation]:
    alpha = quiet.alpha / quiet.looks
    for service in quiet.watched.logs:
        now = after.lines.get(service)
        if now is None:
            continue
        grown = max(1.0, growth.get(service, 1.0))
        before = quiet.before.lines.get(service, Load(calls=0, errors=0, seconds=quiet.before.seconds))
        if now.rate >= _MORE * grown * before.rate and before.calls:
            detail = f"{service} logs {now.rate:.2f} lines a second, before {before.rate:.2f}"
            yield Deviation(service, "logs", rate_p(before, now), detail, alpha)
        severe = (quiet.before.severe_buckets.get(service, 0), after.severe_buckets.get(service, 0))
        yield Deviation(
            service,
            "logs",
            _more_p(*severe, quiet.before, after),
            f"{service} warns in {severe[1]} of {after.log_buckets} stretches of time, before in {severe[0]} "
            f"of {quiet.before.log_buckets}",
            alpha,
        )
        yield from _templates(service, quiet, after, driven=grown > 1)


def _templates(service: str, quiet: Quiet, after: Observed, *, driven: bool) -> Iterator[Deviation]:
    kinds = [(key, *found) for key, found in after.kinds.items() if key[0] == service]
    for key, buckets, severe in kinds:
        if driven and not severe:
            continue  # traffic that was driven may say what was rarely said before
        seen, _ = quiet.before.kinds.get(key, (0, False))
        yield Deviation(
            service,
            "logs",
            _more_p(seen, buckets, quiet.before, after),
            f"{service} logs {key[1][:80]!r} in {buckets} of {after.log_buckets} stretches of time, before "
            f"in {seen} of {quiet.before.log_buckets}",
            quiet.alpha / quiet.looks / len(kinds),
        )


def _more_p(seen: int, now: int, before: Observed, after: Observed) -> float:
    """Return the p-value of "no larger share of the buckets holds it", 1 for less than twice the share."""
    if not before.log_buckets or now * before.log_buckets < _MORE * seen * after.log_buckets:
        return 1.0
    return fisher_p(seen, before.log_buckets, now, after.log_buckets)


def fisher_p(seen: int, before: int, now: int, after: int) -> float:
    """Return P(X >= now) of Fisher's exact test: *seen* of *before*, *now* of *after* (hypergeometric)."""
    hits, seen_most = seen + now, min(after, seen + now)
    now, hits = min(now, after), min(hits, before + after)
    ways = sum(
        math.comb(after, k) * math.comb(before, hits - k) for k in range(now, seen_most + 1) if hits - k >= 0
    )
    return ways / math.comb(before + after, hits)
