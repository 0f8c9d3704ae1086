"""Intervals and exact sums against scipy, statsmodels and numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from pytest_otel_diag.stats import intervals

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.floats(0.5, 0.999)
shares = st.floats(0.01, 0.99)


@given(counts, confidences)
def test_wilson_equals_that_of_statsmodels(count, confidence):
    successes, n = count
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    found = intervals.wilson(successes, n, confidence)
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)


@given(counts)
def test_wilson_contains_the_observed_share_and_reaches_the_ends_exactly(count):
    successes, n = count
    found = intervals.wilson(successes, n)
    assert 0.0 <= found.low <= successes / n <= found.high <= 1.0
    assert (found.low == 0.0) == (successes == 0)
    assert (found.high == 1.0) == (successes == n)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_wilson_of_a_mean_of_shares_is_conservative(values):
    # Fractional successes: what makes the interval conservative is variance(x) <= mean·(1 − mean).
    mean = min(1.0, max(0.0, float(np.mean(values))))
    assert float(np.var(values)) <= mean * (1 - mean) + 1e-9
    found = intervals.wilson(mean * len(values), len(values))
    assert found.low <= mean + 1e-9
    assert found.high >= mean - 1e-9


def test_no_observations_have_no_interval():
    assert intervals.wilson(0, 0) is None


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_rejected(successes, n):
    with pytest.raises(ValueError, match=f"between 0 and {n}"):
        intervals.wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        intervals.wilson(1, 2, confidence)


@given(st.integers(0, 60), st.integers(0, 60), st.one_of(shares, st.sampled_from([0.0, 1.0])))
def test_binomial_equals_that_of_scipy(k, n, p):
    assert intervals.binomial_pmf(k, n, p) == pytest.approx(stats.binom.pmf(k, n, p), abs=1e-10)
    assert intervals.binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), abs=1e-9)


@pytest.mark.parametrize(("threshold", "n"), [(0.8, 14), (0.9, 29), (0.95, 59)])
def test_sizes_of_runs_without_a_failure(threshold, n):
    assert intervals.exact_size(threshold) == n


@given(st.floats(0.5, 0.97), st.integers(0, 4), st.sampled_from([0.9, 0.95, 0.99]))
def test_exact_size_is_the_smallest_that_certifies(threshold, failures, confidence):
    n = intervals.exact_size(threshold, failures, confidence)
    assert stats.binom.cdf(failures, n, 1 - threshold) <= 1 - confidence + 1e-9
    assert stats.binom.cdf(failures, n - 1, 1 - threshold) > 1 - confidence - 1e-9


@pytest.mark.parametrize(("threshold", "failures"), [(0.0, 0), (1.0, 0), (0.9, -1)])
def test_impossible_sizes_are_rejected(threshold, failures):
    with pytest.raises(ValueError, match="cannot be sized"):
        intervals.exact_size(threshold, failures)


@given(st.integers(0, 40), st.integers(1, 40), shares)
def test_wilson_size_is_the_first_n_whose_interval_leaves_the_threshold(part, whole, threshold):
    rate = min(part, whole) / whole
    size = intervals.wilson_size(rate, threshold)
    if size is None:
        assert rate == pytest.approx(threshold)
        return

    def holds(n):
        found = intervals.wilson(rate * n, n)
        return found.low < threshold - 1e-9 and found.high > threshold + 1e-9

    assert not holds(size)
    assert size == 1 or size > 100_000 or holds(size - 1) or _touches(rate, threshold, size - 1)


def _touches(rate, threshold, n):
    found = intervals.wilson(rate * n, n)
    return min(abs(found.low - threshold), abs(found.high - threshold)) < 1e-6


def test_all_of_eleven_flags_need_thirty_five_for_ninety_percent():
    assert intervals.wilson(11, 11).low == pytest.approx(0.741, abs=1e-3)
    assert intervals.wilson_size(1.0, 0.9) == 35


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_equal_those_of_numpy(values, q):
    assert intervals.quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


def test_summary_of_numbers_and_of_no_numbers():
    found = intervals.summarise([4.0, 1.0, 3.0, 2.0])
    assert (found.n, found.mean, found.median, found.low, found.high) == (4, 2.5, 2.5, 1.0, 4.0)
    assert found.p90 == pytest.approx(3.7)
    assert intervals.summarise([]) is None
    with pytest.raises(ValueError, match="no values have no quantile"):
        intervals.quantile([], 0.5)
