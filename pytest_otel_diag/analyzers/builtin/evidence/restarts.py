"""Detects processes that restarted after their memory exceeded all levels of quiet time.

A process above its memory limit is killed, and its successor starts with little memory, so means over a slot
do not show it. Its telemetry does: cumulative series start again, and the levels just before were the highest
ever. Either sign alone is weak: deployments restart processes, and memory varies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_otel_diag.analyzers.builtin.evidence.observations import Outgrown
from pytest_otel_diag.analyzers.builtin.scores import METRIC_OWN
from pytest_otel_diag.analyzers.builtin.vocabulary import meaning
from pytest_otel_diag.model.diagnosis import Mechanism


def outgrown(begun: Mapping[str, Iterable[int]], rows: Iterable[tuple[Any, ...]]) -> dict[str, Outgrown]:
    """Return the services whose memory peaked a quarter above quiet time before a process restarted.

    *begun* are instants of restarts in UTC nanoseconds by service; *rows* are those of ``peaks.sql``.
    """
    last = {service: max(instants) for service, instants in begun.items() if instants}
    found: dict[str, Outgrown] = {}
    for service, metric, unit, usual, _, points in rows:
        if meaning(metric, unit)[1] is not Mechanism.MEMORY or service not in last:
            continue
        peak = max((value for at_ns, value in points if at_ns < last[service]), default=-math.inf)
        known = found.get(service)
        if usual > 0.0 and peak > (1.0 + METRIC_OWN) * usual:
            one = Outgrown(str(metric), str(unit), float(usual), float(peak))
            if known is None or one.peak / one.usual > known.peak / known.usual:
                found[service] = one
    return found
