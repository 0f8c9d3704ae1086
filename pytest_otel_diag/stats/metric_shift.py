"""Tests whether a metric left its baseline, from few points with unknown noise. No I/O.

Metrics come about once a minute, so a wait holds a handful of points and a baseline hardly more. Rank tests
cannot decide on that (ten points before and one after: p >= 1/11). A new point is therefore compared with the
prediction of a model of the baseline points, and must be unlikely under *each* of three models: a constant
with normal noise, a constant whose noise grows with the value (log-normal), and a straight line (a slow leak,
a warm-up). The prediction of a further observation is Student's t with the standard error of one observation
(Draper & Smith, Applied Regression Analysis, 3rd ed., ch. 1 and 3). The points after are taken as one
observation, their median, so that their dependence cannot add certainty.

Where all baseline points are equal, there is no noise to learn and ranks decide alone: all of ``m``
exchangeable later points are the largest with probability 1 / C(n + m, m).

Since no model covers saw-teeth and bursts, the change must be large as well: beyond the largest (or smallest)
baseline value by a factor that depends on the signal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import NamedTuple

LEAST_POINTS = 4
"""Baseline points below which nothing is tested."""

_LEAST_NOISE_RATIO = 0.02


class Point(NamedTuple):
    """A value of a metric at a time in seconds; all points of a comparison share one clock."""

    at_s: float
    value: float


@dataclass(frozen=True, slots=True)
class Floor:
    """How large a change must be to matter: beyond the baseline's extreme by ``factor``.

    ``counted`` metrics count things that wait; their noise is at least that of a Poisson count. ``grows``
    says that the value follows the load.
    """

    factor: float
    counted: bool = False
    grows: bool = False


def rise_p(before: Sequence[Point], after: Sequence[Point], floor: Floor) -> float:
    """Return the one-sided p-value of "the level did not rise"; 1 where too little is known."""
    if len(before) < LEAST_POINTS or not after:
        return 1.0
    values, level = [point.value for point in before], median(point.value for point in after)
    high = max(values)
    if level <= (high * floor.factor if high > 0 else high) or (floor.counted and level < high + 1):
        return 1.0
    if max(values) == min(values) and not floor.counted:
        above = all(point.value > high for point in after)
        return 1.0 / math.comb(len(values) + len(after), len(after)) if above else 1.0
    noise = max(
        _LEAST_NOISE_RATIO * abs(fmean(values)), math.sqrt(max(fmean(values), 1.0)) if floor.counted else 0.0
    )
    at_s = median(point.at_s for point in after)
    ps = [_constant_p(values, level, noise), _line_p(before, Point(at_s, level), noise)]
    if min(values) > 0 and not floor.counted:
        logs = [math.log(value) for value in values]
        ps.append(_constant_p(logs, math.log(level), _LEAST_NOISE_RATIO))
    return max(ps)


def fall_p(before: Sequence[Point], after: Sequence[Point], floor: Floor) -> float:
    """Return the one-sided p-value of "the level did not fall", of a metric that is never negative."""
    if any(point.value <= 0 for point in before):
        return 1.0  # a metric that is zero at times cannot be tested for a fall
    least = min((point.value for point in before), default=0.0) / 1e3
    return rise_p(_inverted(before, least), _inverted(after, least), floor)


def _inverted(points: Sequence[Point], least: float) -> list[Point]:
    return [Point(at_s, 1 / max(value, least)) for at_s, value in points]


def _constant_p(values: Sequence[float], level: float, noise: float) -> float:
    spread = max(stdev(values), noise) * math.sqrt(1 + 1 / len(values))
    return student_tail((level - fmean(values)) / spread, len(values) - 1)


def _line_p(before: Sequence[Point], new: Point, noise: float) -> float:
    times, values = [point.at_s for point in before], [point.value for point in before]
    mid, count = fmean(times), len(times)
    spread = sum((at_s - mid) ** 2 for at_s in times)
    if not spread:
        return 0.0  # one instant has no line; the other models decide
    slope = sum((at_s - mid) * value for at_s, value in before) / spread
    left = [value - fmean(values) - slope * (at_s - mid) for at_s, value in before]
    residual = max(math.sqrt(sum(x * x for x in left) / (count - 2)), noise)
    error = residual * math.sqrt(1 + 1 / count + (new.at_s - mid) ** 2 / spread)
    return student_tail((new.value - fmean(values) - slope * (new.at_s - mid)) / error, count - 2)


def student_tail(t: float, df: int) -> float:
    """Return P(T >= t) of Student's t with *df* degrees of freedom.

    Closed sums for whole degrees of freedom: Abramowitz & Stegun, Handbook of Mathematical Functions,
    26.7.3 and 26.7.4; the far tail by its leading terms, where the sums would cancel to nothing.
    """
    if t < 0:
        return 1.0 - student_tail(-t, df)
    angle = math.atan2(t, math.sqrt(df))
    cosine2 = df / (df + t * t)
    if cosine2 < 0.5:
        return _far_tail(cosine2, df)
    if df % 2:
        term, total = math.cos(angle), 0.0
        for i in range(1, df, 2):
            total += term
            term *= cosine2 * (i + 1) / (i + 2)
        inside = 2 / math.pi * (angle + math.sin(angle) * total)
    else:
        term, total = 1.0, 0.0
        for i in range(0, df, 2):
            total += term
            term *= cosine2 * (i + 1) / (i + 2)
        inside = math.sin(angle) * total
    return max(0.0, (1.0 - inside) / 2)


def _far_tail(x: float, df: int) -> float:
    """Return half the regularised incomplete beta I_x(df/2, 1/2) by its series (26.5.4 there)."""
    a = df / 2
    log_beta = math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
    total, term = 0.0, 1.0
    for i in range(200):
        total += term / (a + i)
        term *= x * (i + 0.5) / (i + 1)
    return 0.5 * math.exp(a * math.log(x) - log_beta) * total


def restarts_p(before: int, before_s: float, after: int, after_s: float) -> float:
    """Return the p-value of "instances start as rarely as before".

    Healthy instances are assumed to start once a day at most, or as often as seen: a Gamma-Poisson model with
    one start a day as its prior (Gelman et al., Bayesian Data Analysis, ch. 2).
    """
    if after <= 0:
        return 1.0
    mean = (1 + before) / (86_400.0 + before_s) * after_s
    term = math.exp(after * math.log(mean) - mean - math.lgamma(after + 1)) if mean > 0 else 0.0
    total, k = 0.0, after
    while term > total * 1e-12:
        total += term
        k += 1
        term *= mean / k
    return min(1.0, total)
