"""Metrics with few points: the t distribution against scipy, false alarms on simulated quiet series."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_otel_diag.stats.metric_shift import Floor, Point, fall_p, restarts_p, rise_p, student_tail

LOOKS = 3
ALPHA = 0.01


def points(*values, start_s=0.0):
    return [Point(start_s + 60.0 * index, value) for index, value in enumerate(values)]


@given(st.floats(-1e4, 1e4), st.integers(1, 80))
def test_the_tail_of_student_is_scipys(t, df):
    assert student_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-6, abs=1e-300)


def normal(rng, n):
    return [100 + 10 * rng.gauss(0, 1) for _ in range(n)]


def lognormal(rng, n):
    return [math.exp(rng.gauss(0, 1)) for _ in range(n)]


def sawtooth_heap(rng, n):
    phase, period = rng.random(), rng.uniform(1.3, 9)
    return [60 + 90 * ((phase + index / period) % 1) for index in range(n)]


def slow_leak(rng, n):
    slope = rng.uniform(0, 3)
    return [50 + slope * index + rng.gauss(0, 1) for index in range(n)]


def sluggish(rng, n):
    level, found = 0.0, []
    for _ in range(n + 20):
        level = 0.8 * level + rng.gauss(0, 1)
        found.append(20 + 2 * level)
    return found[20:]


def random_walk(rng, n):
    level, found = 50.0, []
    for _ in range(n):
        level = max(1.0, level + rng.gauss(0, 1.5))
        found.append(level)
    return found


def counter_rate(rng, n):
    return [sum(rng.random() < 0.05 for _ in range(400)) / 60 for _ in range(n)]


def rare_pulse(rng, n):
    return [0.002 if rng.random() < 0.1 else 0.0 for _ in range(n)]


def waiting(rng, n):
    return [float(sum(rng.random() < 0.05 for _ in range(20))) for _ in range(n)]


def bursts(rng, n):
    return [rng.expovariate(1) for _ in range(n)]


QUIET = [normal, lognormal, sawtooth_heap, slow_leak, sluggish, random_walk, counter_rate, rare_pulse, bursts]


def false_alarms(series, test, floor, runs=600):
    """Share of quiet waits in which one of the looks, one a new point, sees an impact."""
    rng, wrong = random.Random(7), 0
    for _ in range(runs):
        count = rng.choice((4, 6, 10, 15))
        known = points(*series(rng, count + LOOKS))
        before, after = known[:count], known[count:]
        wrong += any(test(before, after[:seen], floor) <= ALPHA / LOOKS for seen in range(1, LOOKS + 1))
    return wrong / runs


@pytest.mark.parametrize("series", QUIET)
@pytest.mark.parametrize("test", [rise_p, fall_p])
def test_quiet_series_seldom_show_a_change(series, test):
    """At most alpha, and three standard errors of this simulation."""
    limit = ALPHA + 3 * math.sqrt(ALPHA / 600)
    for factor in (1.2, 1.5):
        assert false_alarms(series, test, Floor(factor)) <= limit


def test_counts_of_what_waits_are_no_queue():
    assert false_alarms(waiting, rise_p, Floor(1.5, counted=True)) <= ALPHA


@pytest.mark.parametrize(
    ("before", "after", "floor"),
    [
        ((0.02, 0.03, 0.02, 0.025), (1.1,), Floor(1.5)),  # a processor that starts to spin
        ((52.0, 52.4, 52.1, 52.6, 53.0), (74.0,), Floor(1.2)),  # memory that runs full
        ((0.0, 0.0, 1.0, 0.0, 0.0, 0.0), (190.0,), Floor(1.5, counted=True)),  # lag
        ((0.0,) * 6, (40.0,), Floor(1.5, counted=True)),
        ((30.0,) * 15, (34.0, 34.0, 34.0), Floor(1.1)),  # threads: no noise to learn, ranks decide
    ],
)
def test_large_changes_are_seen_with_the_first_points(before, after, floor):
    later = points(*after, start_s=60.0 * len(before))
    assert rise_p(points(*before), later, floor) <= ALPHA / LOOKS


def test_a_fall_is_a_rise_upside_down():
    before, later = points(5.0, 5.2, 4.9, 5.1, 5.0), points(0.01, start_s=300)
    assert fall_p(before, later, Floor(1.5)) < 1e-3 < rise_p(before, later, Floor(1.5)) == 1.0
    assert fall_p(before, points(0.0, start_s=300), Floor(1.5)) < 1e-3
    assert fall_p(points(5.0, 0.0, 5.0, 5.0), later, Floor(1.5)) == 1.0


def test_little_is_said_of_little():
    floor = Floor(1.5)
    assert rise_p(points(1.0, 1.1, 0.9), points(99.0), floor) == 1.0
    assert rise_p(points(1.0, 1.1, 0.9, 1.0), [], floor) == 1.0
    assert rise_p(points(1.0, 1.1, 0.9, 1.0), points(1.6), floor) > ALPHA / LOOKS  # far, but four points
    assert rise_p(points(0.0, 0.0, 0.0, 0.0), points(0.0), floor) == 1.0
    assert rise_p(points(*[2.0] * 9), points(9.0, 2.0, 9.0), floor) == 1.0  # one is as before
    assert rise_p(points(*[0.0] * 9), points(1.0), Floor(1.0, counted=True)) > ALPHA / LOOKS


def test_ranks_decide_where_there_was_no_noise():
    assert rise_p(points(*[2.0] * 9), points(9.0, 8.0), Floor(1.5)) == pytest.approx(1 / math.comb(11, 2))


def test_points_of_one_instant_have_no_line():
    before = [Point(5.0, value) for value in (1.0, 1.1, 0.9, 1.0)]
    assert rise_p(before, [Point(9.0, 50.0)], Floor(1.5)) < 1e-3


@given(st.integers(0, 5), st.floats(60, 1e6), st.integers(1, 9), st.floats(1, 1e4))
def test_restarts_are_a_poisson_count(before, before_s, after, after_s):
    mean = (1 + before) / (86_400 + before_s) * after_s
    assert restarts_p(before, before_s, after, after_s) == pytest.approx(
        stats.poisson.sf(after - 1, mean), rel=1e-6, abs=1e-300
    )


def test_one_restart_soon_after_the_fault_is_rare_and_none_is_nothing():
    assert restarts_p(0, 600, 1, 60) < 1e-3 < restarts_p(9, 600, 1, 60)
    assert restarts_p(0, 600, 0, 60) == 1.0
