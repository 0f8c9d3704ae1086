"""Faults and disturbances in time: the expansion against brute force, and whole sessions by a schedule."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_otel_diag.model.diagnosis import Diagnosis
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.model.scenario import Disturbance, Expectation, Fault, FaultStep, scenario_mistakes
from pytest_otel_diag.model.session import Blame, ImpactReason, Phase, Status
from pytest_otel_diag.model.windows import Window, seconds_to_ns
from pytest_otel_diag.sessions import EngineSettings
from pytest_otel_diag.sessions.faults.external_changes import foreign_faults
from pytest_otel_diag.sessions.faults.schedule import course, schedule_of
from pytest_otel_diag.sessions.faults.witness import FlagWitness
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

INJECTED_NS = START_NS + seconds_to_ns(60)
HEALTHY = Expectation(healthy=True)


@st.composite
def faults(draw, flag="paymentFailure", variants=("10%", "50%", "100%"), horizon=40):
    at_s = draw(st.integers(0, horizon))
    lasts_s = draw(st.none() | st.integers(1, horizon))
    pause_s = draw(st.none() | st.integers(1, horizon)) if lasts_s else None
    times = sorted(draw(st.sets(st.integers(1, horizon), max_size=3)))
    return Fault(
        flag=flag,
        variant=draw(st.sampled_from(variants)),
        at_s=at_s,
        until_s=None if lasts_s is None else at_s + lasts_s,
        every_s=None if pause_s is None else lasts_s + pause_s,
        steps=tuple(FaultStep(at_s=t, variant=draw(st.sampled_from(variants))) for t in times),
    )


def played(fault, seconds):
    """The variant in each second, by walking through them: no arithmetic of periods."""
    answers, age = [], None
    for second in range(seconds):
        if second == fault.at_s:
            age = 0
        elif age is not None:
            age += 1
        lasts = None if fault.until_s is None else fault.until_s - fault.at_s
        if age is not None and fault.every_s is not None and age == fault.every_s:
            age = 0
        on = age is not None and (lasts is None or age < lasts)
        variant = fault.variant if on else "off"
        for step in fault.steps:
            if on and age >= step.at_s:
                variant = step.variant
        answers.append(variant)
    return answers


def as_course(fault, rest="off"):
    return course(fault, FlagChange(key=fault.flag, variant=fault.variant), rest)


@given(faults())
def test_a_schedule_is_what_walking_through_it_gives(fault):
    one = as_course(fault)
    assert [one.at(seconds_to_ns(second)) for second in range(150)] == played(fault, 150)


@given(faults())
def test_the_next_change_is_the_first_second_with_another_answer(fault):
    one, answers = as_course(fault), played(fault, 250)
    for second in range(100):
        found = one.next(seconds_to_ns(second))
        known = next((s for s in range(second + 1, 250) if answers[s] != answers[second]), None)
        assert found == (None if known is None else seconds_to_ns(known))


@given(faults(), st.lists(st.integers(0, 60), max_size=3), st.integers(0, 90))
def test_a_timeline_stops_at_flags_and_disturbances(fault, times, second):
    disturbances = tuple(Disturbance(kind="load", at_s=t) for t in times)
    case = scenario(faults=(fault,), disturbances=disturbances, expectation=HEALTHY)
    line = schedule_of(case, [FlagChange(key=fault.flag, variant=fault.variant)], {fault.flag: "off"})
    now = seconds_to_ns(second)
    instants = [seconds_to_ns(t) for t in times if t > second]
    change = as_course(fault).next(now)
    assert line.next(now) == min([*instants, *([change] if change else [])], default=None)
    assert line.at(now) == {fault.flag: played(fault, second + 1)[-1]}
    assert [one.at_s for one in line.disturbances_in(-1, now)] == sorted(t for t in times if t <= second)
    assert line.first_fault_ns == seconds_to_ns(fault.at_s)


class Stormy(FakeTarget):
    """A fake that can be disturbed."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.disturbed = []

    def open(self, scenario, session_id):
        inner = super().open(scenario, session_id)
        target = self

        class Opened:
            async def __aenter__(self):
                return replace(await inner.__aenter__(), disturb=target.disturb)

            async def __aexit__(self, *error):
                return await inner.__aexit__(*error)

        return Opened()

    async def disturb(self, disturbance):
        await self.trouble.hit("disturb")
        self.disturbed.append((self.seconds(), disturbance.kind))

    def seconds(self):
        return (self.clock.now() - INJECTED_NS) / 1e9


def timeline_of(result):
    return [
        ((moment.at_ns - INJECTED_NS) / 1e9, moment.flag, moment.variant) for moment in result.flag_timeline
    ]


async def test_a_flapping_fault_is_switched_witnessed_and_recorded():
    fault = Fault(flag="paymentFailure", variant="50%", until_s=20, every_s=30)
    target = FakeTarget()

    result = await engine(target).run(plan(scenario(faults=(fault,), expectation=PAYMENT)))

    assert (result.status, result.reason) == (Status.SCORED, "")
    assert result.windows.incident == Window(start_ns=INJECTED_NS, end_ns=INJECTED_NS + seconds_to_ns(32))
    assert timeline_of(result)[:4] == [
        (-60.0, "paymentFailure", "off"),
        (0.0, "paymentFailure", "50%"),
        (20.0, "paymentFailure", "off"),
        (30.0, "paymentFailure", "50%"),
    ]
    assert timeline_of(result)[4][1:] == ("paymentFailure", "off")
    assert len(timeline_of(result)) == 5
    assert [proof.variant for proof in result.witnesses] == ["50%", "off", "50%"]
    assert all(proof.confirmed and proof.reads == 3 for proof in result.witnesses)
    assert target.restored


PAYMENT = scenario("paymentFailure").expectation


async def test_a_fault_that_is_off_at_the_end_by_its_schedule_is_fine():
    fault = Fault(flag="paymentFailure", variant="50%", until_s=20)

    result = await engine(FakeTarget()).run(plan(scenario(faults=(fault,), expectation=PAYMENT)))

    assert result.status is Status.SCORED
    assert result.impact.reason is ImpactReason.VISIBLE


async def test_a_ramp_serves_one_variant_after_the_other():
    steps = (FaultStep(at_s=10, variant="50%"), FaultStep(at_s=20, variant="100%"))
    fault = Fault(flag="paymentFailure", variant="10%", steps=steps)

    result = await engine(FakeTarget()).run(plan(scenario(faults=(fault,), expectation=PAYMENT)))

    assert [(at_s, variant) for at_s, _, variant in timeline_of(result)][1:4] == [
        (0.0, "10%"),
        (10.0, "50%"),
        (20.0, "100%"),
    ]


async def test_a_late_fault_starts_the_incident_when_it_is_served_and_leaves_no_gap():
    late = Fault(flag="paymentFailure", variant="50%", at_s=25)

    seen = []

    async def looks(investigation):
        seen.append(investigation)
        return Diagnosis(detected=True)

    before = Window(start_ns=START_NS - seconds_to_ns(300), end_ns=START_NS)
    elsewhere = before.moved(-seconds_to_ns(3600))
    target = FakeTarget(reference=(elsewhere, before))
    result = await engine(target, looks).run(plan(scenario(faults=(late,), expectation=PAYMENT)))

    onset = INJECTED_NS + seconds_to_ns(25)
    assert seen[0].reference == (elsewhere, before.moved(seconds_to_ns(25)))
    assert result.windows.incident.start_ns == onset
    assert result.windows.incident.duration_s == pytest.approx(30)
    assert seen[0].baseline == Window(start_ns=START_NS + seconds_to_ns(25), end_ns=onset)
    assert result.impact.reason is ImpactReason.VISIBLE and result.impact.time_to_impact_s <= 30


async def test_faults_at_different_times_and_a_decoy():
    target = Stormy()
    both = (
        Fault(flag="adFailure", at_s=5),
        Fault(flag="paymentFailure", variant="50%", at_s=15, until_s=25),
    )
    decoy = (Disturbance(kind="load", at_s=12), Disturbance(kind="gc", service="ad"))

    result = await engine(target).run(plan(scenario(faults=both, disturbances=decoy, expectation=PAYMENT)))

    assert result.status is Status.SCORED
    assert target.disturbed == [(0.0, "gc"), (12.0, "load")]
    assert [((one.at_ns - INJECTED_NS) / 1e9, one.disturbance.kind) for one in result.disturbances] == [
        (0.0, "gc"),
        (12.0, "load"),
    ]
    assert result.windows.incident.start_ns == INJECTED_NS + seconds_to_ns(5)
    # What came before the fault is disturbed, so it is not what is normal.
    assert result.windows.baseline.end_ns == INJECTED_NS
    assert [(at_s, flag, variant) for at_s, flag, variant in timeline_of(result) if at_s > 0][:3] == [
        (5.0, "adFailure", "on"),
        (15.0, "paymentFailure", "50%"),
        (25.0, "paymentFailure", "off"),
    ]


async def test_changes_that_fall_due_while_one_is_witnessed_are_made_right_after():
    both = (
        Fault(flag="adFailure", at_s=5),
        Fault(flag="paymentFailure", variant="50%", at_s=6),
    )

    result = await engine(FakeTarget()).run(plan(scenario(faults=both, expectation=PAYMENT)))

    assert [(at_s, flag) for at_s, flag, _ in timeline_of(result)][2:4] == [
        (5.0, "adFailure"),
        (7.0, "paymentFailure"),
    ]


async def test_a_control_is_disturbed_at_its_injection_after_the_guard():
    target = Stormy()
    case = scenario(disturbances=(Disturbance(kind="load"),), timing={"guard_s": 3})

    result = await engine(target, lambda _: Diagnosis(detected=False)).run(plan(case))

    assert result.status is Status.SCORED
    assert target.disturbed == [(3.0, "load")]
    assert result.windows.incident.start_ns == INJECTED_NS + seconds_to_ns(3)
    assert result.flag_timeline == () and len(result.disturbances) == 1


async def test_a_target_that_cannot_disturb_refuses_before_anything_is_touched():
    target = FakeTarget()
    case = scenario("paymentFailure=50%", disturbances=(Disturbance(kind="load"),))

    result = await engine(target).run(plan(case))

    assert (result.status, result.blame) == (Status.ERROR, Blame.USER)
    assert "has disturbances (load), which this target cannot make" in result.reason
    assert target.trouble.passed["flags.apply"] == 0


async def test_a_change_of_the_schedule_that_is_not_served_ends_the_session():
    target = FakeTarget()
    fault = Fault(flag="paymentFailure", variant="50%", until_s=10)
    apply = target.flags.apply

    async def sticky(change):
        await apply(change)
        if change.variant == "off":
            target.flags.served_instead["paymentFailure"] = "50%"

    target.flags.apply = sticky
    watcher = Watcher()
    watcher.when[Phase.UNDO] = target.flags.served_instead.clear
    result = await engine(target, watcher=watcher).run(plan(scenario(faults=(fault,), expectation=PAYMENT)))

    assert result.status is Status.INVALID
    assert "NOT_SERVED: not served after 30 s: paymentFailure=off (last answer: '50%'; " in result.reason
    assert target.restored and result.cleanup.verified


async def test_an_external_change_is_detected_before_the_schedule_overwrites_it():
    target = FakeTarget()
    fault = Fault(flag="paymentFailure", variant="50%", until_s=20, every_s=25)
    sleep = target.clock.sleep

    async def meddled(seconds):
        await sleep(seconds)
        if 10 < (target.clock.now() - INJECTED_NS) / 1e9 <= 20:
            target.flags.state["paymentFailure"] = "off"

    target.clock.sleep = meddled
    result = await engine(target).run(plan(scenario(faults=(fault,), expectation=PAYMENT)))

    assert result.status is Status.INVALID
    assert "changed by another client during the session: paymentFailure=50% (now 'off')" in result.reason
    assert target.restored


def test_a_fault_that_comes_after_the_session_is_a_mistake():
    both = (Fault(flag="adFailure", at_s=10), Fault(flag="paymentFailure", variant="50%", at_s=45))
    case = scenario(faults=both, expectation=PAYMENT)
    (mistake,) = scenario_mistakes(case)
    assert "paymentFailure=50% of scenario 'case' comes on 35 s after the first one" in mistake
    assert scenario_mistakes(case.model_copy(update={"faults": both[:1]})) == []


async def test_an_unknown_variant_of_a_step_is_refused():
    fault = Fault(flag="paymentFailure", variant="10%", steps=(FaultStep(at_s=1, variant="5%"),))

    result = await engine(FakeTarget()).run(plan(scenario(faults=(fault,), expectation=PAYMENT)))

    assert result.blame is Blame.USER
    assert "has no variant '5%'" in result.reason


def targeted(target, key, product, variant):
    """Let the flag answer *variant* for one product and off for others."""
    target.flags.targeting[key] = {"if": [{"==": [{"var": "product_id"}, product]}, variant, "off"]}
    served = target.flags.served

    async def by_context(asked, context):
        answer = await served(asked, context)
        if asked != key or context.get("product_id") == product:
            return answer
        return answer.model_copy(update={"variant": "off"})

    target.flags.served = by_context


async def test_the_witness_asks_as_the_service_does():
    target = FakeTarget()
    targeted(target, "paymentFailure", "P1", "off")
    seeing = Fault(flag="paymentFailure", variant="50%", context={"product_id": "P1"})

    result = await engine(target).run(plan(scenario(faults=(seeing,), expectation=PAYMENT)))
    blind = await engine(target).run(plan(scenario("paymentFailure=50%")))

    assert result.status is Status.SCORED
    assert blind.status is Status.INVALID and "NOT_SERVED" in blind.reason


async def test_the_fault_s_context_wins_over_the_usual_one():
    target = FakeTarget()
    targeted(target, "paymentFailure", "P1", "off")
    fault = Fault(flag="paymentFailure", variant="50%", context={"product_id": "P1"})
    usual = replace(QUICK, flag_context={"product_id": "P2", "other": 1})

    result = await engine(target, settings=usual).run(plan(scenario(faults=(fault,), expectation=PAYMENT)))

    assert result.status is Status.SCORED


@pytest.mark.parametrize(
    ("rule", "contexts"),
    [
        ({"if": [{"==": [{"var": "product_id"}, "P1"]}, "on", "off"]}, []),
        ({"if": [{"===": ["P1", {"var": "product_id"}]}, "on", "off"]}, []),
        ({"if": [{"in": [{"var": "product_id"}, ["P0", "P1"]]}, "on", "off"]}, []),
        ({"if": [{"in": ["P1", {"var": "product_id"}]}, "on", "off"]}, []),
        ({"fractional": [["on", 50], ["off", 50]]}, [{"product_id": "P1"}]),
    ],
)
async def test_a_foreign_fault_behind_targeting_is_found(rule, contexts):
    target = FakeTarget()
    targeted(target, "paymentFailure", "P1", "50%")
    target.flags.targeting["paymentFailure"] = rule
    target.flags.state["paymentFailure"] = "50%"
    document = await target.flags.document()
    quiet = document.flags["paymentFailure"].model_copy(update={"default_variant": "off"})
    document = document.model_copy(update={"flags": {"paymentFailure": quiet}})
    async with target.open(scenario(), "s") as session:
        witness = FlagWitness(session, EngineSettings(), dict(enumerate(contexts)))
        found = await foreign_faults(witness, document)
    assert found == ["paymentFailure=50%"]


async def test_a_foreign_fault_of_another_scenario_s_flag_stops_the_preflight():
    target = FakeTarget()
    targeted(target, "adFailure", "P1", "on")
    target.flags.state["adFailure"] = "on"

    result = await engine(target).run(plan())

    assert "EXTERNAL_CHANGE: a fault was on before the session: adFailure=on" in result.reason


@pytest.mark.parametrize("seed", range(6))
async def test_the_length_of_a_control_is_one_that_faults_have(seed):
    """A fault may show late, which makes its session longer; a control's length must not give it away."""
    control = await engine(FakeTarget(), lambda _: Diagnosis(detected=False)).run(plan(scenario(), seed=seed))
    ends = {30.0, *(2.0 + 5 * look for look in range(6, 12)), 60.0}
    assert control.windows.incident.duration_s in ends


async def test_lengths_of_faults_are_lengths_of_controls():
    services = shop() | {"payment": Behaviour(rate=8, flag="paymentFailure", errors_on=0.01)}
    quick, slow, invisible = FakeTarget(), FakeTarget(lag_s=33), FakeTarget(services=services)
    lengths = set()
    for target in (quick, slow, invisible):
        await engine(target, lengths_into(lengths)).run(plan())
    assert lengths == {30.0, 37.0}


def lengths_into(lengths):
    async def analyze(investigation):
        lengths.add(investigation.incident.duration_s)
        return Diagnosis(detected=True)

    return analyze


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    one=faults(horizon=12),
    two=st.none() | faults(flag="adFailure", variants=("on",), horizon=12),
    point=st.sampled_from(
        ["flags.apply", "flags.applied", "flags.served", "disturb", "telemetry.service_health"]
    ),
    skip=st.integers(0, 40),
    kind=st.sampled_from([asyncio.CancelledError, KeyboardInterrupt, OSError]),
)
def test_whatever_interrupts_a_schedule_every_flag_of_it_is_put_back(one, two, point, skip, kind):
    target, watcher = Stormy(), Watcher()
    left = [skip]

    def act():
        left[0] -= 1
        if left[0] == -1:
            raise kind("trouble")

    target.trouble.at[point] = act
    case = scenario(
        faults=tuple(fault for fault in (one, two) if fault is not None),
        disturbances=(Disturbance(kind="gc", service="ad", at_s=7),),
        expectation=PAYMENT,
        timing={"recover_timeout_s": 0},
    )
    try:
        asyncio.run(engine(target, watcher=watcher).run(plan(case)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        assert kind is not OSError

    (result,) = watcher.results
    assert target.restored and target.opened == target.closed
    if result.cleanup is not None:
        assert result.cleanup.verified
        last = {moment.flag: moment.variant for moment in result.flag_timeline}
        assert set(last.values()) == {"off"} and set(last) == {fault.flag for fault in case.faults}
