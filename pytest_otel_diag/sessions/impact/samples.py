"""Series of service health for the events of a session, made from the rows that the assessment reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.events import ServiceSample, ServiceState
from pytest_otel_diag.model.telemetry import ServiceHealth
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window, seconds_to_ns

_DIGITS = 4
"""Decimal places of numbers in events: enough for a chart, and short in the file of a run."""


def samples(
    health: Iterable[ServiceHealth],
    window: Window,
    bucket_s: float,
    *,
    states: Mapping[str, ServiceState] | None = None,
) -> list[ServiceSample]:
    """Return one sample a service and bucket of the window, in the order of *health*.

    *states* gives the health of services that are not ``ok``. The rate of a bucket that the window cuts
    short is over the part inside.
    """
    known = states or {}
    found = []
    for row in health:
        width_s = _width_s(row.bucket_start_ns, window, bucket_s)
        if width_s > 0:
            found.append(
                ServiceSample(
                    service=row.service,
                    bucket_start_ns=row.bucket_start_ns,
                    bucket_s=width_s,
                    rate_per_s=round(row.requests / width_s, _DIGITS),
                    error_ratio=round(min(1.0, row.errors / row.requests), _DIGITS) if row.requests else 0.0,
                    p95_ms=round(row.p95_ms, _DIGITS) if row.requests else None,
                    state=known.get(row.service, "ok"),
                )
            )
    return found


def idle(
    health: Iterable[ServiceHealth], window: Window, bucket_s: float, *, services: Collection[str]
) -> list[ServiceSample]:
    """Return a ``silent`` sample for each bucket of the window in which one of *services* had no call."""
    busy = {(row.service, row.bucket_start_ns) for row in health}
    return [
        ServiceSample(
            service=service,
            bucket_start_ns=start_ns,
            bucket_s=_width_s(start_ns, window, bucket_s),
            rate_per_s=0.0,
            error_ratio=0.0,
            state="silent",
        )
        for service in sorted(services)
        for start_ns in range(window.start_ns, window.end_ns, seconds_to_ns(bucket_s))
        if (service, start_ns) not in busy
    ]


def _width_s(start_ns: Nanos, window: Window, bucket_s: float) -> float:
    return (min(start_ns + seconds_to_ns(bucket_s), window.end_ns) - start_ns) / NANOS_PER_SECOND


@dataclass
class Changes:
    """Remembers the buckets that were sent, so that each look sends only those that are new or differ."""

    _sent: dict[tuple[str, Nanos], tuple[float, ...]] = field(default_factory=dict)

    def since_last(
        self,
        health: Sequence[ServiceHealth],
        window: Window,
        bucket_s: float,
        *,
        states: Mapping[str, ServiceState],
    ) -> tuple[ServiceSample, ...]:
        """Return samples of the buckets whose numbers changed; a change of state alone sends none again.

        Services that are ``silent`` get a sample for each bucket without calls.
        """
        changed = [
            row for row in health if self._is_new(row, _width_s(row.bucket_start_ns, window, bucket_s))
        ]
        found = samples(changed, window, bucket_s, states=states)
        silent = [service for service, state in states.items() if state == "silent"]
        for sample in idle(health, window, bucket_s, services=silent) if silent else ():
            key = (sample.service, sample.bucket_start_ns)
            if self._sent.get(key) != (sample.bucket_s,):
                self._sent[key] = (sample.bucket_s,)
                found.append(sample)
        return tuple(found)

    def _is_new(self, row: ServiceHealth, width_s: float) -> bool:
        key, numbers = (row.service, row.bucket_start_ns), (width_s, row.requests, row.errors, row.p95_ms)
        if self._sent.get(key) == numbers:
            return False
        self._sent[key] = numbers
        return True
