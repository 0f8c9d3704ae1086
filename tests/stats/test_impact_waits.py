"""Whole waits for an impact at four orders a minute, as ``benchmarks/impact.py`` simulates them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from benchmarks.impact import Traffic, waits
from pytest_otel_diag.model.session import ImpactReason

COUNT = 60


@pytest.mark.parametrize("orders_per_min", [3.8, 20.0])
def test_half_of_the_payments_failing_shows_within_five_minutes(orders_per_min):
    traffic = Traffic(np.random.default_rng(11), orders_per_min, 0.0)
    ends = [impact for impact, _ in waits(traffic, 0.5, COUNT)]
    reasons = Counter(impact.reason for impact in ends)
    assert reasons[ImpactReason.VISIBLE] >= stats.binom.ppf(0.001, COUNT, 0.9)
    assert set(reasons) <= {ImpactReason.VISIBLE, ImpactReason.TOO_RARE}
    unseen = [impact for impact in ends if impact.reason is ImpactReason.TOO_RARE]
    assert all(impact.service == "payment" and impact.calls_needed > 0 for impact in unseen)
    assert all("it needs about" in impact.detail for impact in unseen)


@pytest.mark.parametrize("orders_per_min", [3.8, 60.0])
def test_a_flag_that_changes_nothing_hardly_ever_shows(orders_per_min):
    traffic = Traffic(np.random.default_rng(12), orders_per_min, 0.02)
    reasons = Counter(impact.reason for impact, _ in waits(traffic, 0.0, COUNT))
    assert reasons[ImpactReason.VISIBLE] <= stats.binom.ppf(0.999, COUNT, 0.01)
    expected = ImpactReason.TOO_RARE if orders_per_min < 4 else ImpactReason.NO_EFFECT
    assert reasons[expected] >= COUNT * 0.8
