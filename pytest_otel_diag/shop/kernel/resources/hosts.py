"""Hosts with their cores and clocks, and the network between them."""

from __future__ import annotations

import math
import random

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
    """Latency between two services: a constant plus a log-normal part, multiplied by ``scale``."""

    __slots__ = ("_next", "_samples", "scale")

    def __init__(self, rng: random.Random, scale: float) -> None:
        self.scale = scale
        self._samples = [0.00012 + rng.lognormvariate(math.log(0.00018), 0.5) for _ in range(_SAMPLES)]
        self._next = 0

    def add_stragglers(self, rng: random.Random) -> None:
        """Delay a few messages: a receiver that wakes up late, a delayed acknowledgement."""
        for index in range(_SAMPLES):
            lot = rng.random()
            if lot < 0.0004:
                self._samples[index] += 0.04
            elif lot < 0.006:
                self._samples[index] += rng.expovariate(1 / 0.004)

    def delay_s(self) -> float:
        """Return the latency of the next message in seconds."""
        self._next = (self._next + 1) % _SAMPLES
        return self._samples[self._next] * self.scale
