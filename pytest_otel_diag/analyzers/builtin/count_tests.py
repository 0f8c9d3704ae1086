"""An exact test of failed calls that also holds for few calls.

It is the tail of the posterior predictive distribution. Given K failures among N quiet calls and a Beta(a, b)
prior of the share of failures, the failures among n further calls are beta-binomial with a + K and b + N - K
(Gelman et al., Bayesian Data Analysis, 2013, ch. 2). With a = 1 and b = 0 its tail is the p-value of Fisher's
exact test (Altham, J. R. Stat. Soc. B 31, 1969). Fisher's test alone cannot find fault with an operation that
was called twice in quiet time and has failed in all of three calls since; the prior supplies what is known
about operations in general.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PRIOR_CALLS = 10.0
"""Weight of the prior in calls."""

PRIOR_MEAN = 0.01
"""Smallest mean of the prior: healthy operations fail in one of a hundred calls."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Failures (``hits``) among calls (``trials``) now and in quiet time."""

    hits: float
    trials: float
    quiet_hits: float
    quiet_trials: float


@dataclass(frozen=True, slots=True)
class Prior:
    """A beta distribution of the share of failures of an operation, in calls that failed and succeeded."""

    failed: float
    succeeded: float

    @classmethod
    def of_mean(cls, mean: float) -> Prior:
        """Return the prior with the *mean* share of failures of a system, at least 1 % and at most half."""
        failed = PRIOR_CALLS * min(max(mean, PRIOR_MEAN), 0.5)
        return cls(failed, PRIOR_CALLS - failed)


def rise_p(counts: Counts, prior: Prior, dispersion: float = 1.0) -> float:
    """Return the one-sided mid-p-value of "the share of failures did not rise".

    *dispersion* is the variance of quiet counts over the binomial one. Failures that come in bunches are
    fewer independent events, so all counts are divided by it.
    """
    n, k = counts.trials / dispersion, counts.hits / dispersion
    if k <= 0.0:
        return 1.0
    a = prior.failed + counts.quiet_hits / dispersion
    b = prior.succeeded + (counts.quiet_trials - counts.quiet_hits) / dispersion
    if k / n <= a / (a + b):
        return 1.0
    term = math.exp(_log_choose(n, k) + _log_beta(k + a, n - k + b) - _log_beta(a, b))
    total = 0.5 * term
    while k + 1.0 <= n:
        term *= (n - k) / (k + 1.0) * (k + a) / (n - k - 1.0 + b)
        k += 1.0
        total += term
        if term < 1e-9 * total:
            break
    return min(1.0, total)


def _log_choose(n: float, k: float) -> float:
    return math.lgamma(n + 1.0) - math.lgamma(k + 1.0) - math.lgamma(n - k + 1.0)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
