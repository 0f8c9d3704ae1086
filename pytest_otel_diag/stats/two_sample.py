"""Exact two-sample tests of counts, rates and latencies, before and after. Standard library only, no I/O.

* Errors: conditional binomial test of two Poisson rates (Przyborowski & Wilenski, Biometrika 31, 1940): given
  ``e0 + e1`` errors, ``e1`` is Binomial(e0 + e1, n1 / (n0 + n1)) when nothing changed.
* Request rate: quasi-Poisson z (McCullagh & Nelder, Generalized Linear Models, 1989, ch. 6): variance
  ``phi * mu * (1 + T1/T0)`` with the dispersion ``phi`` of the baseline's buckets, at least 1.
* Latency: Mann-Whitney U over the p95 of buckets (Mann & Whitney, Ann. Math. Stat. 18, 1947), exact for small
  samples, else the normal approximation with continuity correction.
* Shares: Fisher's exact test (R. A. Fisher, 1922).
* Calls needed: the smallest n for which a fault that fails ``effect`` of the calls reaches significance with
the
  wanted power.

Each ``*_p`` function returns the p-value of "nothing changed", 1 where there is too little to compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, median, pvariance

from pytest_otel_diag.stats.intervals import log_choose

LEAST_EXPECTED_CALLS = 10
"""Expected calls below which a change of the request rate is not tested."""

_EXACT_PAIRS = 400
_EXACT_EVENTS = 1000
_MOST_CALLS = 1 << 17


@dataclass(frozen=True, slots=True)
class Load:
    """Calls and errors over ``seconds``.

    Per bucket: ``bucket_calls``, and for buckets with calls the p95 and the slowest call in milliseconds.
    """

    calls: int
    errors: int
    seconds: float
    bucket_calls: tuple[int, ...] = ()
    bucket_p95_ms: tuple[float, ...] = ()
    bucket_max_ms: tuple[float, ...] = ()

    @property
    def error_ratio(self) -> float:
        """Share of failed calls, 0 without calls."""
        return self.errors / self.calls if self.calls else 0.0

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds if self.seconds > 0 else 0.0


def binomial_at_least(k: int, n: int, p: float) -> float:
    """Return P(X >= k) for X ~ Binomial(n, p), summed over the smaller tail."""
    if k <= 0 or (p >= 1.0 and k <= n):
        return 1.0
    if k > n or p <= 0.0:
        return 0.0
    odds = p / (1.0 - p)
    if k > n * p:
        return min(1.0, _tail(k, n, p, step=lambda i: (n - i) / (i + 1) * odds, move=1))
    return max(0.0, 1.0 - _tail(k - 1, n, p, step=lambda i: i / (n - i + 1) / odds, move=-1))


def _tail(start: int, n: int, p: float, *, step: Callable[[int], float], move: int) -> float:
    log_pmf = log_choose(n, start) + start * math.log(p) + (n - start) * math.log1p(-p)
    term, total, i = math.exp(log_pmf), 0.0, start
    while 0 <= i <= n and term > total * 1e-17:
        total += term
        term *= step(i)
        i += move
    return total


def error_p(before: Load, after: Load) -> float:
    """Return the one-sided p-value of "the error ratio did not rise"; 1 without anything to compare."""
    if not before.calls or not after.calls:
        return 1.0
    share = after.calls / (before.calls + after.calls)
    return binomial_at_least(after.errors, before.errors + after.errors, share)


def fisher_p(hits_before: int, n_before: int, hits_after: int, n_after: int) -> float:
    """Return the one-sided p-value of "the share of hits did not rise" (Fisher's exact test)."""
    hits_before, hits_after = min(hits_before, n_before), min(hits_after, n_after)
    hits, total = hits_before + hits_after, n_before + n_after
    if not n_after or not hits:
        return 1.0
    ways = log_choose(total, n_after)
    terms = (
        log_choose(hits, k) + log_choose(total - hits, n_after - k) - ways
        for k in range(hits_after, min(hits, n_after) + 1)
        if n_after - k <= total - hits
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def count_p(n_before: int, before_s: float, n_after: int, after_s: float) -> float:
    """Return the two-sided p-value of "both counts came at one Poisson rate".

    Given their sum one of two Poisson counts is binomial; above a thousand events the normal approximation
    with continuity correction is used.
    """
    total = n_before + n_after
    if not total or before_s <= 0 or after_s <= 0:
        return 1.0
    share = after_s / (before_s + after_s)
    if total > _EXACT_EVENTS:
        spread = math.sqrt(total * share * (1 - share))
        z = max(0.0, abs(n_after - total * share) - 0.5) / spread
        return math.erfc(z / math.sqrt(2))
    upper = binomial_at_least(n_after, total, share)
    lower = binomial_at_least(n_before, total, 1 - share)
    return min(1.0, 2 * min(upper, lower))


def rate_p(before: Load, after: Load) -> float:
    """Return the two-sided p-value of "the request rate did not change"; 1 below 10 expected calls."""
    if before.seconds <= 0 or after.seconds <= 0:
        return 1.0
    exposure = after.seconds / before.seconds
    expected = before.calls * exposure
    if expected < LEAST_EXPECTED_CALLS:
        return 1.0
    spread = _dispersion(before.bucket_calls) * expected * (1 + exposure)
    return math.erfc(abs(after.calls - expected) / math.sqrt(2 * spread))


def _dispersion(counts: Sequence[int]) -> float:
    mean = fmean(counts) if counts else 0.0
    return max(1.0, pvariance(counts) / mean) if mean else 1.0


def latency_p(before: Load, after: Load) -> float:
    """Return the two-sided p-value of "bucket p95s come from the same distribution"."""
    x, y = after.bucket_p95_ms, before.bucket_p95_ms
    if not x or not y:
        return 1.0
    u = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in x for b in y)
    extreme = math.floor(max(u, len(x) * len(y) - u))
    return min(1.0, 2 * _u_at_least(extreme, len(x), len(y)))


def _u_at_least(u: int, m: int, n: int) -> float:
    if m * n <= _EXACT_PAIRS:
        ways = _u_counts(m, n)
        return sum(ways[u:]) / sum(ways)
    spread = math.sqrt(m * n * (m + n + 1) / 12)
    return 0.5 * math.erfc((u - 0.5 - m * n / 2) / spread / math.sqrt(2))


@lru_cache(maxsize=256)
def _u_counts(m: int, n: int) -> tuple[int, ...]:
    """Count arrangements by U: coefficients of the Gaussian binomial [m+n choose m]."""
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for j in range(m * n, n + i - 1, -1):
            counts[j] -= counts[j - n - i]
        for j in range(i, m * n + 1):
            counts[j] += counts[j - i]
    return tuple(counts)


def latency_ratio(before: Load, after: Load) -> float:
    """Return median bucket p95 after over before; 1 where either is missing or zero."""
    if not before.bucket_p95_ms or not after.bucket_p95_ms:
        return 1.0
    low, high = median(before.bucket_p95_ms), median(after.bucket_p95_ms)
    return high / low if low > 0 and high > 0 else 1.0


def calls_needed(before: Load, *, effect: float, alpha: float, power: float) -> int | None:
    """Return how many calls show *effect* more failures; None where the baseline is too thin."""
    if not before.calls:
        return None
    ratio = min(1.0, before.error_ratio + effect)

    def enough(calls: int) -> bool:
        return binomial_at_least(_critical(before, calls, alpha), calls, ratio) >= power

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_CALLS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _critical(before: Load, calls: int, alpha: float) -> int:
    """Return the fewest errors among *calls* that are significant, calls + 1 when none is."""
    low, high = 0, calls + 1
    while high - low > 1:
        middle = (low + high) // 2
        p = error_p(before, Load(calls=calls, errors=middle, seconds=1.0))
        low, high = (low, middle) if p <= alpha else (middle, high)
    return high
