"""Events that a session emits while it runs: frozen, JSON-serialisable, one for each thing that happens.

``sessions`` emits them and ``runs`` appends them to ``events.jsonl``; the terminal, web pages and other
processes read that file. Every event carries the id of its session, so events of parallel sessions may
interleave. Within one session they come in order::

    session_started (waiting)* phase_started (waiting)* target_opened ... phase_ended ... session_ended
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
"""Health of a service since the fault began, compared with its baseline.

``failing``: significantly more errors. ``degraded``: latency, request rate or another expected signal
(metric, log) deviates significantly. ``silent``: no calls although the baseline had some. ``ok``: none of
these, or a service that the session does not compare, being neither expected to suffer nor a caller of a
root cause.
"""


class ServiceSample(Model):
    """One service in one bucket of time, over its entry spans (server, consumer and root spans).

    ``bucket_s`` is the width of the bucket in seconds, less than usual where the window ends inside of it.
    ``p95_ms`` is None for a bucket without calls.
    """

    service: str
    bucket_start_ns: Nanos
    bucket_s: Finite
    rate_per_s: Finite
    error_ratio: Ratio
    p95_ms: Finite | None = None
    state: ServiceState = "ok"


class _Event(Model):
    """``at_ns`` is the target's clock (virtual time on simulated systems), ``wall_ns`` this machine's.

    Before the target is open ``at_ns`` is wall time too.
    """

    session_id: str
    at_ns: Nanos
    wall_ns: Nanos


class SessionStarted(_Event):
    """A session begins; carries everything a reader needs to name it.

    ``ungated`` is the reason why the session does not count in the gate, empty for one that does.
    """

    kind: Literal["session_started"] = "session_started"
    scenario_id: str
    faults: tuple[str, ...] = ()
    control: bool = False
    target: str
    analyzer: str
    test_id: str = ""
    repeat: int = 0
    seed: int = 0
    ungated: str = ""


class TargetOpened(_Event):
    """The target is open; ``at_ns`` of this and all later events is the target's clock.

    ``virtual`` says that this clock does not run with wall time.
    """

    kind: Literal["target_opened"] = "target_opened"
    virtual: bool = False


class SessionWaiting(_Event):
    """The session waits for something outside of it, such as a lease; an empty ``reason`` ends the wait."""

    kind: Literal["waiting"] = "waiting"
    reason: str


class PhaseStarted(_Event):
    """A phase begins."""

    kind: Literal["phase_started"] = "phase_started"
    phase: Phase


class PhaseEnded(_Event):
    """A phase ended, successfully or not."""

    kind: Literal["phase_ended"] = "phase_ended"
    record: PhaseRecord


class FlagServed(_Event):
    """A flag of the scenario was read back as served; the first event of a flag is how it was found."""

    kind: Literal["flag_served"] = "flag_served"
    moment: FlagMoment


class DisturbanceMade(_Event):
    """The target made a harmless change of the scenario."""

    kind: Literal["disturbance_made"] = "disturbance_made"
    moment: DisturbanceMoment


class BaselineMeasured(_Event):
    """The baseline was read; ``samples`` are its buckets, all of them ``ok``."""

    kind: Literal["baseline_measured"] = "baseline_measured"
    samples: tuple[ServiceSample, ...] = ()


class ImpactMeasured(_Event):
    """One look at telemetry: the assessment so far, and the buckets that changed since the last look.

    Buckets fill up as telemetry is exported: a later sample of the same service and bucket replaces an
    earlier one.
    """

    kind: Literal["impact_measured"] = "impact_measured"
    impact: Impact
    samples: tuple[ServiceSample, ...] = ()


class DiagnosisReceived(_Event):
    """The analyzer answered after ``elapsed_s`` wall seconds; ``root_causes`` are services, best first."""

    kind: Literal["diagnosis_received"] = "diagnosis_received"
    detected: bool
    root_causes: tuple[str, ...] = ()
    elapsed_s: Finite


class VerdictReached(_Event):
    """The judge compared the diagnosis with the expectation."""

    kind: Literal["verdict_reached"] = "verdict_reached"
    detected: bool
    fault_present: bool
    service_rank: int | None = None
    solved: bool = False


class FaultsUndone(_Event):
    """The undo ended, verified or not, or the faults were left on as requested."""

    kind: Literal["faults_undone"] = "faults_undone"
    cleanup: Cleanup


class SessionEnded(_Event):
    """The session is over; its whole result is a line of ``sessions.jsonl``.

    ``outcome`` is how it ended in a few words, ``wall_s`` the wall time it took without waiting.
    """

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
    | BaselineMeasured
    | ImpactMeasured
    | DiagnosisReceived
    | VerdictReached
    | FaultsUndone
    | SessionEnded,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[SessionEvent] = TypeAdapter(SessionEvent)
"""Reads one event: ``EVENT.validate_json(line)``."""
