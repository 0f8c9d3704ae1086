"""Ended sessions as values, for what shows them."""

from __future__ import annotations

from pytest_otel_diag.model.scenario import Expectation, Fault, Scenario
from pytest_otel_diag.model.session import SessionResult, Status
from pytest_otel_diag.model.verdict import Verdict

FAULT = Scenario(id="pay", faults=(Fault(flag="paymentFailure", variant="50%"),), expectation=Expectation())
CONTROL = Scenario(id="quiet", expectation=Expectation(healthy=True))

RIGHT = Verdict(fault_present=True, detected=True, service_rank=1, causes_expected=1)
WRONG = Verdict(fault_present=True, detected=True, service_rank=3, causes_expected=1)
MISSED = Verdict(fault_present=True, detected=False, causes_expected=1)
CALM = Verdict(fault_present=False, detected=False)
ALARM = Verdict(fault_present=False, detected=True)


def result(scenario: Scenario = FAULT, verdict: Verdict | None = None, **more: object) -> SessionResult:
    """A session: scored where it has a verdict, an error otherwise."""
    status = Status.SCORED if verdict is not None else Status.ERROR
    given = {"status": status, "wall_s": 2.84, "started_at_ns": 0, **more}
    return SessionResult(
        session_id="s", run_id="r", scenario=scenario, target="t", analyzer="a", verdict=verdict, **given
    )
