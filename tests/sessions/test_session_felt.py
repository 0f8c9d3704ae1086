"""A fault that is served and does not reach its service: what is said of it, and what is done about it."""

from __future__ import annotations

import pytest

from pytest_otel_diag.errors import TelemetryUnavailable
from pytest_otel_diag.model.flags import ServedFlag
from pytest_otel_diag.model.scenario import Fault
from pytest_otel_diag.model.session import Impact, ImpactReason, Status
from pytest_otel_diag.model.telemetry import Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.sessions.impact.felt import Evaluations, evaluations_of, judged
from tests.sessions.session_fakes import Behaviour, FakeTarget, engine, plan, scenario, shop

FAULT = Fault(flag="paymentFailure", variant="50%")
SERVED = ServedFlag(key="paymentFailure", variant="50%", value=0.5, at_ns=0)
COLUMNS = dict.fromkeys(("ServiceName", "Timestamp", "SpanAttributes", "Events.Attributes"), "String")
NAMES = ("service", "variant", "value", "late", "evaluations")


def verdict(reason: ImpactReason, since=None, before=(), *, restartable=False) -> Impact:
    found = Evaluations({name: frozenset(got) for name, got in (since or {}).items()}, frozenset(before))
    impact = Impact(reason=reason, service="payment", detail="payment looks the same")
    return judged(impact, FAULT, SERVED, found, causes=["payment"], restartable=restartable)


@pytest.mark.parametrize("reason", [ImpactReason.NO_EFFECT, ImpactReason.TOO_RARE])
def test_a_service_that_still_gets_another_variant_does_not_feel_the_fault(reason):
    found = verdict(reason, {"checkout": {"off"}})
    assert (found.reason, found.service) == (ImpactReason.NOT_FELT, "checkout")
    assert found.detail == (
        "paymentFailure=50% is served, but checkout still evaluates paymentFailure to off; its flag client "
        "probably serves a cached value or has lost its stream from flagd; restart checkout and run the "
        "session again"
    )


@pytest.mark.parametrize("got", [{"50%"}, {"0.5"}, {"off", "50%"}])
def test_a_service_that_got_the_variant_or_its_value_felt_the_fault(got):
    assert (
        verdict(ImpactReason.NO_EFFECT, {"payment": got}, restartable=True).reason is ImpactReason.NO_EFFECT
    )


def test_the_root_cause_may_be_stale_beside_a_service_that_is_not():
    found = verdict(ImpactReason.NO_EFFECT, {"payment": {"off"}, "ad": {"50%"}})
    assert (found.reason, found.service) == (ImpactReason.NOT_FELT, "payment")
    other = verdict(ImpactReason.NO_EFFECT, {"payment": {"50%"}, "ad": {"off"}})
    assert other.reason is ImpactReason.NO_EFFECT


def test_without_evaluations_behaviour_decides_where_services_run():
    assert verdict(ImpactReason.NO_EFFECT).reason is ImpactReason.NO_EFFECT
    assert verdict(ImpactReason.TOO_RARE, restartable=True).reason is ImpactReason.TOO_RARE
    found = verdict(ImpactReason.NO_EFFECT, restartable=True)
    assert (found.reason, found.service) == (ImpactReason.NOT_FELT, "payment")
    assert "no evaluation of it is seen in telemetry, and payment looks the same" in found.detail
    earlier = verdict(ImpactReason.NO_EFFECT, before=["checkout"])
    assert (earlier.reason, earlier.service) == (ImpactReason.NOT_FELT, "checkout")


class Evaluating(FakeTarget):
    """A target whose services evaluate the flag to the variants of *rows*, and which can restart them."""

    def __init__(self, *rows: tuple[str, str], problem: str = "", **more) -> None:
        services = {**shop(), "payment": Behaviour(rate=8)}
        super().__init__(services=services, **more)
        self.restarts: list[str] = []
        columns = [list(column) for column in zip(*((*row, "", 1, 9) for row in rows), strict=True)]
        answer = Table(NAMES, tuple(columns or [[] for _ in NAMES]))

        async def schema() -> TelemetrySchema:
            return TelemetrySchema("otel", {"otel_traces": COLUMNS})

        async def query(sql, parameters=None, limits=None) -> Table:
            return answer

        async def restart(service: str) -> str:
            assert self.restored, "the fault is undone first"
            self.restarts.append(service)
            return problem

        self.telemetry.schema, self.telemetry.query = schema, query
        self.system = {"restart": restart}


async def ended(target: FakeTarget):
    return await engine(target).run(plan(scenario("paymentFailure=50%")))


async def test_the_session_says_so_and_the_service_is_restarted_after_the_undo():
    target = Evaluating(("payment", "off"))
    result = await ended(target)
    assert (result.status, result.impact.reason) == (Status.INVALID, ImpactReason.NOT_FELT)
    assert result.reason.startswith("NOT_FELT: paymentFailure=50% is served, but payment still evaluates")
    assert target.restarts == ["payment"]
    assert "restarted payment, which a served flag did not reach" in result.notes


async def test_a_restart_that_fails_is_noted():
    result = await ended(Evaluating(("payment", "off"), problem="no command for that is set"))
    assert "payment was not restarted: no command for that is set" in result.notes


async def test_a_fault_that_arrived_and_does_nothing_restarts_nothing():
    target = Evaluating(("payment", "50%"))
    result = await ended(target)
    assert result.impact.reason is ImpactReason.NO_EFFECT and not target.restarts


async def test_telemetry_that_cannot_answer_shows_no_evaluation():
    target = Evaluating(("payment", "off"))

    async def away(sql, parameters=None, limits=None):
        raise TelemetryUnavailable("busy")

    target.telemetry.query = away
    window = Window(start_ns=0, end_ns=9)
    assert await evaluations_of(target.telemetry, "paymentFailure", window, 3) == Evaluations()
