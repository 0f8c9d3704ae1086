"""Calibration of the confidence that an analyzer states."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pytest_otel_diag.model.base import Model, Ratio
from pytest_otel_diag.model.session import SessionResult
from pytest_otel_diag.scoring.measures import scored

BINS = 10


class ReliabilityBin(Model):
    """Sessions with confidence in ``[low, high)``; the last bin includes 1.0."""

    low: Ratio
    high: Ratio
    n: int
    mean_confidence: Ratio
    accuracy: Ratio


class Calibration(Model):
    """Confidence compared with top-1 over ``n`` sessions with a fault.

    ``brier`` is the Brier score (G. W. Brier, Monthly Weather Review 78, 1950): 0 is perfect, 0.25 results
    from a constant confidence of 0.5. ``expected_error`` is the expected calibration error: the mean distance
    of confidence from accuracy over the bins, weighted by size (ECE; Naeini et al., AAAI 2015).
    """

    n: int
    brier: Ratio
    expected_error: Ratio
    bins: tuple[ReliabilityBin, ...]


def calibrate(sessions: Iterable[SessionResult]) -> Calibration | None:
    """Return the calibration over scored sessions with a fault, None without any."""
    pairs = [
        (min(1.0, max(0.0, verdict.confidence)), verdict.top1)
        for _, verdict in scored(sessions)
        if verdict.fault_present
    ]
    if not pairs:
        return None
    binned: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in pairs:
        binned.setdefault(min(BINS - 1, int(confidence * BINS)), []).append((confidence, right))
    bins = tuple(_bin(index, members) for index, members in sorted(binned.items()))
    return Calibration(
        n=len(pairs),
        brier=math.fsum((confidence - right) ** 2 for confidence, right in pairs) / len(pairs),
        expected_error=math.fsum(b.n * abs(b.mean_confidence - b.accuracy) for b in bins) / len(pairs),
        bins=bins,
    )


def _bin(index: int, members: list[tuple[float, bool]]) -> ReliabilityBin:
    return ReliabilityBin(
        low=index / BINS,
        high=(index + 1) / BINS,
        n=len(members),
        mean_confidence=min(1.0, math.fsum(confidence for confidence, _ in members) / len(members)),
        accuracy=sum(right for _, right in members) / len(members),
    )
