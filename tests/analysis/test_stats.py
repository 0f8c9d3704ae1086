"""Statistics against scipy and against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from pytest_otel_diag.analyzers.builtin import robust_statistics
from pytest_otel_diag.analyzers.builtin.detection import Scored, decide, persistence

cells = st.floats(-1e6, 1e6, allow_nan=False) | st.just(float("nan"))
rows = st.lists(cells, min_size=1, max_size=30)


@given(rows, st.floats(0, 1))
def test_quantiles_equal_numpys(row: list[float], q: float) -> None:
    values = np.array([row])
    count = np.isfinite(values).sum(axis=1).astype(float)
    found = robust_statistics.sorted_quantile(np.sort(values, axis=1), count, q)[0]
    clean = np.array([value for value in row if not np.isnan(value)])
    if len(clean):
        assert found == pytest.approx(np.quantile(clean, q), rel=1e-9, abs=1e-6)
    else:
        assert np.isnan(found)


def test_quantiles_of_nothing() -> None:
    assert np.isnan(robust_statistics.sorted_quantile(np.zeros((2, 0)), np.zeros(2), 0.5)).all()


def test_the_spread_of_a_normal_is_its_95_percent_distance() -> None:
    draws = np.random.default_rng(1).normal(10.0, 2.0, (4, 20_000))
    found = robust_statistics.spread(draws)
    assert found.centre == pytest.approx([10.0] * 4, abs=0.1)
    assert found.unit == pytest.approx([3.92] * 4, rel=0.05)


def test_a_fifth_of_disturbed_slots_does_not_widen_the_spread() -> None:
    row = np.array([[*np.linspace(9, 11, 21), *([1e6] * 4)]])
    assert robust_statistics.spread(row).unit[0] < 3.0


@given(st.floats(0, 40), st.integers(1, 60))
def test_student_tail_is_scipys(z: float, freedom: int) -> None:
    assert robust_statistics.student_tail(z, freedom) == pytest.approx(
        2 * scipy_stats.t.sf(z, freedom), abs=1e-9
    )


@pytest.mark.parametrize("freedom", [1, 2, 5, 9, 39])
def test_the_quantile_of_chi_square_is_scipys(freedom: int) -> None:
    expected = scipy_stats.chi2.ppf(0.99, freedom)
    assert robust_statistics.chi_square_quantile_99(freedom) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("count", [4, 6, 14, 24, 60])
def test_few_slots_widen_a_unit_like_a_prediction_interval(count: int) -> None:
    expected = scipy_stats.t.ppf(0.975, count - 1) / 1.96 * np.sqrt(1 + 1 / count)
    assert robust_statistics.few_slots(np.array([float(count)]))[0] == pytest.approx(expected, rel=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_is_scipys(p_values: list[float]) -> None:
    expected = scipy_stats.false_discovery_control(p_values)
    assert robust_statistics.benjamini_hochberg(p_values, len(p_values)) == pytest.approx(list(expected))


def test_tests_that_found_nothing_count_too() -> None:
    assert robust_statistics.benjamini_hochberg([0.01], 100) == [1.0]
    assert robust_statistics.benjamini_hochberg([], 5) == []


def test_one_rare_event_is_no_proof() -> None:
    one = robust_statistics.rate_deviance(np.array([1.0]), np.array([5.0]), np.array([0.0]), np.array([30.0]))
    five = robust_statistics.rate_deviance(
        np.array([5.0]), np.array([5.0]), np.array([0.0]), np.array([30.0])
    )
    gone = robust_statistics.rate_deviance(
        np.array([0.0]), np.array([30.0]), np.array([300.0]), np.array([300.0])
    )
    none = robust_statistics.rate_deviance(np.array([0.0]), np.array([0.0]), np.array([3.0]), np.array([3.0]))
    assert 0 < one[0] < 2
    assert five[0] > 3
    assert gone[0] < -5
    assert none[0] == 0.0


def test_overdispersed_counts_are_recognised() -> None:
    wild = robust_statistics.overdispersion(np.array([[0.0, 40.0, 2.0, 38.0]]), np.array([[20.0] * 4]))
    calm = robust_statistics.overdispersion(np.array([[20.0, 21.0, 19.0, 20.0]]), np.array([[20.0] * 4]))
    assert wild[0] > 10
    assert calm[0] == 1.0


def scored(parts: np.ndarray, quiet: np.ndarray) -> Scored:
    top = quiet.max(axis=0) if quiet.size else np.zeros(0)
    whole = float(parts.mean(axis=1).max()) if parts.size else 0.0
    return Scored(whole, parts, quiet, whole, top)


def test_a_fault_that_stays_is_told_from_disturbances_that_wander() -> None:
    dice = np.random.default_rng(2)
    quiet, wandering, staying = np.zeros((20, 24)), np.zeros((20, 6)), np.zeros((20, 6))
    for table in (quiet, wandering):
        for column in range(table.shape[1]):
            table[dice.integers(20), column] = 2.0
    staying[3] = 2.0
    assert persistence(staying, quiet, 0) < 0.01
    assert persistence(wandering, quiet, 0) > 0.05
    assert decide(scored(staying, quiet), [], 0).detected


def test_the_persistence_test_keeps_its_level() -> None:
    dice = np.random.default_rng(3)
    alarms = [
        persistence(dice.exponential(1, (8, 5)), dice.exponential(1, (8, 24)), seed) <= 0.1
        for seed in range(300)
    ]
    assert np.mean(alarms) < 0.15


def test_alarms_need_five_spreads() -> None:
    weak = scored(np.full((2, 5), 0.9), np.zeros((2, 24)))
    assert not decide(weak, [], 0).detected
    assert "below" in decide(weak, [], 0).reason


def test_a_strong_short_incident_alarms_beside_few_quiet_slots() -> None:
    assert decide(scored(np.array([[6.0]]), np.array([[0.0, 0.1, 0.2, 5.0, 0.0, 0.1]])), [], 0).detected


def test_a_sick_stretch_of_another_service_does_not_hide_a_lasting_fault() -> None:
    quiet, parts = np.zeros((3, 24)), np.zeros((3, 6))
    quiet[0, 10:14] = 8.0
    parts[1] = 2.0
    assert persistence(parts, quiet, 0) <= 0.05
    alarm = decide(scored(parts, quiet), [], 0)
    assert alarm.detected
    assert "stands out from 24 quiet slots" in alarm.reason


def test_without_quiet_slots_only_strong_evidence_alarms() -> None:
    nothing = np.zeros((1, 0))
    assert decide(scored(np.array([[4.0]]), nothing), [], 0).detected
    assert not decide(scored(np.array([[2.0]]), nothing), [], 0).detected
    assert persistence(nothing, nothing, 0) == 1.0


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_persistence_is_repeatable(seed: int) -> None:
    table = np.random.default_rng(5).exponential(1, (4, 12))
    assert persistence(table[:, :3], table[:, 3:], seed) == persistence(table[:, :3], table[:, 3:], seed)
