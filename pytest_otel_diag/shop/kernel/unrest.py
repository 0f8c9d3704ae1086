"""What makes times vary on a machine in good health: noise, rare slow pieces, busy moments, slow drift.

Nothing here knows of telemetry: pieces of work and messages take longer, and spans last as long as they do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simpy import Event

if TYPE_CHECKING:
    from pytest_otel_diag.shop.kernel.world import Host, World

_NOISE_SIZE = 4096

DRIFT_EVERY_S, DRIFT_TAU_S, DRIFT_SIGMA = 10.0, 150.0, 0.03
"""The level of a machine wanders by a few percent over minutes (an autoregressive walk of its logarithm)."""

BURST_GAP_S = 18.0
BURST_MEDIAN_S, BURST_SIGMA, BURST_MOST_S = 0.2, 0.8, 2.5
RIVALS_MEDIAN, RIVALS_SIGMA = 3.4, 0.5
"""Now and then other programs of a machine want its cores: so many threads a core, for so long."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Rare slow pieces: a share ``ratio`` takes ``least`` times as long or more, Pareto with this ``shape``.

    Nothing takes more than ``most`` times as long. They stand for cold caches, page faults, a thread that
    lost its core, a safepoint.
    """

    ratio: float = 0.0
    least: float = 2.5
    shape: float = 1.5
    most: float = 40.0


NO_TAIL = Tail()


class Noise:
    """Factors, log-normal with mean 1 and the coefficient of variation, and a tail; drawn beforehand."""

    __slots__ = ("_factors", "_next")

    def __init__(self, rng: random.Random, variation: float, tail: Tail = NO_TAIL) -> None:
        sigma = math.sqrt(math.log1p(variation * variation))
        self._factors = [rng.lognormvariate(-sigma * sigma / 2, sigma) for _ in range(_NOISE_SIZE)]
        if tail.ratio > 0.0:
            for at in range(_NOISE_SIZE):
                if rng.random() < tail.ratio:
                    self._factors[at] *= min(tail.most, tail.least * rng.paretovariate(tail.shape))
        self._next = rng.randrange(_NOISE_SIZE)

    def draw(self) -> float:
        """Return the next factor."""
        self._next = (self._next + 1) % _NOISE_SIZE
        return self._factors[self._next]


def late_messages(rng: random.Random, delays: list[float]) -> None:
    """Make a few of the delays long: a receiver that wakes up late, a delayed acknowledgement."""
    for at in range(len(delays)):
        lot = rng.random()
        if lot < 0.0004:
            delays[at] += 0.04
        elif lot < 0.006:
            delays[at] += rng.expovariate(1 / 0.004)


def drift(world: World, host: Host) -> Generator[Event, Any, None]:
    """Let the pace of the machine wander for ever."""
    rng = world.rng(f"drift/{host.name}")
    kept = math.exp(-DRIFT_EVERY_S / DRIFT_TAU_S)
    step = DRIFT_SIGMA * math.sqrt(1.0 - kept * kept)
    level = rng.gauss(0.0, DRIFT_SIGMA)
    while True:
        host.pace = math.exp(level)
        yield world.sleep(DRIFT_EVERY_S)
        level = kept * level + rng.gauss(0.0, step)


def bursts(world: World, host: Host) -> Generator[Event, Any, None]:
    """Let other programs want the machine's cores for a moment, again and again."""
    rng = world.rng(f"bursts/{host.name}")
    while True:
        yield world.sleep(rng.expovariate(1 / BURST_GAP_S))
        rivals = max(1, round(host.cores * rng.lognormvariate(math.log(RIVALS_MEDIAN), RIVALS_SIGMA)))
        host.rivals = rivals
        host.runnable += rivals
        yield world.sleep(min(BURST_MOST_S, rng.lognormvariate(math.log(BURST_MEDIAN_S), BURST_SIGMA)))
        host.runnable -= rivals
        host.rivals = 0
