"""What a session is asked to do, and the settings of the engine that runs it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.flags import FlagValue
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import Budget, LeakPolicy, SessionResult
from pytest_otel_diag.model.transcript import TranscriptEntry
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.ports import JudgeFacts, Person, TargetSession
from pytest_otel_diag.sessions.validation import ValidScenario

RECOVERY_COMMAND = "otel-diag heal"
"""The command that turns off a fault that is still on, for targets that name none."""


class Judge(Protocol):
    """Compares a diagnosis with the expectation of the scenario."""

    async def __call__(self, diagnosis: Diagnosis, scenario: Scenario, facts: JudgeFacts) -> Verdict:
        """Return how right the diagnosis is."""
        ...


@dataclass(frozen=True)
class SessionPlan:
    """One session to run: identity, validated scenario, budget.

    ``session_id`` may name the fault: the analyzer gets a digest of it. An empty ``target_name`` means the
    name of the target.
    """

    scenario: ValidScenario
    session_id: str
    run_id: str
    test_id: str = ""
    repeat: int = 0
    seed: int = 0
    analyzer_name: str = ""
    target_name: str = ""
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class WallTime:
    """Where wall time is read: *monotonic* in seconds for durations, *now_ns* in UTC for the record."""

    monotonic: Callable[[], float] = time.monotonic
    now_ns: Callable[[], Nanos] = time.time_ns


@dataclass(frozen=True)
class EngineSettings:
    """Settings of the engine, the same for all of its sessions. Times are in seconds.

    Witness: a fault is proven once its flag answered ``witness_reads`` times in a row, read each
    ``witness_poll_s`` for ``witness_timeout_s`` of the target's clock. ``flag_context`` is the evaluation
    context of these reads.

    Statistics: ``alpha`` is the chance of a false alarm over one whole wait for the impact, ``power`` the
    chance of seeing an impact that makes ``min_error_ratio`` more of the calls fail. A baseline counts as
    sick from an error ratio of ``max_baseline_error_ratio`` on. ``max_driven_calls`` limits the traffic that
    a target is asked to make (0: none).

    Wall time: ``undo_timeout_s``, ``close_timeout_s``, ``judge_timeout_s``, ``session_timeout_s`` (None: no
    limit), ``capture_timeout_s``, ``residue_timeout_s``, and ``cancel_grace_s``, how long an analyzer may
    take to obey its cancellation. ``wall`` is where wall time is read.

    ``hints`` is the largest number of hints that an analyzer gets after wrong or missing answers;
    where a ``person`` guides analyzers, their messages replace the hints.

    ``max_sessions`` limits the sessions side by side over one target in this process (None: no limit;
    exclusive targets have one). ``setup_only`` ends each session after the impact. ``skip_cleanup`` leaves
    faults on, on exclusive targets only, whose system outlives the session. ``leaks`` is what happens to
    telemetry that names the injected flag; with ``redact`` the target hides it. ``capture`` gets the open
    target and the result so far once the flags are restored. ``transcribe`` stores an entry of the transcript
    of the session with this id, at once; it may raise OSError. ``affordable`` raises SpendingLimitReached for
    a session that the run cannot pay.
    """

    witness_reads: int = 3
    witness_timeout_s: float = 30.0
    witness_poll_s: float = 1.0
    undo_timeout_s: float = 60.0
    undo_attempts: int = 3
    close_timeout_s: float = 30.0
    judge_timeout_s: float = 120.0
    session_timeout_s: float | None = None
    cancel_grace_s: float = 1.0
    alpha: float = 0.01
    power: float = 0.95
    min_error_ratio: float = 0.1
    max_baseline_error_ratio: float = 0.2
    max_driven_calls: int = 500
    flag_context: Mapping[str, FlagValue] = field(default_factory=dict)
    hints: int = 0
    person: Person | None = None
    max_sessions: int | None = None
    setup_only: bool = False
    skip_cleanup: bool = False
    leaks: LeakPolicy = "keep"
    capture: Callable[[TargetSession, SessionResult], Awaitable[None]] | None = None
    transcribe: Callable[[str, TranscriptEntry], None] | None = None
    affordable: Callable[[], None] | None = None
    capture_timeout_s: float = 300.0
    residue_timeout_s: float = 120.0
    wall: WallTime = field(default_factory=WallTime)
