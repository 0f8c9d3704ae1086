"""Detection: decides whether the scores of the incident stand out from those of quiet slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_otel_diag.analyzers.builtin.robust_statistics import FIVE_SIGMA, Z_FLOOR, Floats, spread

ALPHA = 0.05
PERMUTATIONS = 499
"""Number of permutations; the smallest p-value is 1/500."""

SPREADS = Z_FLOOR
SPREAD_FLOOR = 0.25
"""Robust spreads above the median of the quiet scores, in the second test."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """The decision with its figures; ``p_value`` is None without quiet slots."""

    detected: bool
    score: float
    p_value: float | None
    slots: int
    reason: str


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


def decide(scored: Scored, seed: int) -> Alarm:
    """Decide whether the incident stands out.

    Two conditions must hold:

    1. score > log(1 + 5 - 3): at least one deviation of five spreads, or several smaller ones. This alone
       prevents alarms in a quiet system.
    2. The same service deviates persistently (:func:`persistence`, p ≤ 0.05), or the score exceeds the
       quiet slots' median by three robust spreads. The first detects weak, lasting faults; the second detects
       strong ones even if the incident is short, the quiet slots are few, or one of them contains an
       unlabelled incident.

    Without quiet slots only the first condition applies, with twice its threshold.
    """
    count = len(scored.quiet_alike)
    if count == 0:
        return Alarm(
            scored.whole > 2 * FIVE_SIGMA, scored.whole, None, 0, "no quiet telemetry to compare with"
        )
    p_value = persistence(scored.parts, scored.quiet, seed)
    if scored.whole <= FIVE_SIGMA:
        reason = (
            f"the strongest evidence, {scored.whole:.2f}, is below {FIVE_SIGMA:.2f}, "
            "five spreads of one signal"
        )
        return Alarm(False, scored.whole, p_value, count, reason)
    usual = spread(scored.quiet_alike[None, :])
    limit = float(usual.centre[0]) + SPREADS * max(float(usual.unit[0]), SPREAD_FLOOR)
    detected = p_value <= ALPHA or scored.whole_alike > limit
    verb = "stands out from" if detected else "does not stand out from"
    reason = (
        f"it {verb} {count} quiet slots (persistence p = {p_value:.3f}; "
        f"score {scored.whole_alike:.2f} with a limit of {limit:.2f})"
    )
    return Alarm(detected, scored.whole, p_value, count, reason)


def persistence(parts: Floats, quiet: Floats, seed: int) -> float:
    """Return the permutation p-value of the largest mean score of one service over the incident.

    T is the maximum over services of the mean score over the parts. Without a fault the parts are ordinary
    slots, so T is as large for the same number of slots drawn at random from all slots:
    p = (1 + #{T* ≥ T}) / (1 + permutations). Transient disturbances affect different services in different
    slots and average out; a fault stays in one service. The test assumes exchangeable slots, which holds only
    roughly for neighbours (disturbances last); the minimal score compensates for it.
    """
    count = parts.shape[1]
    if not parts.size or not quiet.size:
        return 1.0
    pooled = np.concatenate([quiet, parts], axis=1)
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
