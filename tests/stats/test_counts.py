"""Tests of shares and counts, compared with scipy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_otel_diag.stats.two_sample import count_p, fisher_p

COUNTS = st.integers(0, 60)


@given(hits_before=COUNTS, misses_before=COUNTS, hits_after=COUNTS, misses_after=COUNTS)
def test_shares_are_compared_exactly(hits_before, misses_before, hits_after, misses_after) -> None:
    found = fisher_p(hits_before, hits_before + misses_before, hits_after, hits_after + misses_after)
    table = [[hits_after, misses_after], [hits_before, misses_before]]
    assert found == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue, rel=1e-6)


@given(n_before=COUNTS, n_after=COUNTS, before_s=st.floats(1, 500), after_s=st.floats(1, 500))
def test_rates_are_compared_exactly_while_counts_are_small(n_before, n_after, before_s, after_s) -> None:
    found = count_p(n_before, before_s, n_after, after_s)
    total, share = n_before + n_after, after_s / (before_s + after_s)
    lower, upper = stats.binom.cdf(n_after, total, share), stats.binom.sf(n_after - 1, total, share)
    assert found == pytest.approx(min(1.0, 2 * min(lower, upper)) if total else 1.0, rel=1e-6, abs=1e-12)


@given(n_before=st.integers(600, 4000), n_after=st.integers(600, 4000))
def test_large_counts_are_close_to_it(n_before, n_after) -> None:
    found = count_p(n_before, 100.0, n_after, 100.0)
    exact = stats.binomtest(n_after, n_before + n_after, 0.5).pvalue
    assert math.isclose(found, exact, rel_tol=0.2, abs_tol=1e-3)


def test_no_observations_are_no_evidence() -> None:
    assert fisher_p(0, 0, 0, 0) == 1.0
    assert count_p(0, 10, 0, 10) == 1.0
    assert count_p(5, 0, 5, 10) == 1.0
