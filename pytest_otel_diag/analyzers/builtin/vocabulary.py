"""Meaning of metrics by the names and units of OpenTelemetry's conventions, without names of any system."""

from __future__ import annotations

import re
from functools import lru_cache

from pytest_otel_diag.model.diagnosis import Mechanism, Signal

DURATION_UNITS = frozenset(
    {"s", "ms", "us", "µs", "ns", "sec", "second", "seconds", "millisecond", "milliseconds"}
)

# The first match wins. Names are split into words at dots, underscores and capitals.
_WORDS: tuple[tuple[str, Signal, Mechanism | None], ...] = (
    (r"restarts?|uptime", Signal.RESTART, None),
    (r"gc|garbage", Signal.GC, Mechanism.GC),
    (r"lag|queue|queued|backlog|pending|waiting", Signal.QUEUE, Mechanism.QUEUE),
    (r"cpu|throttled|throttling", Signal.CPU, Mechanism.CPU),
    (r"memory|heap|rss|oom|nonheap", Signal.MEMORY, Mechanism.MEMORY),
    (
        r"errors?|failures?|failed|faults?|exceptions?|availability|success",
        Signal.ERROR_RATE,
        Mechanism.ERROR,
    ),
    (r"latency|duration|time", Signal.LATENCY, Mechanism.LATENCY),
    (r"network|net|transmit|receive|sockets?|tcp|packets?", Signal.NETWORK, None),
    (r"requests?|calls?|messages?|ops|workload|throughput", Signal.REQUEST_RATE, Mechanism.TRAFFIC),
)
_PATTERNS = tuple((re.compile(rf"^(?:{words})$"), signal, mechanism) for words, signal, mechanism in _WORDS)
_CUT = re.compile(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])")
GOOD = re.compile(r"availability|success", re.IGNORECASE)
"""Shares that are near their maximum in a healthy system."""


@lru_cache(maxsize=10_000)
def meaning(metric: str, unit: str) -> tuple[Signal, Mechanism | None]:
    """Return the signal that a metric measures and the mechanism that its increase indicates."""
    words = [word.lower() for word in _CUT.split(metric) if word]
    for pattern, signal, mechanism in _PATTERNS:
        if any(pattern.match(word) for word in words):
            if signal is Signal.QUEUE and is_duration(unit) and "waiting" in words:
                break  # the time that a client waits for its answer
            return signal, mechanism
    if is_duration(unit):
        return Signal.LATENCY, Mechanism.LATENCY
    return Signal.METRIC, None


def is_duration(unit: str) -> bool:
    """Return whether the unit is a unit of time."""
    return unit.strip().lower() in DURATION_UNITS
