"""Significance tests compared with scipy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_otel_diag.selftest.evidence import p_rate, p_share

COUNTS = st.integers(0, 60)


@given(hits_before=COUNTS, misses_before=COUNTS, hits_then=COUNTS, misses_then=COUNTS)
def test_shares_are_compared_exactly(hits_before, misses_before, hits_then, misses_then) -> None:
    found = p_share(hits_before, hits_before + misses_before, hits_then, hits_then + misses_then)
    table = [[hits_then, misses_then], [hits_before, misses_before]]
    assert found == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue, rel=1e-6)


@given(n_before=COUNTS, n_then=COUNTS, before_s=st.floats(1, 500), then_s=st.floats(1, 500))
def test_rates_are_compared_exactly_while_counts_are_small(n_before, n_then, before_s, then_s) -> None:
    found = p_rate(n_before, before_s, n_then, then_s)
    total, share = n_before + n_then, then_s / (before_s + then_s)
    lower, upper = stats.binom.cdf(n_then, total, share), stats.binom.sf(n_then - 1, total, share)
    assert found == pytest.approx(min(1.0, 2 * min(lower, upper)) if total else 1.0, rel=1e-6, abs=1e-12)


@given(n_before=st.integers(600, 4000), n_then=st.integers(600, 4000))
def test_large_counts_are_close_to_it(n_before, n_then) -> None:
    found = p_rate(n_before, 100.0, n_then, 100.0)
    exact = stats.binomtest(n_then, n_before + n_then, 0.5).pvalue
    assert math.isclose(found, exact, rel_tol=0.2, abs_tol=1e-3)


def test_no_observations_are_no_evidence() -> None:
    assert p_share(0, 0, 0, 0) == 1.0
    assert p_rate(0, 10, 0, 10) == 1.0
    assert p_rate(5, 0, 5, 10) == 1.0
