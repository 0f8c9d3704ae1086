"""Folds the events of a run into its state: sessions in flight, sessions that ended, and the tally so far."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.events import (
    BaselineMeasured,
    ImpactMeasured,
    PhaseStarted,
    ServiceSample,
    SessionEnded,
    SessionEvent,
    SessionStarted,
    SessionWaiting,
    TargetOpened,
    VerdictReached,
)
from pytest_otel_diag.model.session import Impact, Phase, SessionResult, Status
from pytest_otel_diag.model.windows import NANOS_PER_SECOND
from pytest_otel_diag.runs.events import EventReader, events_of


@dataclass(frozen=True)
class SessionState:
    """One session as its events describe it so far.

    ``waiting`` is what the session waits for, empty where it waits for nothing. ``opened_ns`` and ``last_ns``
    are the target's clock when it was opened and at the last event; ``virtual`` says that this clock does not
    run with wall time. ``series`` holds the samples of each service in order of time.
    """

    started: SessionStarted
    phase: Phase = Phase.PREFLIGHT
    waiting: str = ""
    virtual: bool = False
    opened_ns: Nanos | None = None
    last_ns: Nanos = 0
    impact: Impact | None = None
    series: Mapping[str, tuple[ServiceSample, ...]] = field(default_factory=dict)
    verdict: VerdictReached | None = None
    ended: SessionEnded | None = None

    @property
    def target_s(self) -> float | None:
        """Length of the session on a virtual clock; None in wall time, and before the target is open."""
        if not self.virtual or self.opened_ns is None:
            return None
        return (self.last_ns - self.opened_ns) / NANOS_PER_SECOND

    def after(self, event: SessionEvent) -> SessionState:
        """Return the state once *event* has happened."""
        change: dict[str, Any] = {} if self.opened_ns is None else {"last_ns": event.at_ns}
        match event:
            case TargetOpened():
                change = {"opened_ns": event.at_ns, "last_ns": event.at_ns, "virtual": event.virtual}
            case SessionWaiting():
                change["waiting"] = event.reason
            case PhaseStarted():
                change["phase"] = event.phase
            case BaselineMeasured():
                change["series"] = _merged(self.series, event.samples)
            case ImpactMeasured():
                change |= {"impact": event.impact, "series": _merged(self.series, event.samples)}
            case VerdictReached():
                change["verdict"] = event
            case SessionEnded():
                change["ended"] = event
        return replace(self, **change)


def _merged(
    series: Mapping[str, tuple[ServiceSample, ...]], samples: Iterable[ServiceSample]
) -> dict[str, tuple[ServiceSample, ...]]:
    """Return the series with the samples; one of the same service and bucket replaces the earlier one."""
    merged = dict(series)
    for sample in samples:
        buckets = {one.bucket_start_ns: one for one in merged.get(sample.service, ())}
        buckets[sample.bucket_start_ns] = sample
        merged[sample.service] = tuple(buckets[start_ns] for start_ns in sorted(buckets))
    return merged


def state_of(result: SessionResult) -> SessionState:
    """Return the state that a finished session is in."""
    first, *rest = events_of(result)
    assert isinstance(first, SessionStarted)
    state = SessionState(first)
    for event in rest:
        state = state.after(event)
    return state


@dataclass
class SessionTally:
    """Counts over the sessions that ended. Faults that the gate leaves out count as scored only."""

    statuses: Counter[Status] = field(default_factory=Counter)
    faults: int = 0
    detected: int = 0
    controls: int = 0
    alarms: int = 0

    def add(self, state: SessionState) -> None:
        """Count one session that ended."""
        assert state.ended is not None
        self.statuses[state.ended.status] += 1
        verdict = state.verdict
        if state.ended.status is not Status.SCORED or verdict is None or state.started.ungated:
            return
        if verdict.fault_present:
            self.faults += 1
            self.detected += verdict.detected
        else:
            self.controls += 1
            self.alarms += verdict.detected


class Tracker:
    """Holds the state of a run's sessions; safe to read from one thread while another one adds events."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, SessionState] = {}
        self._ended: dict[str, SessionState] = {}

    def add(self, event: SessionEvent) -> None:
        """Take one event into account.

        Events of a session that never started are ignored, and so is everything after its end: a session's
        end may be recorded twice when the process that ran it was killed.
        """
        with self._lock:
            key = event.session_id
            if isinstance(event, SessionStarted):
                if key not in self._ended:
                    self._flights.setdefault(key, SessionState(event))
            elif key in self._flights:
                state = self._flights[key].after(event)
                if isinstance(event, SessionEnded):
                    del self._flights[key]
                    self._ended[key] = state
                else:
                    self._flights[key] = state

    def flights(self) -> tuple[SessionState, ...]:
        """Return the sessions in flight, the oldest first."""
        with self._lock:
            return tuple(self._flights.values())

    def ended(self, since: int = 0) -> tuple[SessionState, ...]:
        """Return the sessions that ended, in that order, without the first *since* of them."""
        with self._lock:
            return tuple(self._ended.values())[since:]

    def has_ended(self, session_id: str) -> bool:
        """Whether the end of the session is known."""
        with self._lock:
            return session_id in self._ended


class Follower:
    """Keeps a tracker up to date with the events that processes of a run append; threads may share it."""

    def __init__(self, directory: Path) -> None:
        self._reader = EventReader(directory)
        self._lock = threading.Lock()
        self._tracker = Tracker()

    def refresh(self) -> Tracker:
        """Read what was appended since the last call and return the state of the run.

        Raises RunUnreadable as :meth:`EventReader.poll` does.
        """
        with self._lock:
            for event in self._reader.poll():
                self._tracker.add(event)
            return self._tracker
