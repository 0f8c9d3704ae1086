"""Detection: weighs the odds that a fault is present."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_otel_diag.analyzers.builtin.evidence.failures import ALPHA, P_LEAST, FailureTest
from pytest_otel_diag.analyzers.builtin.robust_statistics import FIVE_SIGMA, Z_FLOOR, Floats, spread

PERMUTATIONS = 499
"""Number of permutations; the smallest p-value is 1/500."""

LOG_ODDS_MOST = 20.0
ALMOST_EVEN = 1.0 - 1e-9
"""Odds just below an alarm."""

SLOT_MOST = 4 * FIVE_SIGMA
"""Largest score of a slot in the persistence test."""

SPREADS = Z_FLOOR
SPREAD_FLOOR = 0.25
"""Robust spreads above the median of the quiet scores, in the second test."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """The decision with its figures.

    ``probability`` is that of a fault, at least .5 exactly if ``detected``; ``reason`` is a sentence.
    """

    score: float
    probability: float
    reason: str

    @property
    def detected(self) -> bool:
        """Whether a fault is more likely than none."""
        return self.probability >= 0.5


@dataclass(frozen=True)
class Scored:
    """Scores of services (rows) in slots (columns).

    ``whole`` is the top score of the incident against the quiet slots. ``parts`` and ``quiet`` are scored
    against the quiet slots, slot by slot. ``whole_alike`` and ``quiet_alike`` are top scores with the
    incident treated as one of the slots, also in the reference.
    """

    whole: float
    parts: Floats
    quiet: Floats
    whole_alike: float
    quiet_alike: Floats


def decide(scored: Scored, failures: Sequence[FailureTest], seed: int) -> Alarm:
    """Weigh the odds of a fault; one test suffices.

    1. *Failed calls*: the exact test of an operation or a service, p ≤ 0.05 after correction for all tests.
       No other signal, no other service and no disturbance of quiet time elsewhere can hide it.
    2. *Scores*: a score of log(1 + 5 - 3), at least one deviation of five spreads or several smaller ones,
       and in addition either the same service deviates persistently (:func:`persistence`, p ≤ 0.05), or the
       score exceeds the quiet slots' median by three robust spreads. The first detects weak, lasting faults;
       the second detects strong ones even if the incident is short, the quiet slots are few, or one of them
       contains an unlabelled incident.

    p-values become odds by the bound of Sellke, Bayarri & Berger (Am. Stat. 55, 2001), scaled to be even at
    p = 0.05. Scores add like log-odds, so one that exceeds its limit by x counts as odds of exp(x). Without
    quiet slots the score needs twice its minimum.
    """
    by_score, reason = _score_odds(scored, seed)
    first = failures[0] if failures else None
    by_failures = _odds_of(first.p_value) if first else 0.0
    if first and by_failures >= max(1.0, by_score):
        reason = f"{first}, which chance explains with p = {first.p_value:.2g} after correction for all tests"
    elif first and max(by_failures, by_score) < 1.0 and first.p_value < 1.0:
        reason = f"{reason}; {first}, which may be chance (p = {first.p_value:.2g})"
    odds = max(by_failures, by_score)
    return Alarm(scored.whole, odds / (1.0 + odds), reason)


def _score_odds(scored: Scored, seed: int) -> tuple[float, str]:
    """Return the odds of a fault by the scores, with the reason."""
    count = len(scored.quiet_alike)
    if count == 0:
        return _odds(scored.whole - 2 * FIVE_SIGMA), "there is no quiet telemetry to compare with"
    if scored.whole <= FIVE_SIGMA:
        reason = (
            f"the strongest evidence against one service, {scored.whole:.2f}, is below {FIVE_SIGMA:.2f}, "
            "the weight of one signal at five spreads"
        )
        return min(_odds(scored.whole - FIVE_SIGMA), ALMOST_EVEN), reason
    p_value = persistence(scored.parts, scored.quiet, seed)
    usual = spread(scored.quiet_alike[None, :])
    limit = float(usual.centre[0]) + SPREADS * max(float(usual.unit[0]), SPREAD_FLOOR)
    stands_out = max(_odds_of(p_value), _odds(scored.whole_alike - limit))
    verb = "stands out from" if stands_out >= 1.0 else "does not stand out from"
    reason = (
        f"the incident {verb} {count} quiet slots (persistence p = {p_value:.3f}; "
        f"score {scored.whole_alike:.2f} with a limit of {limit:.2f})"
    )
    return min(_odds(scored.whole - FIVE_SIGMA), stands_out), reason


def _odds_of(p_value: float) -> float:
    """Return the odds of a fault by the bound 1 / (-e p ln p), over those at p = 0.05."""
    p = min(max(p_value, P_LEAST), 1.0 / math.e)
    return ALPHA * math.log(ALPHA) / (p * math.log(p))


def _odds(excess: float) -> float:
    return math.exp(min(excess, LOG_ODDS_MOST))


def persistence(parts: Floats, quiet: Floats, seed: int) -> float:
    """Return the permutation p-value of the largest mean score of one service over the incident.

    T is the maximum over services of the mean score over the parts. Without a fault the parts are ordinary
    slots, so T is as large for the same number of slots drawn at random from all slots:
    p = (1 + #{T* ≥ T}) / (1 + permutations). Transient disturbances affect different services in different
    slots and average out; a fault stays in one service. A slot counts at most four times the minimum of an
    alarm, so that one sick stretch of quiet time does not outweigh an incident that lasts. The test assumes
    exchangeable slots, which holds only roughly for neighbours (disturbances last); the minimal score
    compensates for it.
    """
    count = parts.shape[1]
    if not parts.size or not quiet.size:
        return 1.0
    parts = np.minimum(parts, SLOT_MOST)
    pooled = np.concatenate([np.minimum(quiet, SLOT_MOST), parts], axis=1)
    observed = float(parts.mean(axis=1).max())
    draws = np.random.default_rng(seed).random((PERMUTATIONS, pooled.shape[1])).argsort(axis=1)[:, :count]
    chosen = np.zeros((PERMUTATIONS, pooled.shape[1]))
    np.put_along_axis(chosen, draws, 1.0 / count, axis=1)
    null = (chosen @ pooled.T).max(axis=1)
    return float((1 + np.sum(null >= observed - 1e-9)) / (1 + PERMUTATIONS))


def service_scores(columns: Sequence[dict[str, float]], services: Sequence[str]) -> Floats:
    """Return the scores as a matrix of services by slots."""
    table = np.zeros((len(services), len(columns)))
    index = {service: row for row, service in enumerate(services)}
    for column, scores in enumerate(columns):
        for service, score in scores.items():
            table[index[service], column] = score
    return table
