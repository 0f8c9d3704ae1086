"""Which services deviate from their baseline: errors, latency, request rate, and the evidence beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from pytest_otel_diag.model.diagnosis import Signal
from pytest_otel_diag.model.events import ServiceState
from pytest_otel_diag.sessions.impact import evidence
from pytest_otel_diag.sessions.impact.comparison import Comparison
from pytest_otel_diag.sessions.impact.evidence import (
    LATENCY_CHANGE,
    LATENCY_CHANGE_DRIVEN,
    Deviation,
    LookLevels,
)
from pytest_otel_diag.sessions.impact.watchlist import Observed
from pytest_otel_diag.stats.two_sample import Load, error_p, latency_p, latency_ratio, rate_p

_RATE_CHANGE = 2.0


@dataclass(frozen=True)
class Measurement:
    """Telemetry since the start of the fault, as one look read it.

    ``loads`` are the services, ``settled`` the same without the newest buckets (None: use ``loads``; see
    :func:`.comparison.settled_loads`). ``observed`` is what the watchlist shows, None where it was not read.
    ``driven`` says that the session added traffic: more requests are then no impact, and what follows the
    load must have grown by more. ``last`` says that no look follows: the tests then have more of their level.
    """

    loads: Mapping[str, Load]
    settled: Mapping[str, Load] | None = None
    observed: Observed | None = None
    driven: bool = False
    last: bool = False

    def calls(self, service: str | None) -> int:
        """Return the calls of the service, 0 for an unknown one."""
        load = self.loads.get(service) if service is not None else None
        return load.calls if load else 0


def all_deviations(comparison: Comparison, seen: Measurement) -> list[Deviation]:
    """Return every significant deviation of services, operations, metrics and logs."""
    any_calls = any(load.calls for load in seen.loads.values())
    found = service_deviations(comparison, seen) if any_calls else []
    if seen.observed is not None:
        growth = _growth(comparison, seen.loads) if seen.driven else {}
        levels = LookLevels(comparison.levels, seen.last)
        found += evidence.deviations(comparison.evidence, seen.observed, growth, levels)
    return found


def service_deviations(comparison: Comparison, seen: Measurement) -> list[Deviation]:
    """Return each watched service and signal that deviates significantly and by enough to matter.

    A drop in traffic is tested on the settled loads.
    """
    settled = seen.loads if seen.settled is None else seen.settled
    found: list[Deviation] = []
    for service in sorted(comparison.watched & comparison.loads.keys()):
        before = comparison.loads[service]
        found.extend(_changes(service, before, _load(service, seen.loads), driven=seen.driven))
        found.extend(_drop(service, before, _load(service, settled)))
    levels = LookLevels(comparison.levels, seen.last)
    tested = [replace(one, alpha=levels.of(one.service, one.signal)) for one in found]
    return [deviation for deviation in tested if deviation.p_value <= deviation.alpha]


def _load(service: str, loads: Mapping[str, Load]) -> Load:
    """Return the load of a service, one without calls where it vanished."""
    if service in loads:
        return loads[service]
    return Load(calls=0, errors=0, seconds=max((load.seconds for load in loads.values()), default=0.0))


def _changes(service: str, before: Load, after: Load, *, driven: bool) -> Iterator[Deviation]:
    yield Deviation(
        service,
        Signal.ERROR_RATE,
        error_p(before, after),
        f"{service} fails {after.errors} of {after.calls} calls, before {before.errors} of {before.calls}",
    )
    ratio = latency_ratio(before, after)
    change = LATENCY_CHANGE_DRIVEN if driven else LATENCY_CHANGE
    if not 1 / change < ratio < change:
        detail = f"p95 of {service} is {ratio:.2f} times the baseline"
        yield Deviation(service, Signal.LATENCY, latency_p(before, after), detail)
    if before.rate and after.rate >= _RATE_CHANGE * before.rate and not driven:
        yield _rate_change(service, before, after)


def _drop(service: str, before: Load, after: Load) -> Iterator[Deviation]:
    if before.rate and after.rate <= before.rate / _RATE_CHANGE:
        yield _rate_change(service, before, after)


def _rate_change(service: str, before: Load, after: Load) -> Deviation:
    detail = f"{service} gets {after.rate:.2f} calls a second, before {before.rate:.2f}"
    return Deviation(service, Signal.REQUEST_RATE, rate_p(before, after), detail)


def _growth(comparison: Comparison, after: Mapping[str, Load]) -> dict[str, float]:
    """Return the factor by which traffic of each service grew.

    Services that the watchlist covers without calls of their own get the largest factor of the expected ones.
    """
    grown = {
        name: after[name].rate / load.rate
        for name, load in comparison.loads.items()
        if name in after and load.rate > 0
    }
    most = max((grown[name] for name in grown if name in comparison.expected), default=1.0)
    watched = comparison.evidence.watched
    beside = {watch.service for watch in watched.metrics} | set(watched.logs)
    return {**dict.fromkeys(beside, most), **grown}


def states_of(found: Iterable[Deviation], settled: Mapping[str, Load]) -> dict[str, ServiceState]:
    """Return the health of each service that deviates; a service without calls since the fault is silent."""
    signals: dict[str, set[str]] = {}
    for deviation in found:
        signals.setdefault(deviation.service, set()).add(deviation.signal)
    states: dict[str, ServiceState] = {}
    for service, deviating in signals.items():
        if Signal.REQUEST_RATE in deviating and not _load(service, settled).calls:
            states[service] = "silent"
        else:
            states[service] = "failing" if Signal.ERROR_RATE in deviating else "degraded"
    return states


def as_before(comparison: Comparison, loads: Mapping[str, Load]) -> bool:
    """Whether the watched services that had calls before have calls again and none deviates."""
    busy = [name for name in comparison.watched if name in comparison.loads]
    called = all(name in loads and loads[name].calls for name in busy)
    return bool(busy) and called and not service_deviations(comparison, Measurement(loads, driven=True))
