"""``python -m benchmarks.impact [--waits 2000] [--json FILE]``.

Simulates whole waits for an impact, A/A (the fault changes nothing) and A/B (a share of the payments fails),
and counts how they end. Orders come as a Poisson process; each makes one call of payment and of checkout and
twelve of the frontend, whose latencies are log-normal. In each wait one error ratio of 0, 1 or 5 % is drawn
that holds before and after. Five minutes of baseline, five of waiting, a look each five seconds, as in a
live session; nothing is driven. The verdicts are those of the package: ``expected_checks``, ``shared``,
``assess``.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause
from pytest_otel_diag.model.session import Impact, ImpactReason
from pytest_otel_diag.sessions.impact.assess import assess
from pytest_otel_diag.sessions.impact.comparison import Comparison
from pytest_otel_diag.sessions.impact.deviations import Measurement
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
ERROR_RATIOS = (0.0, 0.01, 0.05)
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


@dataclass
class Traffic:
    """Calls, errors and p95s of each service by bucket."""

    rng: np.random.Generator
    orders_per_min: float
    error_ratio: float

    def buckets(self, count: int, bucket_s: float, failing: float = 0.0) -> dict[str, list[Load]]:
        """Return *count* buckets of each service while *failing* of the payments fail."""
        orders = self.rng.poisson(self.orders_per_min * bucket_s / 60, count)
        failed = self.rng.binomial(orders, failing)
        return {
            service: [
                self._bucket(int(n) * calls, int(bad), bucket_s)
                for n, bad in zip(orders, failed, strict=True)
            ]
            for service, calls in CALLS_PER_ORDER.items()
        }

    def _bucket(self, calls: int, failed: int, bucket_s: float) -> Load:
        errors = failed + int(self.rng.binomial(calls - failed, self.error_ratio))
        p95 = np.quantile(self.rng.lognormal(3.0, LATENCY_SPREAD, calls), 0.95) if calls else None
        return Load(calls, errors, bucket_s, (calls,), () if p95 is None else (float(p95),))


def together(parts: list[Load]) -> Load:
    """Return the buckets as one load."""
    return Load(
        calls=sum(part.calls for part in parts),
        errors=sum(part.errors for part in parts),
        seconds=sum(part.seconds for part in parts),
        bucket_calls=tuple(count for part in parts for count in part.bucket_calls),
        bucket_p95_ms=tuple(p95 for part in parts for p95 in part.bucket_p95_ms),
    )


def comparison_of(loads: dict[str, Load], course: Course) -> Comparison:
    """Return what a session would compare with after this baseline."""
    beside = watchlist(EXPECTATION, traced=loads)
    checks = expected_checks(EXPECTATION, loads, beside, Observed())
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
        evidence=EvidenceBaseline(wait_s=course.looks * course.bucket_s),
    )


def wait(
    rng: np.random.Generator, orders_per_min: float, failing: float, course: Course
) -> tuple[Impact, float]:
    """Return how one wait ends, and after how many seconds."""
    traffic = Traffic(rng, orders_per_min, float(rng.choice(ERROR_RATIOS)))
    before = traffic.buckets(course.baseline_buckets, course.bucket_s)
    comparison = comparison_of({name: together(parts) for name, parts in before.items()}, course)
    after = traffic.buckets(course.looks, course.bucket_s, failing)
    impact = Impact(reason=ImpactReason.NOT_YET_EXPORTED)
    for look in range(1, course.looks + 1):
        loads = {name: together(parts[:look]) for name, parts in after.items()}
        settled = {name: together(parts[: max(0, look - 2)]) for name, parts in after.items()}
        impact = assess(comparison, Measurement(loads, settled, last=look == course.looks))
        if impact.reason is ImpactReason.VISIBLE:
            return impact, look * course.bucket_s
    return impact, course.looks * course.bucket_s


def waits(
    rng: np.random.Generator, orders_per_min: float, failing: float, count: int, course: Course | None = None
) -> Iterator[tuple[Impact, float]]:
    """Yield the ends of *count* waits."""
    for _ in range(count):
        yield wait(rng, orders_per_min, failing, course or Course())


def measured(orders_per_min: float, failing: float, count: int, seed: int) -> dict[str, Any]:
    """Return how many of *count* waits end in which way, with the interval of those with an impact."""
    ends = list(waits(np.random.default_rng(seed), orders_per_min, failing, count))
    reasons = Counter(str(impact.reason) for impact, _ in ends)
    times = sorted(seconds for impact, seconds in ends if impact.reason is ImpactReason.VISIBLE)
    interval = wilson(reasons[ImpactReason.VISIBLE], count)
    assert interval is not None, "at least one wait"
    return {
        "orders_per_min": orders_per_min,
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
    parser.add_argument("--waits", type=int, default=2000, help="waits of each kind, over all rates together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rates, found = (3.8, 10.0, 30.0, 60.0), []
    for failing in (0.0, 0.1, 0.5):
        for rate in rates:
            found.append(measured(rate, failing, arguments.waits // len(rates), arguments.seed))
            print(json.dumps(found[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
