"""Robust statistics over time slots with numpy; NaN marks slots without data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAD_TO_SIGMA = 1.4826
"""Standard deviation over median absolute deviation of a normal (Rousseeuw & Croux 1993)."""

TAIL = 0.80
"""The quantile of distances that defines the spread. A fifth of the slots may be disturbed (a label that is a
minute late, an unlabelled incident) without increasing the spread."""

TAIL_TO_95 = 1.96 / 1.2816
"""The 95 % distance over the 80 % distance from the median of a normal."""

Z_FLOOR = 3.0
"""Minimal deviation in spreads: of a thousand quiet signals several reach less."""

ALARM_SPREADS = 5.0
FIVE_SIGMA = math.log1p(ALARM_SPREADS - Z_FLOOR)
"""Score of one deviation of five spreads, log(1 + max(0, z - 3)), the minimum for an alarm."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Centre and spread per row."""

    centre: Floats
    unit: Floats
    count: Floats


def sorted_quantile(ordered: Floats, count: Floats, q: float) -> Floats:
    """Return the *q* quantile of rows that are sorted with NaN last (linear interpolation).

    np.nanquantile loops over rows in Python; this does the same in one pass.
    """
    if ordered.shape[1] == 0:
        return np.full(len(ordered), np.nan)
    position = np.maximum(count - 1, 0) * q
    low = np.floor(position).astype(np.intp)
    high = np.minimum(low + 1, np.maximum(count - 1, 0).astype(np.intp))
    rows = np.arange(len(ordered))
    below, above = ordered[rows, low], ordered[rows, high]
    result: Floats = below + (above - below) * (position - low)
    return result


def spread(reference: Floats) -> Spread:
    """Return median and spread of each row.

    spread = max(1.4826 · MAD, 1.53 · q80(|x - median|)), which is 1.96 σ for a normal. The MAD dominates if
    most slots agree, the quantile if they do not.
    """
    count = np.isfinite(reference).sum(axis=1).astype(np.float64)
    ordered = np.sort(reference, axis=1)
    centre = sorted_quantile(ordered, count, 0.5)
    distance = np.sort(np.abs(reference - centre[:, None]), axis=1)
    mad = MAD_TO_SIGMA * sorted_quantile(distance, count, 0.5)
    tail = TAIL_TO_95 * sorted_quantile(distance, count, TAIL)
    return Spread(centre, np.nan_to_num(np.fmax(mad, tail)), count)


def few_slots(count: Floats) -> Floats:
    """Return the factor of a unit that *count* quiet slots determine, at least 1.

    It is the 95 % prediction interval of one more normal value, t(count - 1) · sqrt(1 + 1 / count), over the
    normal's 1.96: 1.08 for 24 slots, 2.5 for 3. The quantile of Student's t is expanded around the normal's
    (Abramowitz & Stegun 26.7.5).
    """
    freedom = np.maximum(count - 1.0, 2.0)
    normal = 1.959964
    t = normal + (normal**3 + normal) / (4 * freedom)
    t += (5 * normal**5 + 16 * normal**3 + 3 * normal) / (96 * freedom**2)
    t += (3 * normal**7 + 19 * normal**5 + 17 * normal**3 - 15 * normal) / (384 * freedom**3)
    factor: Floats = t / normal * np.sqrt(1.0 + 1.0 / (freedom + 1.0))
    return factor


def rate_deviance(hits: Floats, trials: Floats, ref_hits: Floats, ref_trials: Floats) -> Floats:
    """Return the signed root of the likelihood ratio that two Poisson rates are equal.

    G = 2 · [k·ln(k / (r·n)) + K·ln(K / (r·N))] with r = (k + K) / (n + N) and half a hit added to the
    reference (Jeffreys), so that a first occurrence has a finite score. √G is standard normal without a
    change (Wilks 1938), also for few hits, where the normal approximation would give fifteen sigma for one
    rare event.
    """
    total = ref_hits + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (hits + total) / (trials + ref_trials)
        own = np.where(hits > 0, hits * np.log(np.maximum(hits, 1e-12) / (pooled * trials)), 0.0)
        other = total * np.log(total / (pooled * ref_trials))
        sign = np.sign(hits / trials - total / ref_trials)
    root: Floats = sign * np.sqrt(np.maximum(2.0 * (own + other), 0.0))
    return np.where((trials > 0) & (ref_trials > 0), np.nan_to_num(root), 0.0)


def overdispersion(hits: Floats, expected: Floats) -> Floats:
    """Return the quasi-Poisson factor per row: quantiles of (k - E)² / E over those of χ²₁, at least 1.

    It uses the larger of median and 80 % quantile, since occasional bunches of events do not affect the
    median.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        chi = (hits - expected) ** 2 / np.maximum(expected, 0.5)
    ordered = np.sort(chi, axis=1)
    count = np.isfinite(chi).sum(axis=1).astype(np.float64)
    median = np.nan_to_num(sorted_quantile(ordered, count, 0.5)) / 0.455
    tail = np.nan_to_num(sorted_quantile(ordered, count, TAIL)) / 1.642
    return np.maximum(1.0, np.maximum(median, tail))


def dispersion(hits: Floats, expected: Floats) -> Floats:
    """Return Pearson's χ² over its degrees of freedom per row, 0 for rows without an expected hit."""
    chi = np.where(expected > 0, (hits - expected) ** 2 / np.maximum(expected, 1e-9), 0.0).sum(axis=1)
    ratio: Floats = chi / np.maximum((expected > 0).sum(axis=1) - 1, 1)
    return ratio


def chi_square_quantile_99(freedom: int) -> float:
    """Return the 99 % quantile of χ² (Wilson & Hilferty, PNAS 17, 1931)."""
    part = 2.0 / (9.0 * freedom)
    return freedom * (1.0 - part + 2.326348 * math.sqrt(part)) ** 3


def student_tail(z: float, freedom: int) -> float:
    """Return P(|T| > z) of Student's t, by the closed form for whole degrees of freedom.

    Abramowitz & Stegun 26.7.3-4. Spreads of few slots have heavy tails, for which the normal would be
    overconfident.
    """
    freedom = max(1, min(freedom, 60))
    angle = math.atan(z / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    if freedom % 2:
        term, total = cosine, (cosine if freedom > 1 else 0.0)
        for k in range(3, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        inside = 2.0 / math.pi * (angle + sine * total)
    else:
        term, total = 1.0, 1.0
        for k in range(2, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        inside = sine * total
    return min(1.0, max(0.0, 1.0 - inside))


def benjamini_hochberg(p_values: list[float], tests: int) -> list[float]:
    """Return p-values adjusted for *tests* tests (Benjamini & Hochberg 1995).

    *tests* may exceed the number of p-values; the others count as 1.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    lowest = 1.0
    for rank in range(len(order), 0, -1):
        index = order[rank - 1]
        lowest = min(lowest, p_values[index] * max(tests, len(p_values)) / rank)
        adjusted[index] = lowest
    return adjusted
