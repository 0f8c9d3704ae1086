"""Intervals, exact binomial sums and summaries, in closed form and without scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from pytest_otel_diag.model.base import Finite, Model

CONFIDENCE = 0.95
"""Two-sided confidence of every interval unless something else is asked for."""


class Interval(Model):
    """A closed interval ``[low, high]``."""

    low: Finite
    high: Finite


class Summary(Model):
    """Location and spread of *n* numbers, in the unit of the numbers."""

    n: int
    mean: Finite
    median: Finite
    p90: Finite
    low: Finite
    high: Finite


def z_value(confidence: float = CONFIDENCE) -> float:
    """Return the two-sided standard normal quantile, 1.96 for 0.95; raises ValueError outside (0, 1)."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; it must lie strictly between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2.0)


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the Wilson score interval of a proportion, None when nothing was observed.

    With p = successes / n and z the normal quantile:
    (p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n)  (E. B. Wilson, JASA 22, 1927).

    *successes* may be fractional: for the mean of values in [0, 1] the interval is conservative,
    since no such value varies more than a coin with the same mean (its variance is at most p(1−p)).
    Raises ValueError when successes lie outside 0..n.
    """
    if n == 0:
        return None
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}; pass between 0 and {n}")
    z = z_value(confidence)
    p = successes / n
    scale = 1.0 + z * z / n
    centre = p + z * z / (2.0 * n)
    spread = z * math.sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n))
    # At the ends the formula is exactly 0 or 1; floating point is an epsilon off.
    low = 0.0 if successes == 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + spread) / scale)
    return Interval(low=low, high=high)


def wilson_size(rate: float, threshold: float, confidence: float = CONFIDENCE) -> int | None:
    """Return the smallest n at which the Wilson interval of *rate* excludes *threshold*.

    The Wilson interval is the inverted score test, so the threshold t is on its edge exactly when
    (rate − t)² = z²·t(1−t)/n, and n = z²·t(1−t)/(rate − t)². None when the rate equals the threshold:
    no number of observations separates the two.
    """
    gap = abs(rate - threshold)
    if gap < 1e-12:
        return None
    exact = z_value(confidence) ** 2 * threshold * (1.0 - threshold) / (gap * gap)
    # Rounding errors must not turn a whole number into the next one.
    return max(1, math.ceil(exact - 1e-9))


def log_choose(n: int, k: int) -> float:
    """Return the logarithm of the binomial coefficient."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def binomial_pmf(k: int, n: int, p: float) -> float:
    """Return P(X = k) for X ~ Binomial(n, p)."""
    if not 0 <= k <= n:
        return 0.0
    if p <= 0.0 or p >= 1.0:
        return float(k == (0 if p <= 0.0 else n))
    return math.exp(log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p))


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Return P(X ≤ k) for X ~ Binomial(n, p)."""
    return min(1.0, math.fsum(binomial_pmf(i, n, p) for i in range(k + 1)))


def exact_size(threshold: float, failures: int = 0, confidence: float = CONFIDENCE) -> int:
    """Return the smallest n that certifies *threshold* one-sided with this many failures allowed.

    Exact (Clopper and Pearson, Biometrika 26, 1934): the smallest n with
    P(X ≤ failures | n, 1 − threshold) ≤ 1 − confidence. Without failures that is threshold^n ≤
    1 − confidence: 14, 29 and 59 runs for 0.8, 0.9 and 0.95. Raises ValueError for a threshold
    outside (0, 1) or a negative number of failures.
    """
    if not 0.0 < threshold < 1.0 or failures < 0:
        raise ValueError(
            f"threshold {threshold} with {failures} failures cannot be sized; "
            "give a threshold strictly between 0 and 1 and at least 0 failures"
        )
    alpha = 1.0 - confidence
    low, high = failures, failures + 1
    while binomial_cdf(failures, high, 1.0 - threshold) > alpha:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_cdf(failures, middle, 1.0 - threshold) > alpha:
            low = middle
        else:
            high = middle
    return high


def quantile(values: Sequence[float], q: float) -> float:
    """Return the *q* quantile, linear between order statistics (Hyndman and Fan 1996, type 7).

    Raises ValueError when there are no values.
    """
    if not values:
        raise ValueError("no values have no quantile; pass at least one value")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarise(values: Sequence[float]) -> Summary | None:
    """Return n, mean, median, p90, smallest and largest; None when there are no values."""
    if not values:
        return None
    return Summary(
        n=len(values),
        mean=math.fsum(values) / len(values),
        median=quantile(values, 0.5),
        p90=quantile(values, 0.9),
        low=min(values),
        high=max(values),
    )
