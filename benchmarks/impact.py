"""``python -m benchmarks.impact [--waits 2000] [--json FILE]``.

Simulates whole waits for an impact, A/A (the fault changes nothing) and A/B (a share of the payments fails),
and counts how they end. Orders come as a Poisson process; each makes one call of payment and of checkout and
twelve of the frontend, whose latencies are log-normal. Errors, latency and request rate of the services are
compared, and errors and latency of the operations. A share of 0, 1 or 5 % of the calls fails anyway, before
and after. Five minutes of baseline, five of waiting, a look each five seconds, as in a live session; nothing
is driven. The verdicts are those of the package: ``expected_checks``, ``shared``, ``assess``.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause
from pytest_otel_diag.model.session import Impact, ImpactReason
from pytest_otel_diag.sessions.impact.assess import assess
from pytest_otel_diag.sessions.impact.comparison import Comparison
from pytest_otel_diag.sessions.impact.deviations import Measurement, all_deviations
from pytest_otel_diag.sessions.impact.evidence import EvidenceBaseline
from pytest_otel_diag.sessions.impact.levels import SERVICE_SIGNALS, count_of, expected_checks, shared
from pytest_otel_diag.sessions.impact.watchlist import Observed, watchlist
from pytest_otel_diag.stats.intervals import wilson
from pytest_otel_diag.stats.two_sample import Load

CALLS_PER_ORDER = {"payment": 1, "checkout": 1, "frontend": 12}
EXPECTATION = Expectation(
    anomalies=tuple(
        ExpectedAnomaly(service=service, signal=Signal.ERROR_RATE, operation=operation, direction="up")
        for service, operation in (("payment", "Charge"), ("checkout", "PlaceOrder"), ("frontend", None))
    ),
    root_causes=(ExpectedRootCause(service="payment", operation="Charge"),),
)
OPERATIONS = {"payment": "oteldemo.PaymentService/Charge", "checkout": "oteldemo.CheckoutService/PlaceOrder"}
"""Spans of the only operations of their services."""

ERROR_RATIOS = (0.0, 0.01, 0.05)
RATES_PER_MIN = (3.8, 10.0, 30.0, 60.0)
FAILING_RATIOS = (0.0, 0.1, 0.5)
Counts = NDArray[np.int64]

LATENCY_SPREAD = 0.5
"""Standard deviation of the logarithm of latencies."""


@dataclass(frozen=True)
class Course:
    """How waits go: bucket width in seconds, buckets of the baseline, looks (one a bucket), level, power."""

    bucket_s: float = 5.0
    baseline_buckets: int = 60
    looks: int = 60
    alpha: float = 0.01
    power: float = 0.95
    effect: float = 0.1


@dataclass(frozen=True)
class Buckets:
    """Calls and errors of a service by bucket; p95 and slowest call in milliseconds of those with calls."""

    calls: tuple[int, ...]
    errors: tuple[int, ...]
    p95_ms: tuple[float, ...]
    max_ms: tuple[float, ...]
    bucket_s: float

    def first(self, count: int) -> Load:
        """Return the first *count* buckets as one load."""
        calls = self.calls[:count]
        busy = sum(1 for each in calls if each)
        seconds = len(calls) * self.bucket_s
        return Load(
            sum(calls), sum(self.errors[:count]), seconds, calls, self.p95_ms[:busy], self.max_ms[:busy]
        )


@dataclass
class Traffic:
    """Makes the buckets of each service."""

    rng: np.random.Generator
    orders_per_min: float
    error_ratio: float

    def buckets(self, count: int, bucket_s: float, failing: float = 0.0) -> dict[str, Buckets]:
        """Return *count* buckets of each service while *failing* of the payments fail."""
        orders = self.rng.poisson(self.orders_per_min * bucket_s / 60, count)
        failed = self.rng.binomial(orders, failing)
        return {name: self._of(orders * n, failed, bucket_s) for name, n in CALLS_PER_ORDER.items()}

    def _of(self, calls: Counts, failed: Counts, bucket_s: float) -> Buckets:
        errors = failed + self.rng.binomial(calls - failed, self.error_ratio)
        slow = [self._slow(int(n)) for n in calls if n]
        p95_ms, max_ms = tuple(p95 for p95, _ in slow), tuple(most for _, most in slow)
        return Buckets(tuple(map(int, calls)), tuple(map(int, errors)), p95_ms, max_ms, bucket_s)

    def _slow(self, calls: int) -> tuple[float, float]:
        latencies = np.sort(self.rng.lognormal(3.0, LATENCY_SPREAD, calls))
        return float(latencies[int(0.95 * (calls - 1))]), float(latencies[-1])


def observed(loads: dict[str, Load]) -> Observed:
    """Return the operations that are watched beside their services."""
    return Observed({(name, operation): loads[name] for name, operation in OPERATIONS.items()})


def comparison_of(loads: dict[str, Load], course: Course) -> Comparison:
    """Return what a session would compare with after this baseline."""
    beside, before = watchlist(EXPECTATION, traced=loads), observed(loads)
    checks = expected_checks(EXPECTATION, loads, beside, before)
    tests = len(SERVICE_SIGNALS) * len(loads) + count_of(beside)
    return Comparison(
        loads=loads,
        expected=frozenset(loads),
        watched=frozenset(loads),
        bucket_s=course.bucket_s,
        levels=shared(course.alpha, checks, tests=tests, looks=course.looks),
        power=course.power,
        effect=course.effect,
        causes=frozenset({"payment"}),
        evidence=EvidenceBaseline(beside, before, wait_s=course.looks * course.bucket_s),
    )


def wait(traffic: Traffic, failing: float, course: Course) -> tuple[Impact, float]:
    """Return how one wait ends, and after how many seconds."""
    before = traffic.buckets(course.baseline_buckets, course.bucket_s)
    comparison = comparison_of({name: one.first(len(one.calls)) for name, one in before.items()}, course)
    after = traffic.buckets(course.looks, course.bucket_s, failing)
    for look in range(1, course.looks + 1):
        loads = {name: one.first(look) for name, one in after.items()}
        settled = {name: one.first(max(0, look - 2)) for name, one in after.items()}
        seen = Measurement(loads, settled, observed(loads), last=look == course.looks)
        found = all_deviations(comparison, seen)
        if found or seen.last:
            return assess(comparison, seen, found), look * course.bucket_s
    raise AssertionError("the last look returns")


def waits(traffic: Traffic, failing: float, count: int) -> Iterator[tuple[Impact, float]]:
    """Yield the ends of *count* waits, and after how many seconds they came."""
    course = Course()
    for _ in range(count):
        yield wait(traffic, failing, course)


def measured(traffic: Traffic, failing: float, count: int) -> dict[str, Any]:
    """Return how many of *count* waits end in which way, with the interval of those with an impact."""
    ends = list(waits(traffic, failing, count))
    reasons = Counter(str(impact.reason) for impact, _ in ends)
    times = sorted(seconds for impact, seconds in ends if impact.reason is ImpactReason.VISIBLE)
    interval = wilson(reasons[ImpactReason.VISIBLE], count)
    assert interval is not None, "at least one wait"
    return {
        "orders_per_min": traffic.orders_per_min,
        "error_ratio": traffic.error_ratio,
        "failing_ratio": failing,
        "waits": count,
        "reasons": dict(reasons),
        "visible_ratio": round(reasons[ImpactReason.VISIBLE] / count, 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "median_time_to_impact_s": times[len(times) // 2] if times else None,
    }


def main() -> None:
    """Measure A/A and A/B at several rates of orders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--waits", type=int, default=2000, help="waits of each failing ratio, over all rates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng, found = np.random.default_rng(arguments.seed), []
    courses = list(product(FAILING_RATIOS, RATES_PER_MIN, ERROR_RATIOS))
    for failing, rate, errors in courses:
        count = max(1, arguments.waits * len(FAILING_RATIOS) // len(courses))
        found.append(measured(Traffic(rng, rate, errors), failing, count))
        print(json.dumps(found[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
