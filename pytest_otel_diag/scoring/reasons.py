"""Why a session is not right, in one line, the same in every report."""

from __future__ import annotations

from pytest_otel_diag.model.outcome import Outcome, outcome_of
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.scoring.text import one_line

NAMED_SHOWN = 3
"""Services that were named as root cause, of those that a reason lists."""


def reason_of(session: SessionResult) -> str:
    """Return why the outcome of the session is no right answer; empty where it is one.

    What the test itself found wrong comes first, then what the judge did.
    """
    outcome = outcome_of(session)
    if outcome.right:
        return ""
    lines = session.unmet or tuple(failure.partition("\n")[0] for failure in session.failures)
    if lines:
        return one_line("; ".join(dict.fromkeys(lines)))
    if session.verdict is None or session.status is not Status.SCORED:
        return one_line(session.reason)
    return one_line(_judged(session, session.verdict, outcome))


def _judged(session: SessionResult, verdict: Verdict, outcome: Outcome) -> str:
    named = _named(session)
    if outcome is Outcome.FALSE_ALARM:
        return f"a fault was reported where there is none: {named}, confidence {verdict.confidence:.2f}"
    wanted = " or ".join(dict.fromkeys(cause.service for cause in session.scenario.expectation.root_causes))
    if outcome is Outcome.NOT_DETECTED:
        ranked = f"; root cause {wanted}: {_rank(verdict)}" if wanted else ""
        return f"no fault was detected{ranked}"
    return f"the root cause was not named first: expected {wanted}, found {named} ({_rank(verdict)})"


def _rank(verdict: Verdict) -> str:
    return "not named" if verdict.service_rank is None else f"ranked {verdict.service_rank}"


def _named(session: SessionResult) -> str:
    causes = session.diagnosis.root_causes if session.diagnosis is not None else ()
    services = list(dict.fromkeys(cause.service for cause in causes))[:NAMED_SHOWN]
    return ", ".join(services) or "no root cause"
