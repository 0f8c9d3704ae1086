"""What happened in one run of a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import Field

from pytest_otel_diag.model.base import Finite, Model, Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis, Usage
from pytest_otel_diag.model.exhibits import Exhibits
from pytest_otel_diag.model.scenario import Disturbance, Scenario
from pytest_otel_diag.model.transcript import TranscriptSummary
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import Window


class Status(StrEnum):
    """How a session ended. Only SCORED sessions count for the accuracy of the analyzer."""

    SCORED = "scored"
    INVALID = "invalid"
    ERROR = "error"
    SKIPPED = "skipped"


class Blame(StrEnum):
    """Who is to blame for an ERROR."""

    ANALYZER = "analyzer"
    INFRASTRUCTURE = "infrastructure"
    USER = "user"


class Phase(StrEnum):
    """Steps of a session, in order."""

    PREFLIGHT = "preflight"
    BASELINE = "baseline"
    INJECT = "inject"
    WITNESS = "witness"
    IMPACT = "impact"
    INVESTIGATE = "investigate"
    JUDGE = "judge"
    UNDO = "undo"
    RECOVER = "recover"
    RECORD = "record"


class PhaseRecord(Model):
    """One phase with its times on the target's clock and the wall time it took."""

    phase: Phase
    start_ns: Nanos
    end_ns: Nanos
    wall_s: Finite
    outcome: Literal["ok", "failed", "skipped"]
    detail: str = ""


class Witness(Model):
    """Proof that a flag is served: consecutive reads that answered the wanted variant."""

    flag: str
    variant: str
    reads: int
    confirmed: bool
    at_ns: Nanos
    detail: str = ""


class FlagMoment(Model):
    """The flag was served as ``variant`` from ``at_ns`` on; a flag's first moment is how it was found."""

    at_ns: Nanos
    flag: str
    variant: str


class DisturbanceMoment(Model):
    """A harmless change that the target made at ``at_ns``."""

    at_ns: Nanos
    disturbance: Disturbance


class ImpactReason(StrEnum):
    """Outcome of the wait for the impact: VISIBLE, or why it is not."""

    VISIBLE = "VISIBLE"
    NOT_SERVED = "NOT_SERVED"
    NO_TRAFFIC = "NO_TRAFFIC"
    NOT_YET_EXPORTED = "NOT_YET_EXPORTED"
    NOT_FELT = "NOT_FELT"
    TOO_RARE = "TOO_RARE"
    NO_EFFECT = "NO_EFFECT"


class Impact(Model):
    """What telemetry shows of the fault.

    ``calls_seen`` are the calls of ``service`` since the fault began, of one operation where ``detail`` says
    so, and ``calls_needed`` those that would show the fault in its errors. ``calls_driven`` are the calls
    that the session made the target make; a call that was redirected or refused is none. ``eta_s`` are the
    seconds until the calls needed will have been made at the rate so far, None where the rate is unknown.
    ``time_to_impact_s`` counts from the start of the fault to the end of the newest bucket that showed it.
    """

    reason: ImpactReason
    time_to_impact_s: Finite | None = None
    service: str | None = None
    signal: str | None = None
    detail: str = ""
    calls_seen: int = 0
    calls_needed: int = 0
    calls_driven: int = 0
    eta_s: Finite | None = None


class QueryRecord(Model):
    """One query of the analyzer, as the session metered it.

    ``at_s`` are the wall seconds from the start of the investigation to the query, None in results of earlier
    versions. ``tool`` is the tool that an agent called and that asked, '' for a query of its own.
    ``names_flag`` has ``statement`` if the statement asks for evaluations of flags or names the injected
    flag, ``answer`` if the answer names it.
    """

    sql: str
    elapsed_s: Finite
    rows: int
    at_s: Finite | None = None
    tool: str = ""
    data_sources: tuple[str, ...] = ()
    names_flag: tuple[Literal["statement", "answer"], ...] = ()
    error: str | None = None


LeakPolicy = Literal["keep", "redact", "refuse"]
"""What happens to telemetry that names the injected flag."""


class Attempt(Model):
    """An answer for which the analyzer asked whether it needs another hint.

    ``elapsed_s`` counts from the start of the investigation, without the time that replies took. ``cause`` is
    the first root cause named, '' for none. ``right`` is None for an attempt that was not judged. ``hint`` is
    the text given in reply, '' for none.
    """

    elapsed_s: Finite
    detected: bool = False
    cause: str = ""
    right: bool | None = None
    hint: str = ""


class LeakAudit(Model):
    """Whether telemetry revealed to the analyzer which flag was on.

    ``rows`` are the rows of the incident that name an injected flag, by kind (see :class:`.FlagMention`), as
    the analyzer could see them. ``queries_asked`` are its queries for evaluations of flags or for the flag by
    name, ``queries_answered`` those whose answer named the flag.
    """

    policy: LeakPolicy = "keep"
    rows: Mapping[str, int] = Field(default_factory=dict)
    queries_asked: int = 0
    queries_answered: int = 0

    @property
    def read(self) -> bool:
        """Whether the analyzer read telemetry about flags."""
        return bool(self.queries_asked or self.queries_answered)

    @property
    def described(self) -> str:
        """The rows in words, ``no rows`` without any."""
        parts = [f"{rows} x {kind.removeprefix('flag_')}" for kind, rows in self.rows.items()]
        total = sum(self.rows.values())
        return f"{total} {'row' if total == 1 else 'rows'} ({', '.join(parts)})" if parts else "no rows"


class Cleanup(Model):
    """Whether the fault is really gone.

    ``left_on`` are the faults (``flag=variant``) that the user asked to leave on; ``recovery_command`` is the
    shell command that turns off what is still on. ``residue`` says what outlives the flag (a cache that stays
    full).
    """

    restored: bool
    verified: bool
    recovered: bool | None = None
    detail: str = ""
    left_on: tuple[str, ...] = ()
    recovery_command: str = ""
    residue: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a fault may still be on that was not asked to stay on."""
        return not self.left_on and not (self.restored and self.verified)


class SessionWindows(Model):
    """The windows of the session on the target's clock."""

    baseline: Window | None = None
    incident: Window | None = None
    reference: tuple[Window, ...] = ()


class SessionResult(Model):
    """Everything known of a session; one line of ``sessions.jsonl``.

    ``flag_timeline`` is how the flags of the scenario were served, ``disturbances`` which harmless changes
    were made; both in order of time, on the target's clock. ``trace`` is the traceback of an analyzer that
    raised, from its own code on, of bounded length. ``transcript`` is how much there is in
    ``transcripts/<session_id>.jsonl``, None without a transcript. ``leaks`` is None for sessions without a
    flag, and where the analyzer read nothing. ``attempts`` are the answers for which the analyzer asked for a
    hint; the final one is ``diagnosis``. ``failures`` are the messages with which the test of the session
    failed, ``unmet`` the same in one line each. ``exhibits`` is what pictures are drawn from. ``notes``
    change no outcome. ``wall_s`` leaves out the time that the session waited for others.
    """

    schema_version: Literal[2] = 2
    session_id: str
    run_id: str
    test_id: str = ""
    repeat: int = 0
    seed: int = 0
    scenario: Scenario
    target: str
    analyzer: str
    status: Status
    reason: str = ""
    trace: str = ""
    blame: Blame | None = None
    started_at_ns: Nanos
    wall_s: Finite
    windows: SessionWindows = SessionWindows()
    phases: tuple[PhaseRecord, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    flag_timeline: tuple[FlagMoment, ...] = ()
    disturbances: tuple[DisturbanceMoment, ...] = ()
    impact: Impact | None = None
    diagnosis: Diagnosis | None = None
    verdict: Verdict | None = None
    queries: tuple[QueryRecord, ...] = ()
    transcript: TranscriptSummary | None = None
    leaks: LeakAudit | None = None
    attempts: tuple[Attempt, ...] = ()
    cleanup: Cleanup | None = None
    failures: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()
    exhibits: Exhibits | None = None
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] = Field(default_factory=dict)

    @property
    def usage(self) -> Usage:
        """What the analyzer says it used: in its diagnosis, or without one in its transcript."""
        if self.diagnosis is not None:
            return self.diagnosis.usage
        return self.transcript.usage if self.transcript is not None else Usage()

    @property
    def summary(self) -> str:
        """How the session ended, in a few words: the verdict, or the status with its reason."""
        verdict = self.verdict
        if verdict is None:
            return f"{self.status.value}: {self.reason}"
        if not verdict.fault_present:
            return "false alarm" if verdict.detected else "no alarm"
        rank = f"root cause ranked {verdict.service_rank}" if verdict.service_rank else "root cause not named"
        return f"{'detected' if verdict.detected else 'not detected'}, {rank}"


class Budget(Model):
    """What an analyzer may use in one investigation: wall time, queries, cost."""

    time_s: float = Field(default=600.0, gt=0)
    queries: int = Field(default=200, ge=0)
    cost_usd: float = Field(default=1.0, ge=0)
