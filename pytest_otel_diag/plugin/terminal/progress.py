"""What sessions are doing, as text: those in flight, one line for each that ended, and the tally so far.

Knows no terminal. Events come on the thread of the event loop while others read, so every access takes the
lock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.events import (
    ImpactMeasured,
    PhaseStarted,
    SessionEnded,
    SessionEvent,
    SessionStarted,
    SessionWaiting,
    TargetOpened,
)
from pytest_otel_diag.model.session import (
    Blame,
    Impact,
    ImpactReason,
    Phase,
    SessionResult,
    Status,
)
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.scoring.text import clip, count, one_line
from pytest_otel_diag.sessions.settings import WallTime

SAME_CLOCK_S = 5.0
"""A target whose clock is no further from ours than this lives in wall time."""

REASON_WIDTH = 160
"""Columns that the reason of a session without a score may take in its line."""

LABEL_WIDTH = 60


@dataclass(frozen=True)
class Flight:
    """A session in flight. ``began_s`` is a reading of the monotonic clock, ``waits`` what holds it up.

    ``target_s`` is how much time had passed on the target's clock at the last event, None before the target
    is open and on targets that run in wall time.
    """

    label: str
    phase: Phase
    began_s: float
    virtual: bool = False
    opened_ns: Nanos = 0
    target_s: float | None = None
    impact: Impact | None = None
    waits: str = ""


class Tracker:
    """Follows the sessions of one process by their events."""

    def __init__(self, wall: WallTime | None = None) -> None:
        self._wall = wall or WallTime()
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}

    @property
    def monotonic(self) -> Callable[[], float]:
        """The clock that flights are measured on, in seconds."""
        return self._wall.monotonic

    def flights(self) -> dict[str, Flight]:
        """Return the sessions in flight by id, the oldest first."""
        with self._lock:
            return dict(self._flights)

    def see(self, event: SessionEvent) -> None:
        """Take note of one event; those of sessions that never started are passed over."""
        with self._lock:
            if isinstance(event, SessionStarted):
                name = label(event.scenario_id, event.faults, event.repeat)
                self._flights[event.session_id] = Flight(name, Phase.PREFLIGHT, self._wall.monotonic())
            elif isinstance(event, SessionEnded):
                self._flights.pop(event.session_id, None)
            elif event.session_id in self._flights:
                self._flights[event.session_id] = _after(self._flights[event.session_id], event)


def _after(flight: Flight, event: SessionEvent) -> Flight:
    if isinstance(event, TargetOpened):
        flight = replace(flight, virtual=event.virtual, opened_ns=event.at_ns)
    elif isinstance(event, SessionWaiting):
        flight = replace(flight, waits=event.reason)
    elif isinstance(event, PhaseStarted):
        flight = replace(flight, phase=event.phase)
    elif isinstance(event, ImpactMeasured):
        flight = replace(flight, impact=event.impact)
    if not flight.virtual:
        return flight
    return replace(flight, target_s=(event.at_ns - flight.opened_ns) / NANOS_PER_SECOND)


@dataclass
class Tally:
    """Counts over the sessions that ended. Faults that the gate leaves out count as scored only."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    detected: int = 0
    controls: int = 0
    alarms: int = 0

    def add(self, result: SessionResult) -> None:
        """Count one session."""
        self.statuses[result.status.value] += 1
        verdict = result.verdict
        if result.status is not Status.SCORED or verdict is None or result.scenario.ungated:
            return
        if verdict.fault_present:
            self.faults += 1
            self.detected += verdict.detected
        else:
            self.controls += 1
            self.alarms += verdict.detected

    def text(self) -> str:
        """Return the tally: ``8 scored: 6/7 detected, 0/1 alarms; 1 invalid`` (faults, controls)."""
        rates = [
            f"{part}/{whole} {noun}"
            for part, whole, noun in (
                (self.detected, self.faults, "detected"),
                (self.alarms, self.controls, "alarms"),
            )
            if whole
        ]
        scored = f"{self.statuses['scored']} scored" + (f": {', '.join(rates)}" if rates else "")
        others = [
            count(self.statuses[status], status) if status == "error" else f"{self.statuses[status]} {status}"
            for status in ("invalid", "error", "skipped")
            if self.statuses[status]
        ]
        return "; ".join([scored, *others])


def label(scenario_id: str, faults: Iterable[object], repeat: int = 0) -> str:
    """Return a short name of a session: the scenario's, or its faults where only the test has a name."""
    name = scenario_id
    if "::" in name:
        name = " + ".join(map(str, faults)) or name.rpartition("::")[2]
    return clip(name, LABEL_WIDTH) + (f" (repeat {repeat})" if repeat else "")


def span(seconds: float) -> str:
    """Return a length of time: ``2.8 s`` below a minute, ``4:05`` or ``1:04:05`` above."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"


def impact_text(impact: Impact) -> str:
    """Return what is visible of the fault: reason, service, signal, calls seen of those needed."""
    what = " ".join(part for part in (impact.reason.value, impact.service, impact.signal) if part)
    if not impact.calls_needed:
        return what
    rest = f", {span(impact.eta_s)} more" if impact.eta_s and impact.calls_seen < impact.calls_needed else ""
    return f"{what}, {impact.calls_seen} of {count(impact.calls_needed, 'call')}{rest}"


def flight_text(flight: Flight, now_s: float) -> str:
    """Return one session in flight on one line: phase, target's and real time, impact so far."""
    parts = [f"waiting: {flight.waits}" if flight.waits else flight.phase.value]
    real = span(now_s - flight.began_s)
    parts.append(real if flight.target_s is None else f"{span(flight.target_s)} virtual in {real}")
    if flight.phase is Phase.IMPACT and flight.impact is not None:
        parts.append(impact_text(flight.impact))
    return one_line(f"{flight.label}: {', '.join(parts)}")


def ended_text(result: SessionResult) -> str:
    """Return one ended session on one line: outcome, time to impact, and the time it took."""
    parts = [clip(_verdict(result), REASON_WIDTH)]
    impact = result.impact
    if impact is not None and impact.reason is ImpactReason.VISIBLE and impact.time_to_impact_s is not None:
        parts.append(f"visible after {span(impact.time_to_impact_s)}")
    name = label(result.scenario.id, result.scenario.faults, result.repeat)
    return one_line(f"{name}: {', '.join(parts)} ({_took(result)})")


def _verdict(result: SessionResult) -> str:
    text = result.outcome
    if result.verdict is None:
        culprit = " (analyzer)" if result.blame is Blame.ANALYZER else ""
        return text.replace(":", f"{culprit}:", 1) if culprit else text
    return f"detected, {text}" if result.verdict.fault_present and result.verdict.detected else text


def _took(result: SessionResult) -> str:
    real = span(result.wall_s)
    if not result.phases:
        return real
    target_s = (result.phases[-1].end_ns - result.phases[0].start_ns) / NANOS_PER_SECOND
    if abs(target_s - result.wall_s) < SAME_CLOCK_S:
        return real
    return f"{span(target_s)} virtual in {real}"


def colour(result: SessionResult) -> str:
    """Return green for a right answer, red for a wrong one, yellow for a session without a score."""
    verdict = result.verdict
    if result.status is not Status.SCORED or verdict is None:
        return "yellow"
    return "green" if verdict.solved else "red"
