"""Hosts with their cores and clocks, and the network between them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import cycle

MAX_SKEW_NS = 3_000_000
"""Clocks of hosts are off by at most this many nanoseconds."""

_SAMPLES = 4096


class Host:
    """A host and its load.

    ``runnable`` counts the threads that want a core now; it includes spinning threads of faults and the
    ``background_threads`` of programs that are not simulated. Work takes ``slowdown`` times as long as usual.
    """

    __slots__ = ("background_threads", "cores", "name", "runnable", "skew_ns", "slowdown")

    cores: float

    def __init__(self, name: str, cores: float, skew_ns: int) -> None:
        self.name = name
        self.cores = cores
        self.skew_ns = skew_ns
        self.runnable = 0
        self.background_threads = 0
        self.slowdown = 1.0


class Network:
    """Latency between two services: a constant plus a log-normal part, multiplied by ``scale``.

    ``delay_s()`` returns the latency of the next message in seconds.
    """

    __slots__ = ("_samples", "delay_s", "scale")

    delay_s: Callable[[], float]

    def __init__(self, rng: random.Random, scale: float) -> None:
        self.scale = scale
        self._samples = [0.00012 + rng.lognormvariate(math.log(0.00018), 0.5) for _ in range(_SAMPLES)]
        self._begin()

    def add_stragglers(self, rng: random.Random) -> None:
        """Delay a few messages: a receiver that wakes up late, a delayed acknowledgement."""
        for index in range(_SAMPLES):
            lot = rng.random()
            if lot < 0.0004:
                self._samples[index] += 0.04
            elif lot < 0.006:
                self._samples[index] += rng.expovariate(1 / 0.004)
        self._begin()

    def _begin(self) -> None:
        delays_s = [sample * self.scale for sample in self._samples]
        self.delay_s = cycle(delays_s[1:] + delays_s[:1]).__next__
