"""The outcome of a session in one word, the same in every report."""

from __future__ import annotations

from enum import StrEnum

from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.model.verdict import Verdict


class Outcome(StrEnum):
    """How a session compares with the ground truth, or why it was not compared.

    ``NO_ALARM`` is the right answer to a control; ``WRONG_CAUSE`` is a detected fault whose root cause is
    known and was not named first. ``FAILED_CHECK`` is a right answer whose test failed all the same,
    for example over an anomaly that it asked for.
    """

    SOLVED = "solved"
    NO_ALARM = "no alarm"
    NOT_DETECTED = "not detected"
    WRONG_CAUSE = "wrong cause"
    FALSE_ALARM = "false alarm"
    FAILED_CHECK = "failed check"
    INVALID = "invalid"
    ERROR = "error"
    SKIPPED = "skipped"
    NOT_JUDGED = "not judged"

    @property
    def right(self) -> bool:
        """Whether the analyzer was right."""
        return self in (Outcome.SOLVED, Outcome.NO_ALARM)


_UNSCORED = {
    Status.INVALID: Outcome.INVALID,
    Status.ERROR: Outcome.ERROR,
    Status.SKIPPED: Outcome.SKIPPED,
    Status.SCORED: Outcome.NOT_JUDGED,
}


def outcome_of(session: SessionResult) -> Outcome:
    """Return the outcome of a session."""
    verdict = session.verdict
    if session.status is not Status.SCORED or verdict is None:
        return _UNSCORED[session.status]
    outcome = _judged(verdict)
    return Outcome.FAILED_CHECK if outcome.right and session.failures else outcome


def _judged(verdict: Verdict) -> Outcome:
    if not verdict.fault_present:
        return Outcome.FALSE_ALARM if verdict.detected else Outcome.NO_ALARM
    if not verdict.detected:
        return Outcome.NOT_DETECTED
    return Outcome.SOLVED if verdict.solved else Outcome.WRONG_CAUSE
