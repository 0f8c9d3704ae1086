"""How many calls show a fault, compared with the power of the test itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from pytest_otel_diag.stats.sample_size import MOST_CALLS, calls_needed, calls_to_show
from pytest_otel_diag.stats.two_sample import Load, error_p


def power_of(before: Load, calls: int, ratio: float, alpha: float) -> float:
    return math.fsum(
        stats.binom.pmf(k, calls, ratio)
        for k in range(calls + 1)
        if error_p(before, Load(calls, k, 1.0)) <= alpha
    )


def test_the_smaller_the_effect_the_more_calls():
    needed = [calls_needed(2000, 0, effect=e, alpha=1e-4, power=0.95).calls for e in (1.0, 0.5, 0.2, 0.1)]
    assert needed == sorted(needed) and needed[0] <= 5 and 50 < needed[-1] < 200


@settings(max_examples=25, deadline=None)
@given(
    calls=st.integers(0, 3000),
    errors=st.floats(0, 0.05),
    effect=st.floats(0.05, 0.9),
    power=st.floats(0.5, 0.99),
)
def test_the_calls_needed_have_the_power_they_promise(calls, errors, effect, power):
    failed = round(calls * errors)
    needed = calls_needed(calls, failed, effect=effect, alpha=1e-3, power=power)
    assume(needed.calls < 2000)
    ratio = failed / calls if calls else 0.0
    baseline = failed if needed.baseline == calls else round(ratio * needed.baseline)
    before = Load(needed.baseline, baseline, 1.0)
    assert power_of(before, needed.calls, min(1.0, ratio + effect), 1e-3) >= power - 1e-9


@settings(max_examples=40, deadline=None)
@given(calls=st.integers(0, 400), errors=st.floats(0, 1), effect=st.floats(0.01, 1))
def test_there_is_always_an_answer(calls, errors, effect):
    needed = calls_needed(calls, round(calls * errors), effect=effect, alpha=1e-4, power=0.95)
    assert 0 < needed.calls <= MOST_CALLS and needed.baseline > 0


def test_a_short_baseline_asks_for_a_longer_one():
    assert calls_to_show(10, 0, effect=0.1, alpha=1e-4, power=0.95) is None
    assert calls_to_show(0, 0, effect=0.1, alpha=1e-4, power=0.95) is None
    needed = calls_needed(10, 0, effect=0.1, alpha=1e-4, power=0.95)
    assert needed.baseline == needed.calls > 100
    assert calls_needed(10 * needed.calls, 0, effect=0.1, alpha=1e-4, power=0.95).calls < needed.calls


@pytest.mark.parametrize("calls", [1, 19, 300])
def test_what_already_fails_always_cannot_fail_more(calls):
    needed = calls_needed(calls, calls, effect=0.1, alpha=1e-3, power=0.95)
    assert needed.calls == MOST_CALLS
