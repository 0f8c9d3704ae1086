"""What sessions are doing, as text: those in flight, one line for each that ended, and the tally so far.

Knows no terminal. Observers are told on the loop's thread while others read, so every access takes the lock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import (
    Blame,
    Impact,
    ImpactReason,
    Phase,
    SessionResult,
    Status,
)
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.ports import Clock
from pytest_otel_diag.runs.run import outcome
from pytest_otel_diag.scoring.text import clip, count, one_line
from pytest_otel_diag.sessions.observer import NullObserver
from pytest_otel_diag.sessions.settings import SessionPlan, WallTime

SAME_CLOCK_S = 5.0
"""A target whose clock is no further from ours than this lives in wall time."""

REASON_WIDTH = 160
"""Columns that the reason of a session without a score may take in its line."""

LABEL_WIDTH = 60


@dataclass(frozen=True)
class Flight:
    """A session in flight. ``began_s`` is a reading of the monotonic clock, ``waits`` what holds it up.

    ``clock`` is the target's, None before the target is open, ``opened_ns`` what it showed then; ``wall``
    says that it goes with ours.
    """

    label: str
    phase: Phase
    began_s: float
    clock: Clock | None = None
    opened_ns: Nanos = 0
    wall: bool = False
    impact: Impact | None = None
    waits: str = ""

    def target_elapsed_s(self) -> float | None:
        """Return how much time has passed on the target's clock, None where it cannot be read."""
        if self.clock is None:
            return None
        try:
            return (self.clock.now() - self.opened_ns) / NANOS_PER_SECOND
        except Exception:  # a clock that fails is the session's trouble, not that of its progress
            return None


class Tracker(NullObserver):
    """Follows the sessions of one process."""

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

    def waiting(self, plan: SessionPlan, text: str) -> None:
        """Note what the session waits for."""
        with self._lock:
            self._flights[plan.session_id] = replace(self._flight(plan, Phase.PREFLIGHT), waits=text)

    def phase_started(self, plan: SessionPlan, phase: Phase) -> None:
        """Note the phase, and the session with its first one."""
        with self._lock:
            self._flights[plan.session_id] = replace(self._flight(plan, phase), phase=phase)

    def _flight(self, plan: SessionPlan, phase: Phase) -> Flight:
        now_s = self._wall.monotonic()
        return self._flights.get(plan.session_id) or Flight(
            label=label(plan.scenario, plan.repeat), phase=phase, began_s=now_s
        )

    def target_opened(self, plan: SessionPlan, clock: Clock) -> None:
        """Note the clock that the session's times are read from."""
        opened_ns = clock.now()
        wall = abs(self._wall.now_ns() - opened_ns) < SAME_CLOCK_S * NANOS_PER_SECOND
        with self._lock:
            before = self._flights.get(plan.session_id)
            if before is not None:
                now = replace(before, clock=clock, opened_ns=opened_ns, wall=wall)
                self._flights[plan.session_id] = now

    def impact_progress(self, plan: SessionPlan, impact: Impact) -> None:
        """Note what is visible so far."""
        with self._lock:
            if plan.session_id in self._flights:
                self._flights[plan.session_id] = replace(self._flights[plan.session_id], impact=impact)

    def session_ended(self, result: SessionResult) -> None:
        """Forget the session."""
        with self._lock:
            self._flights.pop(result.session_id, None)


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


def label(scenario: Scenario, repeat: int = 0) -> str:
    """Return a short name of a session: the scenario's, or its faults where only the test has a name."""
    name = scenario.id
    if "::" in name:
        name = " + ".join(str(fault) for fault in scenario.faults) or name.rpartition("::")[2]
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
    target_s = flight.target_elapsed_s()
    real = span(now_s - flight.began_s)
    parts.append(real if target_s is None or flight.wall else f"{span(target_s)} virtual in {real}")
    if flight.phase is Phase.IMPACT and flight.impact is not None:
        parts.append(impact_text(flight.impact))
    return one_line(f"{flight.label}: {', '.join(parts)}")


def ended_text(result: SessionResult) -> str:
    """Return one ended session on one line: outcome, time to impact, and the time it took."""
    parts = [clip(_verdict(result), REASON_WIDTH)]
    impact = result.impact
    if impact is not None and impact.reason is ImpactReason.VISIBLE and impact.time_to_impact_s is not None:
        parts.append(f"visible after {span(impact.time_to_impact_s)}")
    return one_line(f"{label(result.scenario, result.repeat)}: {', '.join(parts)} ({_took(result)})")


def _verdict(result: SessionResult) -> str:
    text = outcome(result)
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
    return "green" if right(verdict) else "red"


def right(verdict: Verdict) -> bool:
    """Whether a fault was detected and its root cause named first, or a control raised no alarm.

    Where the root cause is unknown, detection is all there is to be right about.
    """
    if not verdict.fault_present:
        return not verdict.detected
    return verdict.detected and (verdict.top1 or verdict.causes_expected == 0)
