"""What impact is measured against, and the loads of services that are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_otel_diag.errors import SchemaError
from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.telemetry import ServiceHealth
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.sessions.impact.evidence import EvidenceBaseline
from pytest_otel_diag.sessions.impact.levels import Check, Levels
from pytest_otel_diag.stats.sample_size import Needed, calls_needed, calls_to_show
from pytest_otel_diag.stats.two_sample import Load

_UNSETTLED_BUCKETS = 2
"""Newest buckets that are left out when traffic is tested for a drop."""


@dataclass(frozen=True)
class Comparison:
    """The baseline of a session with the statistics of one look at telemetry.

    ``loads`` are the services before the fault. ``expected`` are the services that the scenario expects to
    suffer, empty for all, ``causes`` its root causes among them; ``watched`` are those and the callers of its
    root causes, since a slow network shows on the caller's side. ``bucket_s`` is the width of a bucket in
    seconds. ``levels`` are the chances of a false alarm, ``power`` is the chance of seeing ``effect`` more
    failed calls. ``evidence`` is the baseline of everything else that the scenario expects to see.
    """

    loads: Mapping[str, Load]
    expected: frozenset[str]
    watched: frozenset[str]
    bucket_s: float
    levels: Levels
    power: float
    effect: float
    causes: frozenset[str] = frozenset()
    evidence: EvidenceBaseline = field(default_factory=EvidenceBaseline)

    @property
    def empty(self) -> bool:
        """Whether the baseline holds nothing to compare with."""
        return not (self.loads or self.evidence.usable)

    def needed(self, check: Check, before: Load | None, effect: float | None = None) -> Needed:
        """Return how many calls show *effect* (the usual one) in a test of errors by the last look."""
        calls, errors = (before.calls, before.errors) if before is not None else (0, 0)
        return calls_needed(
            calls,
            errors,
            effect=self.effect if effect is None else effect,
            alpha=self.levels.at(check, last=True),
            power=self.power,
        )

    def reachable(self, service: str, effect: float) -> int | None:
        """Return how many calls show *effect* beside the baseline of the service; None where none do."""
        before = self.loads.get(service)
        if before is None:
            return None
        alpha = self.levels.at(Check(service, Signal.ERROR_RATE), last=True)
        return calls_to_show(before.calls, before.errors, effect=effect, alpha=alpha, power=self.power)


async def health_in(telemetry: Telemetry, window: Window, bucket_s: float) -> Sequence[ServiceHealth]:
    """Return service health; empty for a store without traces. Raises TelemetryError."""
    try:
        return await telemetry.service_health(window, bucket_s)
    except SchemaError:
        return ()


async def loads_in(telemetry: Telemetry, windows: Sequence[Window], bucket_s: float) -> dict[str, Load]:
    """Return the load of each service over all windows; empty for a store without traces."""
    health: list[ServiceHealth] = []
    for window in windows:
        health.extend(await health_in(telemetry, window, bucket_s))
    return loads_of(health, windows, bucket_s)


def loads_of(health: Iterable[ServiceHealth], windows: Sequence[Window], bucket_s: float) -> dict[str, Load]:
    """Return the load of each service from its buckets in the windows."""
    by_service: dict[str, list[ServiceHealth]] = {}
    for row in health:
        by_service.setdefault(row.service, []).append(row)
    seconds = sum(window.duration_s for window in windows)
    buckets = sum(max(1, round(window.duration_s / bucket_s)) for window in windows)
    return {service: _load(rows, seconds, buckets) for service, rows in by_service.items()}


def exported_part(health: Sequence[ServiceHealth], window: Window, bucket_s: float) -> Window:
    """Return the window up to the newest bucket with calls: later buckets may not be exported yet."""
    newest = max((row.bucket_start_ns for row in health if row.requests), default=window.end_ns)
    return Window(start_ns=window.start_ns, end_ns=min(window.end_ns, newest + seconds_to_ns(bucket_s)))


def settled_loads(health: Sequence[ServiceHealth], window: Window, bucket_s: float) -> dict[str, Load]:
    """Return the loads without the newest buckets of the window.

    Services export at different times, so the newest buckets are still filling up. A bucket that is half
    exported looks like a drop in traffic.
    """
    end_ns = max(window.start_ns, window.end_ns - _UNSETTLED_BUCKETS * seconds_to_ns(bucket_s))
    rows = [row for row in health if row.bucket_start_ns < end_ns]
    return loads_of(rows, (Window(start_ns=window.start_ns, end_ns=end_ns),), bucket_s)


def _load(rows: Sequence[ServiceHealth], seconds: float, buckets: int) -> Load:
    busy = [row for row in rows if row.requests]
    idle = max(0, buckets - len(busy))
    return Load(
        calls=sum(row.requests for row in busy),
        errors=sum(row.errors for row in busy),
        seconds=seconds,
        bucket_calls=(*(row.requests for row in busy), *([0] * idle)),
        bucket_p95_ms=tuple(row.p95_ms for row in busy),
    )
