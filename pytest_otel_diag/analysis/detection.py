"""Is anything wrong at all? The alarm, held against the same score of quiet slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_otel_diag.analysis.stats import FIVE_SIGMA, Floats, conformal_p, spread

ALPHA = 0.10
"""Level of the conformal test: of ten quiet windows one alarms, before the floor of five spreads."""

SPREADS = 2.0
SPREAD_FLOOR = 0.25
"""The second test: two robust spreads (four sigma) above the median of the quiet scores."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """The decision with what it rests on. ``p_value`` is None without quiet slots."""

    detected: bool
    score: float
    p_value: float | None
    threshold: float
    slots: int
    reason: str


def decide(score: float, against_all: float, null: Floats) -> Alarm:
    """Decide from the incident's top score, and from the scores of quiet slots.

    *score* is scored against the quiet slots, *against_all* and *null* against all slots alike, so
    that incident and quiet slots are exchangeable when nothing is wrong. Two conditions must hold:

    1. score > log(1 + 5 - 3): at least one deviation of five spreads, or several smaller ones. This
       alone keeps a quiet system quiet.
    2. p ≤ 0.10 (conformal), or against_all > median + 2 spreads of the null. The first is exact but
       cannot go below 1/(n+1) and fails when an unlabelled incident sits in the reference; the second
       is robust against a fifth of such slots.

    Without quiet slots nothing can be compared, and only the first condition is asked, at twice its value.
    """
    if len(null) == 0:
        strong = score > 2 * FIVE_SIGMA
        return Alarm(strong, score, None, 2 * FIVE_SIGMA, 0, "no quiet telemetry to compare with")
    quiet = spread(null[None, :])
    threshold = max(FIVE_SIGMA, float(quiet.centre[0]) + SPREADS * max(float(quiet.unit[0]), SPREAD_FLOOR))
    p_value = conformal_p(against_all, null)
    if score <= FIVE_SIGMA:
        reason = f"the strongest evidence, {score:.2f}, is below {FIVE_SIGMA:.2f}, five spreads in one signal"
        return Alarm(False, score, p_value, threshold, len(null), reason)
    detected = p_value <= ALPHA or against_all > threshold
    verb = "exceeds" if detected else "does not exceed"
    reason = f"{against_all:.2f} {verb} what {len(null)} quiet slots show (p = {p_value:.3f}, limit {threshold:.2f})"
    return Alarm(detected, score, p_value, threshold, len(null), reason)


def null_scores(top_score: Callable[[int], float], columns: Sequence[int]) -> Floats:
    """Return the top score of each quiet slot."""
    return np.array([top_score(column) for column in columns], dtype=np.float64)
