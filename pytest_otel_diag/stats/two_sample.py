"""Two-sample tests of counts, rates and latencies, before and after. Standard library only, no I/O.

* Errors and other shares: the conditional test of two binomials (R. A. Fisher, 1935). Given ``e0 + e1``
  errors among ``n0 + n1`` calls, ``e1`` is hypergeometric when nothing changed. :func:`fisher_p` is the exact
  test, whose true level lies far below the nominal one for small counts. :func:`error_p` is its mid-p version
  (H. O. Lancaster, JASA 56, 1961), which counts the observed table half: on average over the outcomes of the
  null hypothesis a mid-p value is ½, as a p-value of a continuous statistic is. For single rates
  it may exceed its level by a little; whoever shares one level among many tests has that much to spare.
* Request rate: calls come in clumps, of ``phi`` calls on average, where ``phi`` is the dispersion of the
  baseline's buckets (variance over mean, at least 1; McCullagh & Nelder, Generalized Linear Models, 1989,
  ch. 6). Clumps are compared as two Poisson counts, exactly: given their sum one is binomial. The normal
  approximation would be off by orders of magnitude at the levels of single looks.
* Latency: Mann-Whitney U over the p95 of buckets (Mann & Whitney, Ann. Math. Stat. 18, 1947), exact for small
  samples, else the normal approximation with continuity correction.

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
    return _sum(math.exp(log_pmf), start, step, move=move)


def _sum(term: float, at: int, step: Callable[[int], float], *, move: int) -> float:
    """Return the sum of a tail of a distribution whose terms have the ratio *step* and end with zero."""
    total, i = 0.0, at
    while term > total * 1e-17:
        total += term
        term *= step(i)
        i += move
    return total


def error_p(before: Load, after: Load) -> float:
    """Return the one-sided mid-p value of "the error ratio did not rise"; 1 without anything to compare."""
    if not before.calls or not after.calls:
        return 1.0
    total = before.calls + after.calls
    return hypergeometric_at_least(
        after.errors, hits=before.errors + after.errors, total=total, drawn=after.calls, mid=True
    )


def fisher_p(hits_before: int, n_before: int, hits_after: int, n_after: int) -> float:
    """Return the one-sided p-value of "the share of hits did not rise" (Fisher's exact test)."""
    hits_before, hits_after = min(hits_before, n_before), min(hits_after, n_after)
    return hypergeometric_at_least(
        hits_after, hits=hits_before + hits_after, total=n_before + n_after, drawn=n_after
    )


def hypergeometric_at_least(k: int, *, hits: int, total: int, drawn: int, mid: bool = False) -> float:
    """Return P(X >= k) for the hits among *drawn* of *total* things of which *hits* are hits.

    With *mid*, P(X > k) + P(X = k) / 2. Summed over the smaller tail.
    """
    least, most = max(0, drawn - (total - hits)), min(hits, drawn)
    if k > most:
        return 0.0
    if k < least:
        return 1.0
    log_pmf = log_choose(hits, k) + log_choose(total - hits, drawn - k) - log_choose(total, drawn)
    at_k = math.exp(min(0.0, log_pmf))
    share = 0.5 if mid else 1.0
    spare = total - hits - drawn

    def up(i: int) -> float:
        return (hits - i) * (drawn - i) / ((i + 1) * (spare + i + 1))

    def down(i: int) -> float:
        return i * (spare + i) / ((hits - i + 1) * (drawn - i + 1))

    if k * total > hits * drawn:
        return min(1.0, _sum(at_k, k, up, move=1) - (1.0 - share) * at_k)
    return min(1.0, max(0.0, 1.0 - _sum(at_k, k, down, move=-1) + share * at_k))


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
    clump = _dispersion(before.bucket_calls)
    rose = after.calls > expected
    # Rounded towards "nothing changed".
    earlier = math.ceil(before.calls / clump) if rose else math.floor(before.calls / clump)
    now = math.floor(after.calls / clump) if rose else math.ceil(after.calls / clump)
    total, share = earlier + now, after.seconds / (before.seconds + after.seconds)
    tail = binomial_at_least(now, total, share) if rose else binomial_at_least(earlier, total, 1 - share)
    return min(1.0, 2 * tail)


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
