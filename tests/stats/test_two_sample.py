"""The statistics of exposure, against scipy and against themselves."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_otel_diag.model.session import ImpactReason
from pytest_otel_diag.sessions.impact.assess import assess
from pytest_otel_diag.sessions.impact.comparison import Comparison
from pytest_otel_diag.sessions.impact.deviations import Measurement
from pytest_otel_diag.sessions.impact.levels import shared
from pytest_otel_diag.stats.two_sample import (
    Load,
    binomial_at_least,
    error_p,
    latency_p,
    latency_ratio,
    rate_p,
)


def load(calls=0, errors=0, seconds=60.0, **changes):
    return Load(calls=calls, errors=errors, seconds=seconds, **changes)


@settings(deadline=None)
@given(n=st.integers(0, 5000), share=st.floats(0, 1), p=st.floats(0, 1))
def test_the_binomial_tail_is_scipys(n, share, p):
    k = round(n * share)
    assert binomial_at_least(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-6, abs=1e-12)


def test_the_binomial_tail_at_its_edges():
    assert binomial_at_least(0, 0, 0.5) == 1.0
    assert binomial_at_least(3, 2, 0.5) == 0.0
    assert binomial_at_least(3, 2, 1.0) == 0.0
    assert binomial_at_least(2, 2, 1.0) == 1.0
    assert binomial_at_least(1, 2, 0.0) == 0.0


@settings(deadline=None)
@given(
    before=st.tuples(st.integers(1, 3000), st.floats(0, 1)),
    after=st.tuples(st.integers(1, 3000), st.floats(0, 1)),
)
def test_the_error_test_is_fishers_with_half_of_the_observed_table(before, after):
    a = load(before[0], round(before[0] * before[1]))
    b = load(after[0], round(after[0] * after[1]))
    given_totals = stats.hypergeom(a.calls + b.calls, a.errors + b.errors, b.calls)
    known = given_totals.sf(b.errors) + given_totals.pmf(b.errors) / 2
    assert error_p(a, b) == pytest.approx(known, rel=1e-6, abs=1e-9)


def test_six_of_nineteen_charges_against_none_are_an_impact():
    assert error_p(load(19, 0), load(19, 6)) < 0.005 < error_p(load(19, 0), load(19, 5))


def test_without_calls_on_both_sides_nothing_is_said_of_errors():
    assert error_p(load(0), load(10, 10)) == error_p(load(10), load(0)) == 1.0


def test_steady_traffic_is_no_change_and_halved_traffic_is():
    steady = load(600, bucket_calls=(50,) * 12)
    assert rate_p(steady, load(300, seconds=30)) > 0.5
    assert rate_p(steady, load(150, seconds=30)) < 1e-6
    assert rate_p(steady, load(0, seconds=30)) < 1e-6


def test_bursty_traffic_needs_more_to_be_a_change():
    bursty = load(600, bucket_calls=(0, 100) * 6)
    steady = load(600, bucket_calls=(50,) * 12)
    assert rate_p(bursty, load(200, seconds=30)) > 0.05 > rate_p(steady, load(200, seconds=30))


def test_the_rate_test_says_nothing_of_little_traffic():
    assert rate_p(load(5), load(0)) == 1.0
    assert rate_p(load(100, seconds=0), load(1)) == rate_p(load(100), load(1, seconds=0)) == 1.0
    assert rate_p(load(100), load(0)) < 0.01  # no buckets: Poisson


@settings(deadline=None)
@given(
    st.lists(st.floats(1, 1e4), min_size=1, max_size=5), st.lists(st.floats(1, 1e4), min_size=1, max_size=6)
)
def test_the_exact_latency_test_counts_arrangements(x, y):
    assume(len(set(x + y)) == len(x) + len(y))
    known = stats.mannwhitneyu(x, y, alternative="two-sided", method="exact").pvalue
    assert latency_p(load(bucket_p95_ms=tuple(y)), load(bucket_p95_ms=tuple(x))) == pytest.approx(known)


@settings(deadline=None)
@given(st.integers(0, 400))
def test_the_latency_test_of_large_samples_is_the_normal_approximation(shift):
    x = tuple(float(i + shift) + 0.25 for i in range(30))
    y = tuple(float(i) for i in range(40))
    known = stats.mannwhitneyu(x, y, alternative="two-sided", method="asymptotic").pvalue
    mine = latency_p(load(bucket_p95_ms=y), load(bucket_p95_ms=x))
    assert mine == pytest.approx(known, rel=1e-3, abs=1e-15)


def test_ties_are_never_evidence():
    same = load(bucket_p95_ms=(5.0,) * 10)
    assert latency_p(same, same) == 1.0


def test_latency_without_buckets_says_nothing():
    some = load(bucket_p95_ms=(1.0,))
    assert latency_p(load(), some) == latency_p(some, load()) == 1.0
    assert latency_ratio(load(), some) == latency_ratio(some, load()) == 1.0
    assert latency_ratio(load(bucket_p95_ms=(0.0,)), some) == 1.0
    assert latency_ratio(some, load(bucket_p95_ms=(3.0,))) == 3.0


def test_ratios_of_nothing_are_zero():
    assert load(0).error_ratio == 0.0 and Load(5, 0, 0.0).rate == 0.0


def test_the_false_alarm_rate_of_the_latency_test_is_its_level():
    values = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    alarms = [
        latency_p(load(bucket_p95_ms=tuple(v for v in values if v not in chosen)), load(bucket_p95_ms=chosen))
        <= 0.1
        for chosen in combinations(values, 3)
    ]
    assert sum(alarms) / len(alarms) <= 0.1


def quiet_system(rng: np.random.Generator, buckets: int) -> Load:
    """Poisson traffic, three failures in a hundred calls, p95s that waver by a fifth."""
    counts = rng.poisson(20, buckets)
    return Load(
        calls=int(counts.sum()),
        errors=int(rng.binomial(counts.sum(), 0.03)),
        seconds=buckets * 5.0,
        bucket_calls=tuple(int(count) for count in counts),
        bucket_p95_ms=tuple(float(p95) for p95 in rng.lognormal(3, 0.2, buckets)),
    )


def test_quiet_systems_are_seldom_called_visible():
    """A/A over whole waits of twelve looks: the level holds for the wait, not for one look."""
    rng, waits, level = np.random.default_rng(5), 300, 0.05
    visible = 0
    for _ in range(waits):
        comparison = Comparison(
            loads={"a": quiet_system(rng, 24)},
            expected=frozenset("a"),
            watched=frozenset("a"),
            bucket_s=5.0,
            levels=shared(level, (), tests=3, looks=12),
            power=0.95,
            effect=0.1,
        )
        after = [quiet_system(rng, 1) for _ in range(12)]
        looks = [
            assess(comparison, Measurement({"a": together(after[:look])}, last=look == 12))
            for look in range(1, 13)
        ]
        visible += any(look.reason is ImpactReason.VISIBLE for look in looks)
    assert visible <= stats.binom.ppf(0.999, waits, level)


def together(loads: list[Load]) -> Load:
    return Load(
        calls=sum(part.calls for part in loads),
        errors=sum(part.errors for part in loads),
        seconds=sum(part.seconds for part in loads),
        bucket_calls=tuple(count for part in loads for count in part.bucket_calls),
        bucket_p95_ms=tuple(p95 for part in loads for p95 in part.bucket_p95_ms),
    )
