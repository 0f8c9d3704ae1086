"""How many calls show a fault: the power of the conditional test of errors. Standard library only, no I/O.

Power is computed by the test that decides, :func:`.two_sample.error_p`, and not by an approximation, so that
what is promised and what is tested agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pytest_otel_diag.stats.two_sample import Load, binomial_at_least, error_p

MOST_CALLS = 1 << 17
"""Largest answer. It stands for this many calls or more."""


@dataclass(frozen=True, slots=True)
class Needed:
    """Calls since the change that show it, compared with *baseline* calls before it."""

    calls: int
    baseline: int


@lru_cache(maxsize=4096)
def calls_needed(calls: int, errors: int, *, effect: float, alpha: float, power: float) -> Needed:
    """Return how many calls show *effect* more failures at the level *alpha* with the wanted *power*.

    *calls* and *errors* are those of the baseline. Where it is long enough, the answer is the fewest calls
    compared with it. Where it is too short, or where a longer one would save calls altogether, baseline and
    comparison are equally long, with the error ratio of the baseline. An empty baseline counts as one without
    errors.
    """
    both = _equally_many(errors / calls if calls else 0.0, effect=effect, alpha=alpha, power=power)
    alone = calls_to_show(calls, errors, effect=effect, alpha=alpha, power=power)
    if alone is not None and alone <= both + max(0, both - calls):
        return Needed(alone, calls)
    return Needed(both, both)


@lru_cache(maxsize=4096)
def calls_to_show(calls: int, errors: int, *, effect: float, alpha: float, power: float) -> int | None:
    """Return the fewest calls that show *effect* beside this baseline; None where no number does."""
    if not calls:
        return None
    ratio = min(1.0, errors / calls + effect)
    before = Load(calls=calls, errors=errors, seconds=1.0)
    found = _fewest(lambda n: _shows(before, n, ratio, alpha, power))
    return None if found > MOST_CALLS else found


def _equally_many(error_ratio: float, *, effect: float, alpha: float, power: float) -> int:
    ratio = min(1.0, error_ratio + effect)

    def enough(n: int) -> bool:
        before = Load(calls=n, errors=round(error_ratio * n), seconds=1.0)
        return _shows(before, n, ratio, alpha, power)

    return min(MOST_CALLS, _fewest(enough))


def _shows(before: Load, calls: int, ratio: float, alpha: float, power: float) -> bool:
    return binomial_at_least(_critical(before, calls, alpha), calls, ratio) >= power


def _fewest(enough: Callable[[int], bool]) -> int:
    """Return the fewest calls that are enough, more than MOST_CALLS where that many are not.

    Power grows with the number of calls in small saw-teeth; the answer is the foot of one of them.
    """
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_CALLS:
            return high
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _critical(before: Load, calls: int, alpha: float) -> int:
    """Return the fewest errors among *calls* that are significant, calls + 1 when none is."""
    low, high = -1, calls + 1
    while high - low > 1:
        middle = (low + high) // 2
        p = error_p(before, Load(calls=calls, errors=middle, seconds=1.0))
        low, high = (low, middle) if p <= alpha else (middle, high)
    return high
