"""One session from preflight to record, in virtual and in wall time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pytest_otel_diag.errors import ScenarioRejected
from pytest_otel_diag.model.diagnosis import Diagnosis, Signal
from pytest_otel_diag.model.events import PhaseStarted, SessionEvent
from pytest_otel_diag.model.scenario import Expectation, ExpectedAnomaly, ExpectedRootCause, Fault
from pytest_otel_diag.model.session import Blame, ImpactReason, Phase, SessionResult, Status
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.sessions import EngineSettings, WallTime
from pytest_otel_diag.sessions.validation import validated
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
from tests.support.deadlines import deadline_s

ALL = list(Phase)


async def test_a_session_goes_through_all_phases_and_is_scored():
    target, watcher = FakeTarget(), Watcher()

    result = await engine(target, watcher=watcher).run(plan())

    assert (result.status, result.reason, result.blame) == (Status.SCORED, "", None)
    assert watcher.started == ALL
    assert [record.phase for record in result.phases] == ALL
    assert {record.outcome for record in result.phases} == {"ok"}
    assert watcher.results == [result]
    assert result.verdict is not None and result.verdict.top1
    assert result.impact is not None and result.impact.reason is ImpactReason.VISIBLE
    assert result.impact.time_to_impact_s is not None and result.impact.time_to_impact_s <= 30
    assert (result.impact.service, result.impact.signal) == ("payment", "error_rate")
    assert result.cleanup is not None
    assert (result.cleanup.restored, result.cleanup.verified, result.cleanup.recovered) == (True, True, True)
    assert target.restored and target.closed == 1
    assert result.provenance == {"target": "fake"}
    assert SessionResult.model_validate_json(result.model_dump_json()) == result


async def test_windows_are_those_of_the_targets_clock():
    result = await engine(FakeTarget()).run(plan())

    baseline, incident = result.windows.baseline, result.windows.incident
    assert baseline == Window(start_ns=START_NS, end_ns=START_NS + seconds_to_ns(60))
    # The first confirming read, not the last one two polls later, begins the fault.
    assert incident is not None and incident.start_ns == baseline.end_ns
    assert incident.duration_s == pytest.approx(30)
    assert result.witnesses[0].reads == 3
    assert all(START_NS <= record.start_ns <= record.end_ns for record in result.phases)


async def test_a_control_sets_nothing_and_waits_for_no_impact():
    target = FakeTarget()

    result = await engine(target, lambda _: Diagnosis(detected=False)).run(plan(scenario()))

    assert result.status is Status.SCORED
    assert result.verdict is not None and not result.verdict.detected and not result.verdict.fault_present
    assert result.impact is None and result.cleanup is None and result.witnesses == ()
    skipped = {record.phase for record in result.phases if record.outcome == "skipped"}
    assert skipped == {Phase.INJECT, Phase.WITNESS, Phase.IMPACT, Phase.UNDO, Phase.RECOVER}
    assert target.trouble.passed["flags.apply"] == 0
    assert result.windows.incident is not None and result.windows.incident.duration_s == pytest.approx(30)


async def test_a_fault_that_no_flag_makes_is_waited_for_and_judged():
    services = shop()
    target = FakeTarget(services=services)
    truth = Expectation(root_causes=(ExpectedRootCause(service="payment"),))
    case = scenario(external="a broken network card", expectation=truth)

    def make_the_fault(event: SessionEvent) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.INJECT:
            services["payment"].errors = 0.5

    result = await engine(target, emit=make_the_fault).run(plan(case))

    assert result.status is Status.SCORED, result.reason
    assert result.impact is not None and result.impact.reason is ImpactReason.VISIBLE
    assert result.verdict is not None and result.verdict.fault_present and result.verdict.service_rank == 1
    assert target.trouble.passed["flags.apply"] == 0
    inject = next(record for record in result.phases if record.phase is Phase.INJECT)
    assert (inject.outcome, inject.detail) == ("skipped", "a broken network card")


async def test_a_harmless_change_is_a_control_that_is_set_and_taken_back():
    target = FakeTarget()
    case = scenario("loadVUs=10", expectation=Expectation(healthy=True))

    result = await engine(target, lambda _: Diagnosis(detected=False)).run(plan(case))

    assert result.status is Status.SCORED
    assert result.witnesses[0].confirmed and result.impact is None
    assert target.restored and target.trouble.passed["flags.apply"] == 1


async def test_several_faults_are_set_and_witnessed():
    target = FakeTarget()

    result = await engine(target).run(plan(scenario("paymentFailure=100%", "adFailure")))

    assert result.status is Status.SCORED
    assert [(w.flag, w.variant, w.confirmed) for w in result.witnesses] == [
        ("paymentFailure", "100%", True),
        ("adFailure", "on", True),
    ]
    assert target.restored


async def test_a_sole_other_variant_is_the_default_fault():
    target = FakeTarget(services={"payment": Behaviour(flag="cartSlow", p95_on_ms=5000)})

    result = await engine(target).run(plan(scenario("cartSlow")))

    assert result.witnesses[0].variant == "5sec"
    assert result.impact is not None and result.impact.signal == "latency"


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (scenario("paymentFailur=50%"), "no flag 'paymentFailur' (did you mean 'paymentFailure'?)"),
        (scenario("paymentFailure=55%"), "no variant '55%' (did you mean '50%'?)"),
        (scenario("paymentFailure"), "needs a variant, write paymentFailure=VARIANT; it has: off, 10%"),
    ],
)
async def test_mistakes_in_the_scenario_are_the_users(case, says):
    target = FakeTarget()

    result = await engine(target).run(plan(case))

    assert (result.status, result.blame) == (Status.ERROR, Blame.USER)
    assert says in result.reason
    assert result.reason.startswith("preflight: ")
    assert target.trouble.passed["flags.apply"] == 0
    assert target.opened == target.closed


async def test_all_mistakes_are_reported_together():
    case = scenario("nope", "paymentFailure=11%")
    result = await engine(FakeTarget()).run(plan(case))

    assert "'nope'" in result.reason and "'11%'" in result.reason


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (scenario("adFailure", "adFailure"), "names flag 'adFailure' 2 times"),
        (scenario(expectation=Expectation()), "expects a fault but names none"),
    ],
)
def test_a_scenario_that_no_target_can_run_is_rejected(case, says):
    with pytest.raises(ScenarioRejected, match=says):
        validated(case, FakeTarget())


def test_the_mistakes_that_the_target_finds_are_reported_together_before_it_is_opened():
    target = FakeTarget()
    target.mistakes = ["this target has no browser", "nor a queue"]

    with pytest.raises(ScenarioRejected) as rejected:
        validated(scenario("adFailure"), target)

    assert rejected.value.mistakes == ("this target has no browser", "nor a queue") and target.opened == 0
    assert str(rejected.value) == "this target has no browser; nor a queue"


async def test_a_foreign_fault_stops_the_session_before_anything_is_touched():
    target = FakeTarget()
    target.flags.state["adFailure"] = "on"
    before = target.flags.raw()

    result = await engine(target).run(plan())

    assert (result.status, result.blame) == (Status.INVALID, None)
    assert "EXTERNAL_CHANGE: a fault was on before the session: adFailure=on; switch it off" in result.reason
    assert target.flags.raw() == before


async def test_flags_with_targeting_are_asked_for_what_they_serve():
    target = FakeTarget()
    target.flags.targeting["adFailure"] = {"if": []}
    target.flags.served_instead["adFailure"] = "on"

    result = await engine(target).run(plan())

    assert "adFailure=on" in result.reason


async def test_missing_signals_are_reported_before_the_fault():
    expectation = Expectation(anomalies=(ExpectedAnomaly(service="payment", signal=Signal.CPU),))
    case = scenario("adFailure", expectation=expectation)

    result = await engine(FakeTarget()).run(plan(case))

    assert "expects anomalies in metrics, the store has traces, logs only" in result.reason
    assert result.blame is Blame.INFRASTRUCTURE


async def test_a_store_without_tables_is_reported_before_the_fault():
    result = await engine(FakeTarget(tables=())).run(plan())

    assert "no telemetry tables in database 'otel'" in result.reason


async def test_a_silent_baseline_stops_a_session_that_needs_to_see_the_impact():
    target = FakeTarget(begins_ns=START_NS + seconds_to_ns(1000))

    result = await engine(target).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert "no telemetry before the fault" in result.reason
    assert result.phases[1].outcome == "failed"
    assert target.trouble.passed["flags.apply"] == 0


async def test_a_recording_without_a_baseline_is_diagnosed_all_the_same():
    target = FakeTarget(begins_ns=START_NS + seconds_to_ns(61))
    case = scenario("paymentFailure=50%", require_impact=False)

    result = await engine(target).run(plan(case))

    assert result.status is Status.SCORED
    assert result.windows.baseline is None
    assert "no telemetry before the fault" in result.phases[1].detail
    assert result.impact is not None and result.impact.reason is ImpactReason.TOO_RARE
    assert "no call before the fault to compare with" in result.impact.detail


async def test_quiet_windows_stand_in_for_a_missing_baseline():
    quiet = Window(start_ns=START_NS, end_ns=START_NS + seconds_to_ns(120))
    target = FakeTarget(reference=(quiet,))
    target.clock._now_ns += seconds_to_ns(200)  # type: ignore[attr-defined]
    seen = []

    async def analyzer(investigation):
        seen.append(investigation)
        return Diagnosis(detected=True)

    health = target.telemetry.service_health

    async def gap(window, bucket_s):
        return () if window.start_ns == START_NS + seconds_to_ns(200) else await health(window, bucket_s)

    target.telemetry.service_health = gap  # type: ignore[method-assign]
    result = await engine(target, analyzer).run(plan())

    assert result.status is Status.SCORED
    assert seen[0].reference == (quiet,) == result.windows.reference


async def test_a_baseline_that_begins_late_is_cut_to_its_telemetry():
    target = FakeTarget(begins_ns=START_NS + seconds_to_ns(30))

    result = await engine(target).run(plan())

    assert result.windows.baseline is not None
    assert result.windows.baseline.duration_s == pytest.approx(30)


async def test_a_sick_baseline_is_refused():
    services = shop() | {"payment": Behaviour(rate=8, errors=0.5, flag="paymentFailure")}

    result = await engine(FakeTarget(services=services)).run(plan())

    assert (result.status, result.blame) == (Status.ERROR, Blame.INFRASTRUCTURE)
    assert "payment already fails 240 of 480 calls" in result.reason


async def test_sessions_of_an_exclusive_target_take_turns():
    target, watcher = FakeTarget(exclusive=True), Watcher()
    one = engine(target, watcher=watcher)

    await asyncio.gather(one.run(plan(session_id="a")), one.run(plan(session_id="b")))

    assert watcher.started == ALL + ALL
    assert [result.status for result in watcher.results] == [Status.SCORED] * 2


async def test_the_same_scenario_runs_in_wall_time():
    brisk = {
        "baseline_s": 0.4,
        "impact_timeout_s": deadline_s(5),
        "impact_poll_s": 0.05,
        "observe_s": 0.1,
        "recover_timeout_s": deadline_s(5),
    }
    case = scenario("paymentFailure=50%", timing=brisk)
    settings = EngineSettings(witness_poll_s=0.01, witness_timeout_s=deadline_s(5))
    services = {name: replace(behaviour, rate=200) for name, behaviour in shop().items()}
    results = []
    for wall in (False, True):
        target = FakeTarget(wall=wall, services=services)
        results.append(await engine(target, settings=settings).run(plan(case)))
        assert target.restored

    for result in results:
        assert result.status is Status.SCORED
        assert result.impact is not None and result.impact.reason is ImpactReason.VISIBLE
        assert [record.phase for record in result.phases] == ALL
    virtual, wall_time = results
    assert virtual.windows.incident is not None and wall_time.windows.incident is not None
    assert wall_time.wall_s >= wall_time.windows.incident.duration_s


async def test_wall_durations_come_from_the_clock_that_is_given():
    ticks = iter(range(10_000))
    wall = WallTime(monotonic=lambda: float(next(ticks)), now_ns=lambda: 42)

    result = await engine(FakeTarget(), settings=replace(QUICK, wall=wall)).run(plan())

    assert result.started_at_ns == 42
    assert all(record.wall_s >= 1 and record.wall_s == int(record.wall_s) for record in result.phases)


async def test_the_identity_of_the_plan_is_in_the_result_but_hidden_from_the_analyzer():
    seen = []

    async def curious(investigation):
        seen.append(investigation)
        return Diagnosis(detected=True)

    result = await engine(FakeTarget(), curious).run(
        plan(test_id="t", repeat=2, seed=7, target_name="replay:x")
    )

    assert (result.session_id, result.run_id, result.test_id, result.repeat, result.seed) == (
        "paymentFailure-1",
        "run",
        "t",
        2,
        7,
    )
    assert (result.target, result.analyzer) == ("replay:x", "test")
    assert "payment" not in seen[0].session_id and seen[0].seed == 7


def test_a_fault_reads_as_its_flag_and_variant():
    assert str(Fault(flag="a", variant="on")) == "a=on"
