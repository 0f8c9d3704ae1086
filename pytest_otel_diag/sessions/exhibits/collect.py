"""Collects what the pictures of a session are drawn from, while its target is still open.

Failures become notes and never change how the session ends. What telemetry answers is cut to the limits of
:mod:`pytest_otel_diag.model.exhibits`.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis, Mechanism, Signal
from pytest_otel_diag.model.exhibits import (
    MAX_BUCKETS,
    MAX_EDGES,
    MAX_SERIES,
    NAME_CHARS,
    CallLoad,
    Exhibits,
    ServiceCall,
    ServiceSeries,
    Timeline,
)
from pytest_otel_diag.model.scenario import Expectation, Scenario
from pytest_otel_diag.model.session import SessionWindows
from pytest_otel_diag.model.telemetry import CallEdge, ServiceHealth
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.scoring.names import ServiceNames
from pytest_otel_diag.sessions.ending import describe
from pytest_otel_diag.sessions.exhibits.exemplar import exemplar
from pytest_otel_diag.sessions.log import SessionLog

T = TypeVar("T")

_STEPS_S = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_NAMED = 3
MIN_SERIES = 4
_FAILING = (Mechanism.ERROR, Mechanism.UNREACHABLE)


@dataclass(frozen=True)
class ExhibitSubject:
    """What the pictures show: the session, its windows, and the services that matter.

    ``culprits`` are the expected root causes (those that the diagnosis named first), then the other named
    services; ``others`` are expected to show the fault or to mislead. ``failing`` says that errors, not
    latency, show the fault.
    """

    session: Window
    baseline: Window | None
    incident: Window | None
    culprits: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    failing: bool = False


async def exhibits_of(telemetry: Telemetry, log: SessionLog, *, timeout_s: float) -> Exhibits:
    """Return what the pictures of the session in *log* need; see :func:`collect`. Raises nothing."""
    session = log.span()
    windows = log.windows
    if windows.incident is None and log.witnesses and all(proof.confirmed for proof in log.witnesses):
        # The session stopped before the incident was over; its part so far may show why.
        start_ns = max(proof.at_ns for proof in log.witnesses)
        seen = Window(start_ns=start_ns, end_ns=max(start_ns, session.end_ns))
        windows = windows.model_copy(update={"incident": seen})
    subject = subject_of(log.plan.scenario, log.diagnosis, windows, session)
    return await collect(telemetry, subject, timeout_s=timeout_s)


def subject_of(
    scenario: Scenario, diagnosis: Diagnosis | None, windows: SessionWindows, session: Window
) -> ExhibitSubject:
    """Return what to keep of a session; *session* reaches from the baseline's begin to the end."""
    expectation = scenario.expectation
    causes = diagnosis.root_causes[:_NAMED] if diagnosis is not None else ()
    # In a control no service is to blame, unless the analyzer blames one.
    named = [cause.service for cause in causes] if diagnosis is not None and diagnosis.detected else []
    if not scenario.control:
        named = [cause.service for cause in causes]
    # Expected causes are usually alternatives: those that were named come first.
    expected = [cause.service for cause in expectation.root_causes]
    expected.sort(key=lambda service: named.index(service) if service in named else len(named))
    shown = [anomaly.service for anomaly in expectation.anomalies]
    return ExhibitSubject(
        session=session,
        baseline=windows.baseline or (windows.reference[-1] if windows.reference else None),
        incident=windows.incident,
        culprits=tuple(dict.fromkeys([*expected, *named])),
        others=tuple(dict.fromkeys([*shown, *expectation.red_herrings])),
        failing=_failing(expectation, diagnosis),
    )


def _failing(expectation: Expectation, diagnosis: Diagnosis | None) -> bool:
    """Whether errors show the fault, by the expectation or else by the diagnosis."""
    mechanisms = [m for cause in expectation.root_causes for m in cause.mechanisms]
    signals = [anomaly.signal for anomaly in expectation.anomalies if anomaly.signal is not None]
    if not mechanisms and not signals and diagnosis is not None:
        mechanisms = [cause.mechanism for cause in diagnosis.root_causes[:1] if cause.mechanism is not None]
    return any(m in _FAILING for m in mechanisms) or Signal.ERROR_RATE in signals


async def collect(telemetry: Telemetry, subject: ExhibitSubject, *, timeout_s: float) -> Exhibits:
    """Return the exhibits; what fails or takes longer than *timeout_s* wall seconds becomes a note."""
    notes: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            return await _collected(telemetry, subject, notes)
    except TimeoutError:
        notes.append(f"exhibits: telemetry took longer than {timeout_s:g} s")
    except Exception as error:
        notes.append(f"exhibits: {describe(error)}")
    return Exhibits(notes=tuple(notes))


async def _collected(telemetry: Telemetry, subject: ExhibitSubject, notes: list[str]) -> Exhibits:
    edges = [
        await _or(_edges(telemetry, window), (), what, notes)
        for window, what in ((subject.baseline, "calls before"), (subject.incident, "calls of the incident"))
    ]
    calls = _calls(*edges)
    spelt = ServiceNames(name for call in calls for name in (call.caller, call.callee))
    culprits = [spelt.canonical(name) for name in subject.culprits]
    involved = [*culprits, *(spelt.canonical(name) for name in subject.others), *_callers(calls, culprits)]
    timeline = await _or(_timeline(telemetry, subject.session, involved), None, "timeline", notes)
    trace = None
    if subject.incident is not None and not subject.incident.empty:
        looked_for = exemplar(
            telemetry, subject.incident, [*culprits, *_callers(calls, culprits)], failed_first=subject.failing
        )
        trace = await _or(looked_for, None, "exemplar trace", notes)
        if trace is None and not notes:
            notes.append("exemplar trace: no span of the services in question lies in the incident")
    if len(calls) > MAX_EDGES:
        notes.append(f"calls: the busiest {MAX_EDGES} of {len(calls)} are kept")
    return Exhibits(
        timeline=timeline,
        calls=_busiest(calls, culprits),
        baseline_s=subject.baseline.duration_s if subject.baseline is not None else 0.0,
        incident_s=subject.incident.duration_s if subject.incident is not None else 0.0,
        trace=trace,
        notes=tuple(notes),
    )


async def _or(wanted: Awaitable[T], otherwise: T, what: str, notes: list[str]) -> T:
    try:
        return await wanted
    except TimeoutError:
        raise  # the time limit is for all of them
    except Exception as error:
        notes.append(f"{what}: {describe(error)}")
        return otherwise


async def _edges(telemetry: Telemetry, window: Window | None) -> Sequence[CallEdge]:
    return () if window is None or window.empty else await telemetry.call_edges(window)


def _calls(before: Iterable[CallEdge], during: Iterable[CallEdge]) -> tuple[ServiceCall, ...]:
    old = {(edge.caller, edge.callee): edge for edge in before}
    new = {(edge.caller, edge.callee): edge for edge in during}
    return tuple(
        ServiceCall(
            caller=_cut(pair[0]),
            callee=_cut(pair[1]),
            baseline=_load(old.get(pair)),
            incident=_load(new.get(pair)),
        )
        for pair in sorted(old.keys() | new.keys())
    )


def _load(edge: CallEdge | None) -> CallLoad | None:
    if edge is None:
        return None
    return CallLoad(calls=edge.calls, errors=edge.errors, p50_ms=round(edge.p50_ms, 3))


def _volume(call: ServiceCall) -> int:
    return sum(load.calls for load in (call.baseline, call.incident) if load is not None)


def _busiest(calls: Sequence[ServiceCall], culprits: Sequence[str]) -> tuple[ServiceCall, ...]:
    """Return at most MAX_EDGES calls in their order; calls of the culprits are kept before others."""
    near = set(culprits)
    ranked = sorted(calls, key=lambda c: (not near & {c.caller, c.callee}, -_volume(c), c.caller, c.callee))
    kept = {id(call) for call in ranked[:MAX_EDGES]}
    return tuple(call for call in calls if id(call) in kept)


def _callers(calls: Sequence[ServiceCall], culprits: Sequence[str]) -> list[str]:
    """Return the callers of the culprits, the busiest first."""
    volume: dict[str, int] = defaultdict(int)
    for call in calls:
        if call.callee in culprits and call.caller not in culprits:
            volume[call.caller] += _volume(call)
    return sorted(volume, key=lambda name: (-volume[name], name))


async def _timeline(telemetry: Telemetry, session: Window, involved: Sequence[str]) -> Timeline | None:
    if session.empty:
        return None
    bucket_s = bucket_seconds(session.duration_s)
    health = await telemetry.service_health(session, bucket_s)
    rows: dict[str, list[ServiceHealth]] = defaultdict(list)
    for row in health:
        rows[row.service].append(row)
    busy = sorted(rows, key=lambda name: (-sum(row.requests for row in rows[name]), name))
    spelt = ServiceNames(rows)
    wanted = [spelt.canonical(name) for name in dict.fromkeys(involved)]
    # In a control no service is involved: the busiest ones are shown, and a few beside few involved ones.
    known = [name for name in dict.fromkeys(wanted) if name in rows][:MAX_SERIES]
    names = [*known, *(name for name in busy if name not in known)][: max(len(known), MIN_SERIES)]
    buckets = math.ceil(session.duration_s / bucket_s - 1e-9)
    return Timeline(
        start_ns=session.start_ns,
        end_ns=session.end_ns,
        bucket_s=bucket_s,
        services=tuple(_series(name, rows[name], session.start_ns, (bucket_s, buckets)) for name in names),
    )


def bucket_seconds(duration_s: float) -> float:
    """Return a round width of a bucket, such that a session has at most MAX_BUCKETS of them."""
    least = duration_s / MAX_BUCKETS
    return next((step for step in _STEPS_S if step >= least), float(math.ceil(least)))


def _series(
    name: str, rows: Sequence[ServiceHealth], start_ns: Nanos, grid: tuple[float, int]
) -> ServiceSeries:
    bucket_s, buckets = grid
    requests, errors = [0] * buckets, [0] * buckets
    p95_ms: list[float | None] = [None] * buckets
    for row in rows:
        index = round((row.bucket_start_ns - start_ns) / (bucket_s * NANOS_PER_SECOND))
        if 0 <= index < buckets:
            requests[index], errors[index] = row.requests, row.errors
            p95_ms[index] = round(row.p95_ms, 2)
    return ServiceSeries(
        service=_cut(name), requests=tuple(requests), errors=tuple(errors), p95_ms=tuple(p95_ms)
    )


def _cut(text: str) -> str:
    return text if len(text) <= NAME_CHARS else f"{text[: NAME_CHARS - 1]}…"
