"""Variation of service times: log-normal noise with a heavy tail of rare slow pieces."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

_SAMPLES = 4096


@dataclass(frozen=True, slots=True)
class Tail:
    """Rare slow pieces of work: cold caches, page faults, a thread that lost its core, a safepoint.

    A share ``ratio`` of the pieces takes at least ``least`` and at most ``most`` times as long; the factor
    has a Pareto distribution with exponent ``shape``.
    """

    ratio: float = 0.0
    least: float = 2.5
    shape: float = 1.5
    most: float = 40.0


NO_TAIL = Tail()


class Noise:
    """A cyclic table of factors: log-normal with mean 1, coefficient of variation *variation*, and a tail.

    ``draw()`` returns the next factor.
    """

    __slots__ = ("draw",)

    draw: Callable[[], float]

    def __init__(self, rng: random.Random, variation: float, tail: Tail = NO_TAIL) -> None:
        sigma = math.sqrt(math.log1p(variation * variation))
        mean = -sigma * sigma / 2
        factors = [math.exp(rng.normalvariate(mean, sigma)) for _ in range(_SAMPLES)]
        if tail.ratio > 0.0:
            for index in range(_SAMPLES):
                if rng.random() < tail.ratio:
                    factors[index] *= min(tail.most, tail.least * rng.paretovariate(tail.shape))
        first = rng.randrange(_SAMPLES) + 1
        self.draw = cycle(factors[first:] + factors[:first]).__next__
