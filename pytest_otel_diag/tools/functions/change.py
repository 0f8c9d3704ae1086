"""How large a change is against its sampling error: the order in which comparisons list their rows.

Figures only: a large change says that something differs, not where the cause lies.
"""

from __future__ import annotations

import math


def of_counts(after: float, before: float, seconds_after: float, seconds_before: float) -> float:
    """Return the difference of two Poisson rates in standard errors (a count of 1 stands in for 0)."""
    if not seconds_after or not seconds_before:
        return 0.0
    rate_after, rate_before = after / seconds_after, before / seconds_before
    variance = max(after, 1) / seconds_after**2 + max(before, 1) / seconds_before**2
    return abs(rate_after - rate_before) / math.sqrt(variance)


def of_ratios(part: float, whole: float, part_before: float, whole_before: float) -> float:
    """Return the difference of two shares in standard errors.

    Each share has one success and one failure added (Agresti and Caffo, The American Statistician 54, 2000).
    """
    if not whole or not whole_before:
        return 0.0
    after, before = (part + 1) / (whole + 2), (part_before + 1) / (whole_before + 2)
    variance = after * (1 - after) / (whole + 2) + before * (1 - before) / (whole_before + 2)
    return abs(after - before) / math.sqrt(variance)


def of_latencies(after: float, before: float, calls: float, calls_before: float) -> float:
    """Return the logarithm of the ratio of two latencies times the root of the smaller number of calls."""
    if not (calls and calls_before and after > 0 and before > 0):
        return 0.0
    return abs(math.log(after / before)) * math.sqrt(min(calls, calls_before))
