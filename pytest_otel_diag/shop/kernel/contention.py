"""Contention on hosts: slow drift of their speed and short bursts of other programs.

Only work takes longer here; telemetry shows it because spans last as long as the work.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from simpy import Event

from pytest_otel_diag.shop.kernel.context import SimulationContext
from pytest_otel_diag.shop.kernel.resources.hosts import Host

DRIFT_EVERY_S, DRIFT_TAU_S, DRIFT_SIGMA = 10.0, 150.0, 0.03
"""The speed of a host varies by a few percent over minutes: an AR(1) process of its logarithm."""

BURST_GAP_S = 18.0
BURST_MEDIAN_S, BURST_SIGMA, BURST_MOST_S = 0.2, 0.8, 2.5
THREADS_PER_CORE_MEDIAN, THREADS_PER_CORE_SIGMA = 3.4, 0.5
"""Now and then other programs want the cores: how often, for how long, with how many threads a core."""


def drift(context: SimulationContext, host: Host) -> Generator[Event, Any, None]:
    """Vary the speed of *host* for the whole run."""
    rng = context.rng(f"drift/{host.name}")
    kept = math.exp(-DRIFT_EVERY_S / DRIFT_TAU_S)
    step = DRIFT_SIGMA * math.sqrt(1.0 - kept * kept)
    level = rng.gauss(0.0, DRIFT_SIGMA)
    while True:
        host.slowdown = math.exp(level)
        yield context.sleep(DRIFT_EVERY_S)
        level = kept * level + rng.gauss(0.0, step)


def bursts(context: SimulationContext, host: Host) -> Generator[Event, Any, None]:
    """Let other programs compete for the cores of *host* again and again."""
    rng = context.rng(f"bursts/{host.name}")
    while True:
        yield context.sleep(rng.expovariate(1 / BURST_GAP_S))
        share = rng.lognormvariate(math.log(THREADS_PER_CORE_MEDIAN), THREADS_PER_CORE_SIGMA)
        threads = max(1, round(host.cores * share))
        host.background_threads = threads
        host.runnable += threads
        yield context.sleep(min(BURST_MOST_S, rng.lognormvariate(math.log(BURST_MEDIAN_S), BURST_SIGMA)))
        host.runnable -= threads
        host.background_threads = 0
