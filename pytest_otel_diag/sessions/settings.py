"""What a session is asked to do, and the knobs of the engine that runs it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pytest_otel_diag.model.base import Nanos
from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.flags import FlagValue
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.model.session import Budget, SessionResult
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.ports import JudgeFacts, TargetSession

RECOVERY_COMMAND = "otel-diag heal"
"""The command that takes back a fault that is on, where the target names none of its own."""


class Judge(Protocol):
    """Compares a diagnosis with the expectation of the scenario."""

    async def __call__(self, diagnosis: Diagnosis, scenario: Scenario, facts: JudgeFacts) -> Verdict:
        """Return how right the diagnosis is."""
        ...


@dataclass(frozen=True)
class SessionPlan:
    """One session to run: identity, scenario, budget.

    ``session_id`` may be telling; the analyzer gets an opaque digest of it. ``target_name`` empty
    means the name the target gives itself.
    """

    scenario: Scenario
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
    """Where real time comes from: *monotonic* in seconds for durations, *now_ns* UTC for the record."""

    monotonic: Callable[[], float] = time.monotonic
    now_ns: Callable[[], Nanos] = time.time_ns


@dataclass(frozen=True)
class EngineSettings:
    """Knobs of the workflow.

    ``witness_*`` count on the target's clock: a fault is witnessed once it was served
    ``witness_reads`` times in a row. ``*_timeout_s`` of undo, close, judge and session, and
    ``cancel_grace_s`` (how long an analyzer may take to obey its cancellation) are wall seconds.
    ``alpha`` is the chance of seeing an impact that is not there over one whole wait, ``power`` the
    chance of seeing one that makes ``min_error_ratio`` more of the calls fail.
    ``max_baseline_error_ratio`` is the error share from which a baseline counts as sick.
    ``max_driven_calls`` bounds the traffic a target is asked to make (0: none).
    ``flag_context`` is the evaluation context of the witness.
    ``max_sessions`` bounds the sessions side by side over one target in this process (None: no limit;
    an exclusive target has one). ``setup_only`` stops after the impact. ``skip_cleanup`` leaves faults on,
    where the system outlives the session: on exclusive targets. ``capture`` is handed the open target and
    the result so far, once the flags are back; it has ``capture_timeout_s`` wall seconds, as the target's
    ``residue`` has ``residue_timeout_s``. ``wall`` is where real time is read.
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
    max_sessions: int | None = None
    setup_only: bool = False
    skip_cleanup: bool = False
    capture: Callable[[TargetSession, SessionResult], Awaitable[None]] | None = None
    capture_timeout_s: float = 300.0
    residue_timeout_s: float = 120.0
    wall: WallTime = field(default_factory=WallTime)
