"""Sessions where one thing goes wrong: the right status, the right blame, the flags back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pytest_otel_diag.errors import ConfigurationError, RestoreFailed, TelemetryUnavailable
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause, Usage
from pytest_otel_diag.model.session import Blame, Budget, ImpactReason, Phase, Status
from pytest_otel_diag.model.verdict import Verdict
from pytest_otel_diag.model.windows import seconds_to_ns
from tests.sessions.session_fakes import (
    QUICK,
    START_NS,
    Behaviour,
    FakeTarget,
    Watcher,
    engine,
    plan,
    scenario,
    shop,
)
from tests.support.deadlines import LoopClock


async def test_a_fault_that_is_not_served_makes_the_session_invalid():
    target = FakeTarget()
    target.flags.served_instead["paymentFailure"] = "off"

    result = await engine(target).run(plan())

    assert (result.status, result.blame) == (Status.INVALID, None)
    assert result.impact is not None and result.impact.reason is ImpactReason.NOT_SERVED
    assert (
        "paymentFailure=50% (last answer: 'off'; asked with the context {}; the document has '50%'"
        in result.reason
    )
    assert not result.witnesses[0].confirmed
    assert result.diagnosis is None
    assert target.restored and result.cleanup is not None and result.cleanup.verified


async def test_the_witness_wants_answers_in_a_row():
    target = FakeTarget()
    answers = iter(["off", "50%", "50%", "off", "50%", "50%", "50%"])
    served = target.flags.served

    async def flaky(key, context):
        answer = await served(key, context)
        if target.flags.state[key] == "off":
            return answer
        return answer.model_copy(update={"variant": next(answers, "50%")})

    target.flags.served = flaky  # type: ignore[method-assign]
    result = await engine(target).run(plan())

    assert result.status is Status.SCORED
    assert result.witnesses[0].reads == 7
    assert result.windows.incident is not None and result.windows.baseline is not None
    assert result.windows.incident.start_ns == result.windows.baseline.end_ns + seconds_to_ns(4)


async def test_a_witness_that_cannot_be_read_says_why():
    target = FakeTarget()
    watcher = Watcher()
    watcher.when[Phase.WITNESS] = lambda: (
        target.trouble.raising("flags.served", OSError("refused"), 33) and None
    )

    result = await engine(target, watcher=watcher).run(plan())

    assert result.status is Status.INVALID
    assert "OSError: refused" in result.reason
    assert target.restored


async def test_a_fault_that_another_client_turns_off_makes_the_session_invalid():
    target = FakeTarget()
    sleep = target.clock.sleep

    async def meddled(seconds):
        await sleep(seconds)
        if target.clock.now() > START_NS + seconds_to_ns(80):
            target.flags.state["paymentFailure"] = "off"

    target.clock.sleep = meddled  # type: ignore[method-assign]
    result = await engine(target).run(plan())

    assert result.status is Status.INVALID
    assert "changed by another client during the session: paymentFailure=50% (now 'off')" in result.reason


async def test_a_restore_that_fails_reports_an_active_fault_and_the_remedy():
    target = FakeTarget()
    target.trouble.raising("flags.restore", RestoreFailed("read-only file system"))

    result = await engine(target).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert "A FAULT MAY STILL BE ON: paymentFailure (back to 'off')" in result.reason
    assert "read-only file system" in result.reason
    assert result.cleanup is not None and not result.cleanup.restored
    assert result.verdict is not None  # what was found out is kept
    assert target.trouble.passed["flags.restore"] == QUICK.undo_attempts
    assert result.phases[-3].outcome == "failed" and result.phases[-2].outcome == "skipped"


async def test_restore_is_tried_again():
    target = FakeTarget()
    target.trouble.raising("flags.restore", RestoreFailed("busy"), times=2)

    result = await engine(target).run(plan())

    assert result.status is Status.SCORED and target.restored


async def test_a_restore_that_is_not_served_reports_an_active_fault():
    target = FakeTarget()
    watcher = Watcher()
    watcher.when[Phase.UNDO] = lambda: target.flags.served_instead.update(paymentFailure="50%")

    result = await engine(target, watcher=watcher).run(plan())

    assert result.status is Status.ERROR and "MAY STILL BE ON" in result.reason
    assert result.cleanup is not None
    assert (result.cleanup.restored, result.cleanup.verified) == (True, False)
    assert "should answer 'off', last answer: '50%'" in result.cleanup.detail


async def test_an_undo_that_hangs_is_given_up_loudly():
    target = FakeTarget()
    target.trouble.hanging("flags.restore")

    result = await engine(target, settings=replace(QUICK, undo_timeout_s=0.05)).run(plan())

    assert result.status is Status.ERROR
    assert "the undo took longer than 0.05 s" in result.reason


async def test_the_first_reason_is_kept_behind_the_active_fault():
    target = FakeTarget()
    target.trouble.raising("flags.restore", RestoreFailed("gone"))
    target.trouble.raising("telemetry.call_edges", TelemetryUnavailable("edges"))
    target.flags.served_instead["paymentFailure"] = "10%"

    result = await engine(target).run(plan())

    assert "before that: preflight" not in result.reason
    assert "(before that: NOT_SERVED: " in result.reason and "(last answer: '10%'; " in result.reason


@pytest.mark.parametrize(
    ("point", "phase"),
    [
        ("target.open", Phase.PREFLIGHT),
        ("flags.document", Phase.PREFLIGHT),
        ("telemetry.schema", Phase.PREFLIGHT),
        ("telemetry.service_health", Phase.BASELINE),
        ("flags.apply", Phase.INJECT),
        ("flags.applied", Phase.INJECT),
    ],
)
async def test_infrastructure_that_fails_is_blamed_and_named(point, phase):
    target = FakeTarget()
    target.trouble.raising(point, TelemetryUnavailable("connection refused"))

    result = await engine(target).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert result.reason == f"{phase}: connection refused"
    assert target.restored and target.opened == target.closed


async def test_a_target_that_refuses_its_configuration_is_the_users():
    target = FakeTarget()
    target.trouble.raising("target.open", ConfigurationError("no such recording"))

    result = await engine(target).run(plan())

    assert result.blame is Blame.USER


async def test_a_store_that_becomes_unreadable_during_the_wait_ends_the_session():
    target, watcher = FakeTarget(), Watcher()
    broken = TelemetryUnavailable("locked")
    watcher.when[Phase.IMPACT] = lambda: target.trouble.raising("telemetry.service_health", broken) and None

    result = await engine(target, watcher=watcher).run(plan())

    assert result.reason == "impact: locked"
    assert target.restored
    assert result.cleanup is not None and result.cleanup.recovered is None
    assert result.cleanup.detail == "unknown: locked"


async def test_a_judge_that_crashes_is_infrastructure_and_keeps_the_diagnosis():
    async def crashing(diagnosis, scenario, facts):
        raise ZeroDivisionError("rank")

    result = await engine(FakeTarget(), judge=crashing).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert result.reason == "judge: ZeroDivisionError: rank"
    assert result.diagnosis is not None and result.verdict is None


async def test_a_judge_that_hangs_is_stopped():
    async def hanging(diagnosis, scenario, facts):
        await asyncio.Event().wait()

    result = await engine(FakeTarget(), judge=hanging, settings=replace(QUICK, judge_timeout_s=0.02)).run(
        plan()
    )

    assert result.reason == "judge: TimeoutError"


async def test_the_judge_gets_what_the_session_knows():
    given = []

    async def listening(diagnosis, scenario, facts):
        given.append(facts)
        return engine_verdict(diagnosis)

    await engine(FakeTarget(), judge=listening).run(plan())

    (facts,) = given
    assert facts.known_services == ("ad", "checkout", "frontend", "payment")
    assert [(edge.caller, edge.callee) for edge in facts.edges] == [
        ("checkout", "payment"),
        ("frontend", "ad"),
        ("frontend", "checkout"),
    ]
    assert [query.data_sources for query in facts.queries] == [("traces",)]
    assert facts.impact.reason is ImpactReason.VISIBLE
    assert facts.time_to_diagnosis_s > 0
    assert facts.windows.incident is not None


def engine_verdict(diagnosis):
    return Verdict(fault_present=True, detected=diagnosis.detected)


async def test_facts_survive_a_store_that_cannot_answer_them():
    target, watcher, given = FakeTarget(), Watcher(), []

    async def listening(diagnosis, scenario, facts):
        given.append(facts)
        return engine_verdict(diagnosis)

    target.trouble.raising("telemetry.call_edges", TelemetryUnavailable("gone"))
    watcher.when[Phase.JUDGE] = lambda: (
        target.trouble.raising("telemetry.query", TelemetryUnavailable("gone")) and None
    )
    result = await engine(target, judge=listening, watcher=watcher).run(plan())

    assert result.status is Status.SCORED
    assert (given[0].known_services, given[0].edges) == ((), ())


async def test_a_service_that_does_not_exist_is_named_in_the_verdict():
    async def invents(investigation):
        return Diagnosis(detected=True, root_causes=(RootCause(service="flux-capacitor"),))

    result = await engine(FakeTarget(), invents).run(plan())

    assert result.status is Status.SCORED
    assert result.verdict is not None
    assert result.verdict.unknown_services == ("flux-capacitor",)
    assert result.verdict.service_rank is None


async def test_an_expensive_diagnosis_is_over_budget():
    async def dear(investigation):
        return Diagnosis(detected=True, usage=Usage(cost_usd=3.5))

    result = await engine(FakeTarget(), dear).run(plan(budget=Budget(cost_usd=1.0)))

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    assert "cost 3.5 USD, the budget is 1 USD" in result.reason
    assert result.diagnosis is not None


async def test_negative_usage_is_an_error_and_lowers_no_sum():
    async def lies(investigation):
        return Diagnosis(detected=True, usage=Usage(cost_usd=-3.5))

    result = await engine(FakeTarget(), lies).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.ANALYZER)
    assert "negative usage: cost_usd=-3.5" in result.reason
    assert result.usage.cost_usd == 0


async def test_recovery_that_does_not_come_is_noted_and_costs_no_verdict():
    services = shop()
    target, watcher = FakeTarget(services=services), Watcher()

    def stays_broken():
        services["payment"].errors = 0.5

    watcher.when[Phase.UNDO] = stays_broken
    result = await engine(target, watcher=watcher).run(plan())

    assert result.status is Status.SCORED
    assert result.cleanup is not None and result.cleanup.recovered is False
    assert "payment fails" in result.cleanup.detail
    assert result.phases[-2].outcome == "failed"


async def test_recovery_is_unknown_where_telemetry_ends():
    target = FakeTarget(ends_ns=START_NS + seconds_to_ns(90))

    result = await engine(target).run(plan())

    assert result.status is Status.SCORED
    assert result.cleanup is not None and result.cleanup.recovered is None
    assert result.cleanup.detail == "no telemetry came after the undo"


async def test_recovery_without_traffic_is_not_taken_for_granted():
    target, watcher = FakeTarget(), Watcher()

    def dries_up():
        for name in ("checkout", "payment"):
            target.telemetry.services[name] = Behaviour(rate=0)

    watcher.when[Phase.UNDO] = dries_up
    result = await engine(target, watcher=watcher).run(plan())

    assert result.cleanup is not None and result.cleanup.recovered is False
    assert result.cleanup.detail


async def test_recovery_is_skipped_where_it_is_not_asked_for():
    case = scenario("paymentFailure=50%", timing={"recover_timeout_s": 0})

    result = await engine(FakeTarget()).run(plan(case))

    assert result.phases[-2].outcome == "skipped"
    assert result.cleanup is not None and result.cleanup.recovered is None


async def test_a_target_that_fails_to_close_costs_no_verdict():
    target = FakeTarget()
    target.trouble.raising("target.close", OSError("busy"))

    result = await engine(target).run(plan())

    assert result.status is Status.SCORED
    assert result.cleanup is not None
    assert result.cleanup.detail == "closing the target failed: OSError: busy"


async def test_a_session_that_takes_too_long_is_stopped_and_undone():
    target = FakeTarget()
    clock = LoopClock()
    target.trouble.at["flags.applied"] = lambda: clock.hang(61)

    result = await engine(target, settings=replace(QUICK, session_timeout_s=60)).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert result.reason == "inject: the session took longer than 60 s"
    assert target.restored


async def test_the_session_limit_during_the_diagnosis_is_the_analyzers():
    async def sleeps(investigation):
        clock.advance(61)
        await asyncio.Event().wait()

    clock, target = LoopClock(), FakeTarget()
    result = await engine(target, sleeps, settings=replace(QUICK, session_timeout_s=60)).run(plan())

    assert result.blame is Blame.ANALYZER and target.restored


async def test_a_timeout_of_the_infrastructure_is_not_the_sessions():
    target = FakeTarget()
    target.trouble.raising("flags.document", TimeoutError())

    result = await engine(target).run(plan())

    assert result.reason == "preflight: TimeoutError"


async def test_a_record_that_cannot_be_kept_is_an_error():
    class Full(Watcher):
        def keep(self, result):
            raise OSError("no space left on device")

    result = await engine(FakeTarget(), watcher=Full()).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert "no space left" in result.reason


async def test_progress_output_that_fails_ends_no_session(caplog):
    class Clumsy(Watcher):
        def see(self, event):
            raise ValueError("no terminal")

    watcher = Clumsy()
    result = await engine(FakeTarget(), watcher=watcher).run(plan())

    assert result.status is Status.SCORED and watcher.results == [result]
    assert "the reader of session events failed on" in caplog.text


async def test_a_witness_that_hangs_is_given_up():
    target, watcher = FakeTarget(), Watcher()
    watcher.when[Phase.WITNESS] = lambda: target.trouble.hanging("flags.served") and None
    watcher.when[Phase.UNDO] = target.trouble.at.clear
    brisk = replace(QUICK, witness_timeout_s=0.05, witness_poll_s=0.01)

    result = await engine(target, watcher=watcher, settings=brisk).run(plan())

    assert result.status is Status.INVALID
    assert "(no answer: TimeoutError; " in result.reason
    assert "--otel-diag-flagd" in result.reason
    assert target.restored


async def test_a_judge_that_judges_nothing_is_infrastructure():
    async def silent(diagnosis, scenario, facts):
        return None

    result = await engine(FakeTarget(), judge=silent).run(plan())

    assert result.reason == "judge: TypeError: returned NoneType, not a Verdict"
    assert result.blame is Blame.INFRASTRUCTURE


async def test_a_clock_that_breaks_does_not_cost_the_record():
    target, watcher = FakeTarget(), Watcher()

    def breaks():
        target.clock.now = _raises

    watcher.when[Phase.JUDGE] = breaks
    result = await engine(target, watcher=watcher).run(plan())

    assert watcher.results == [result]
    assert target.restored


def _raises():
    raise OSError("no clock")
