"""The wait for an impact: every way in which it ends, what it says of when, and how long controls take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from pytest_otel_diag.model.scenario import Timing
from pytest_otel_diag.model.session import ImpactReason, Phase, Status
from pytest_otel_diag.sessions import EngineSettings
from pytest_otel_diag.sessions.impact.wait import control_duration_s
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

STILL = replace(QUICK, max_driven_calls=0)


def target(*, wall: bool = False, **payment: object) -> FakeTarget:
    services = {**shop(), "payment": Behaviour(**{"rate": 8, "flag": "paymentFailure", **payment})}
    return FakeTarget(services=services, wall=wall)


def lonely() -> FakeTarget:
    """Payment is called rarely, and so is its caller, where its failures would show as well."""
    system = target(rate=0.01)
    system.telemetry.services["checkout"] = Behaviour(rate=0.01)
    return system


async def end_of(system: FakeTarget, settings: EngineSettings = STILL, **timing: float):
    case = scenario("paymentFailure=50%", timing={"baseline_s": 120, "impact_timeout_s": 120, **timing})
    return await engine(system, settings=settings).run(plan(case))


def unserved() -> FakeTarget:
    system = target()
    system.flags.served_instead["paymentFailure"] = "off"
    return system


def silent() -> FakeTarget:
    system = target()
    system.telemetry.ends_ns = START_NS + 120 * 10**9
    return system


def unfelt() -> FakeTarget:
    async def restart(service: str) -> str:
        return ""

    system = target()
    system.system["restart"] = restart
    return system


REASONS = {
    ImpactReason.VISIBLE: lambda: target(errors_on=0.5),
    ImpactReason.NOT_SERVED: unserved,
    ImpactReason.NO_TRAFFIC: lambda: target(rate=0.004, errors_on=1.0),
    ImpactReason.NOT_YET_EXPORTED: silent,
    ImpactReason.TOO_RARE: lambda: target(rate=0.3, errors_on=0.1),
    ImpactReason.NOT_FELT: unfelt,
    ImpactReason.NO_EFFECT: target,
}


@pytest.mark.parametrize("reason", list(ImpactReason))
async def test_every_reason_is_reached(reason):
    result = await end_of(REASONS[reason]())
    assert result.impact is not None and result.impact.reason is reason, result.reason
    assert result.status is (Status.SCORED if reason is ImpactReason.VISIBLE else Status.INVALID)


@pytest.mark.parametrize(
    ("system", "reason"),
    [
        (lambda: target(wall=True, rate=300, errors_on=0.9), ImpactReason.VISIBLE),
        (lambda: target(wall=True, rate=300), ImpactReason.NO_EFFECT),
        (lambda: target(wall=True, rate=30, errors_on=0.0), ImpactReason.TOO_RARE),
    ],
)
async def test_wall_time_ends_alike(system, reason):
    brisk = replace(STILL, witness_poll_s=0.01)
    # A visible impact ends the wait early, so its time limit may be long; the others last as long as theirs.
    limit_s = deadline_s(5) if reason is ImpactReason.VISIBLE else 0.8
    quick = {"baseline_s": 0.8, "impact_timeout_s": limit_s, "impact_poll_s": 0.1, "observe_s": 0.1}
    result = await end_of(system(), brisk, **quick, recover_timeout_s=0)
    assert result.impact is not None and result.impact.reason is reason, result.reason


async def test_too_rare_says_how_many_and_when():
    result = await end_of(target(rate=0.3), baseline_s=600)
    impact = result.impact
    assert impact.reason is ImpactReason.TOO_RARE
    missing = impact.calls_needed - impact.calls_seen
    assert impact.eta_s == pytest.approx(missing / 0.3, rel=0.1)
    assert f"the rest at the rate seen in about {impact.eta_s:.0f} s; lengthen" in result.reason


async def test_silence_of_a_known_service_says_what_it_takes():
    result = await end_of(target(rate=5, rate_on=0.0, errors_on=1.0), settings=QUICK)
    assert result.impact.reason in (ImpactReason.NO_TRAFFIC, ImpactReason.VISIBLE)
    quiet = target(rate=0.05)
    quiet.telemetry.services["payment"].rate_on = 0.0
    case = await end_of(quiet, STILL, baseline_s=2000, impact_timeout_s=100)
    assert case.impact.reason is ImpactReason.NO_TRAFFIC
    assert (
        "no call of payment since the fault began; needs about " in case.reason and "in about" in case.reason
    )


async def test_a_wait_that_is_in_vain_ends_at_once_where_nothing_may_be_driven():
    watcher = Watcher()
    system = lonely()
    case = scenario("paymentFailure=50%", timing={"baseline_s": 300, "impact_timeout_s": 300})
    result = await engine(system, watcher=watcher, settings=STILL).run(plan(case))
    assert result.status is Status.INVALID and len(watcher.progress) == 1
    assert "; not even a fault of every call could show in the 29" in result.reason


async def test_a_wait_goes_on_while_traffic_may_be_driven_and_ends_once_it_is_refused():
    watcher = Watcher()
    system = lonely()
    system.traffic.willing = False
    case = scenario("paymentFailure=50%", timing={"baseline_s": 300, "impact_timeout_s": 300})
    result = await engine(system, watcher=watcher).run(plan(case))
    impact = next(record for record in result.phases if record.phase is Phase.IMPACT)
    assert 95 <= (impact.end_ns - impact.start_ns) / 1e9 < 115, "a third of the wait is the system's own"
    assert "not even a fault of every call" in result.reason


async def test_a_wait_that_may_succeed_is_waited_for_to_its_end():
    watcher = Watcher()
    case = scenario("paymentFailure=50%", timing={"baseline_s": 300, "impact_timeout_s": 100})
    result = await engine(target(rate=0.1), watcher=watcher, settings=STILL).run(plan(case))
    assert len(watcher.progress) == 20 and "not even" not in result.reason


async def test_driven_calls_are_reported():
    result = await end_of(target(rate=0.3), QUICK, baseline_s=1200)
    assert result.impact.calls_driven > 20


async def test_calls_that_went_astray_are_not_driven_calls():
    system = target(rate=0.3)
    system.traffic.astray = True
    result = await end_of(system, QUICK, baseline_s=1200)
    assert result.impact.calls_driven == 0 < sum(system.traffic.asked)
    assert f"traffic was driven in vain: none of {sum(system.traffic.asked)} visits" in result.reason


def test_controls_take_as_long_as_faults_by_a_draw():
    timing = Timing(observe_s=60, impact_timeout_s=120, impact_poll_s=5)
    drawn = [control_duration_s(timing, EngineSettings(), Random(seed)) for seed in range(400)]
    kinds = Counter(one == 60 for one in drawn)
    assert 150 < kinds[True] < 250
    assert all(60 <= one <= 120 for one in drawn)
    assert len(set(drawn)) > 10


async def test_controls_drive_nothing():
    system = target(rate=0.7)
    case = scenario(timing={"baseline_s": 600, "impact_timeout_s": 120, "observe_s": 60})
    assert (await engine(system).run(plan(case))).status is Status.SCORED
    assert not system.traffic.asked


@pytest.mark.parametrize("ends_s", [121, 124, 126, 131])
async def test_a_bucket_that_is_half_exported_is_no_traffic_that_fell(ends_s):
    system = target(rate=50)
    system.telemetry.ends_ns = START_NS + ends_s * 10**9
    result = await end_of(system, impact_timeout_s=30)
    assert result.impact.reason is not ImpactReason.VISIBLE, result.impact.detail


async def test_traffic_that_really_falls_is_seen_a_little_later():
    result = await end_of(target(rate=50, rate_on=5.0))
    assert (result.impact.signal, result.impact.service) == ("request_rate", "payment")
    assert 10 <= result.impact.time_to_impact_s <= 25
