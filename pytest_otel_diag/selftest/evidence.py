"""Significance of the difference between two counts, with the standard library only."""

from __future__ import annotations

import math


def p_share(hits_before: int, n_before: int, hits_then: int, n_then: int) -> float:
    """Return the one-sided p-value of an increased share of hits.

    Fisher's exact test: the tail of the hypergeometric distribution towards more hits later (R. A. Fisher,
    1922). 1.0 without observations.
    """
    hits, total = hits_before + hits_then, n_before + n_then
    if not n_then or not hits:
        return 1.0
    most = min(hits, n_then)
    whole = _log_choose(total, n_then)
    terms = (
        _log_choose(hits, k) + _log_choose(total - hits, n_then - k) - whole
        for k in range(hits_then, most + 1)
        if n_then - k <= total - hits
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def p_rate(n_before: int, before_s: float, n_then: int, then_s: float) -> float:
    """Return the two-sided p-value of different rates of two counts.

    Given their sum, one of two Poisson counts is binomial (Przyborowski and Wilenski, 1940); beyond a
    thousand events it uses the normal approximation with continuity correction.
    """
    total = n_before + n_then
    if not total or before_s <= 0 or then_s <= 0:
        return 1.0
    share = then_s / (before_s + then_s)
    if total > 1000:
        spread = math.sqrt(total * share * (1 - share))
        z = max(0.0, abs(n_then - total * share) - 0.5) / spread
        return math.erfc(z / math.sqrt(2))
    upper = math.fsum(_binomial(total, k, share) for k in range(n_then, total + 1))
    lower = math.fsum(_binomial(total, k, share) for k in range(n_then + 1))
    return min(1.0, 2 * min(upper, lower))


def _binomial(n: int, k: int, share: float) -> float:
    return math.exp(_log_choose(n, k) + k * math.log(share) + (n - k) * math.log1p(-share))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
