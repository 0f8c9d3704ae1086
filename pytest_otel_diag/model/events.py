"""What a session reports while it runs: one frozen, JSON-serialisable event a moment.

``sessions`` emits them, ``runs`` appends them to ``events.jsonl``; terminal, pages and other processes read
that file. Each event names its session, so events of parallel sessions may interleave.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from pytest_otel_diag.model.base import Finite, Model, Nanos, Ratio
from pytest_otel_diag.model.session import (
    Blame,
    Cleanup,
    DisturbanceMoment,
    FlagMoment,
    Impact,
    Phase,
    PhaseRecord,
    Status,
)

ServiceState = Literal["ok", "degraded", "failing", "silent"]
"""``silent``: no calls where the baseline had some; ``failing``: significantly more errors than in the
baseline; ``degraded``: significantly slower or with less traffic."""


class ServiceSample(Model):
    """One service in one bucket of time; ``rate_per_s`` and ``error_ratio`` are over its entry spans."""

    service: str
    bucket_start_ns: Nanos
    bucket_s: Finite
    rate_per_s: Finite
    error_ratio: Ratio
    p95_ms: Finite
    state: ServiceState = "ok"


class _Event(Model):
    """``at_ns`` is the target's clock (virtual time on simulated systems), ``wall_ns`` this machine's."""

    session_id: str
    at_ns: Nanos
    wall_ns: Nanos


class SessionStarted(_Event):
    """A session begins; everything a reader needs to name it."""

    kind: Literal["session_started"] = "session_started"
    scenario_id: str
    faults: tuple[str, ...] = ()
    control: bool = False
    target: str
    analyzer: str
    test_id: str = ""
    repeat: int = 0
    seed: int = 0


class TargetOpened(_Event):
    """The target is open: from here on ``at_ns`` is its clock. ``virtual``: time passes at once."""

    kind: Literal["target_opened"] = "target_opened"
    virtual: bool = False


class SessionWaiting(_Event):
    """The session waits for something outside of it, such as a lease; an empty reason ends the wait."""

    kind: Literal["waiting"] = "waiting"
    reason: str


class PhaseStarted(_Event):
    """A phase begins."""

    kind: Literal["phase_started"] = "phase_started"
    phase: Phase


class PhaseEnded(_Event):
    """A phase ended, however it ended."""

    kind: Literal["phase_ended"] = "phase_ended"
    record: PhaseRecord


class FlagServed(_Event):
    """A flag was read back as served."""

    kind: Literal["flag_served"] = "flag_served"
    moment: FlagMoment


class DisturbanceMade(_Event):
    """The target made a harmless change of the scenario."""

    kind: Literal["disturbance_made"] = "disturbance_made"
    moment: DisturbanceMoment


class ImpactMeasured(_Event):
    """One look at telemetry: the assessment so far, and the buckets that are new since the last look."""

    kind: Literal["impact_measured"] = "impact_measured"
    impact: Impact
    samples: tuple[ServiceSample, ...] = ()


class DiagnosisReceived(_Event):
    """The analyzer answered."""

    kind: Literal["diagnosis_received"] = "diagnosis_received"
    detected: bool
    root_causes: tuple[str, ...] = ()
    elapsed_s: Finite


class VerdictReached(_Event):
    """The judge compared the diagnosis with the expectation; ``outcome`` says how it went, in words."""

    kind: Literal["verdict_reached"] = "verdict_reached"
    detected: bool
    fault_present: bool
    service_rank: int | None = None
    solved: bool = False


class FaultsUndone(_Event):
    """The undo ended, verified or not."""

    kind: Literal["faults_undone"] = "faults_undone"
    cleanup: Cleanup


class SessionEnded(_Event):
    """The session is over; its whole result is a line of ``sessions.jsonl``."""

    kind: Literal["session_ended"] = "session_ended"
    scenario_id: str
    status: Status
    reason: str = ""
    blame: Blame | None = None
    outcome: str = ""
    wall_s: Finite


SessionEvent = Annotated[
    SessionStarted
    | TargetOpened
    | SessionWaiting
    | PhaseStarted
    | PhaseEnded
    | FlagServed
    | DisturbanceMade
    | ImpactMeasured
    | DiagnosisReceived
    | VerdictReached
    | FaultsUndone
    | SessionEnded,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[SessionEvent] = TypeAdapter(SessionEvent)
"""Reads one event: ``EVENT.validate_json(line)``."""
