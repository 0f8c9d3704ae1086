"""Right oracles are proven; wrong ones are rejected with the reason."""

import pytest

from pytest_otel_diag.model.scenario import (
    Disturbance,
    Expectation,
    ExpectedAnomaly,
    ExpectedRootCause,
    Fault,
    Scenario,
    Timing,
)
from pytest_otel_diag.selftest.proof import prove

TIMING = Timing(baseline_s=90, observe_s=60)
BACK = ExpectedRootCause(service="back", operation="Ask", mechanisms=("error",))

ALL_SERVICES = tuple(ExpectedRootCause(service=name) for name in ("front", "back", "sink", "broker"))


def scenario(flag: str, *claims: ExpectedAnomaly, **more) -> Scenario:
    expectation = {
        "anomalies": claims,
        "paths": (("front", "back"),),
        "root_causes": (BACK,),
        "red_herrings": ("front",),
        "flags": (flag,),
        **more,
    }
    return Scenario(
        id=f"{flag}=on",
        faults=(Fault(flag=flag, variant="on"),),
        expectation=Expectation(**expectation),
        timing=TIMING,
    )


def claim(signal: str, direction: str = "up", service: str = "back", operation: str | None = None):
    return ExpectedAnomaly(service=service, signal=signal, operation=operation, direction=direction)


@pytest.mark.parametrize(
    ("flag", "claims"),
    [
        ("fail", [claim("error_rate", operation="Ask"), ExpectedAnomaly(service="front")]),
        ("slow", [claim("latency", operation="Back/Ask")]),
        ("crawl", [claim("latency"), claim("latency", service="front")]),
        ("leak", [claim("memory"), claim("queue", service="sink")]),
        ("chatter", [claim("logs")]),
        ("warn", [claim("logs")]),
        ("flood", [claim("request_rate"), claim("calls", operation="Back/Ask")]),
        ("starve", [claim("request_rate", "down"), claim("request_rate", "down", "sink")]),
        ("restart", [claim("restart")]),
        ("busy", [claim("cpu"), claim("metric", "changed")]),
        ("gc", [claim("gc")]),
    ],
)
async def test_a_right_oracle_is_proven(small_system, flag, claims) -> None:
    proof = await prove(scenario(flag, *claims), small_system, "the cache is kept" if flag == "leak" else "")
    assert proof.problems == ()
    assert proof.holds
    assert [one.visible for one in proof.healthy.measured] == [False] * len(claims)
    assert [one.visible for one in proof.faulted.measured] == [True] * len(claims)
    assert proof.paths == {("front", "back"): ("front", "back")}
    assert {mutation.name for mutation in proof.mutations} == {
        "nothing is wrong",
        "wrong service",
        "every service",
        "the flag's name only",
        "wrong mechanism",
        "path reversed",
        "a query without telemetry",
    }
    assert all(mutation.reasons for mutation in proof.mutations)


async def test_a_path_behind_a_queue_is_found_through_links(small_system) -> None:
    proof = await prove(
        scenario("fail", claim("error_rate"), paths=(("front", "sink"), ("front", "back", "sink"))),
        small_system,
    )
    assert proof.paths[("front", "sink")] == ("front", "back", "sink")
    assert proof.problems == ()  # the judge knows the hop by its links as well


@pytest.mark.parametrize(
    ("scenario", "problem"),
    [
        (
            scenario("inert", claim("error_rate")),
            "does not show under the fault: back error_rate up: failed 0",
        ),
        (scenario("fail", claim("latency")), "does not show under the fault: back latency up: median"),
        (scenario("fail", claim("error_rate", "down")), "does not show under the fault"),
        (scenario("fail", claim("network")), "no metric of this kind"),
        (scenario("stuck", claim("error_rate")), "still shows after the undo: back error_rate up"),
        (scenario("fail", paths=(("back", "front"),)), "no real trace runs back → front"),
        (scenario("fail", red_herrings=("back",)), "the reference answer is rejected: a red herring"),
        (scenario("fail", root_causes=(BACK.model_copy(update={"service": "bak"}),)), "no query shows"),
        (scenario("fail", root_causes=()), "the reference answer is rejected"),
        (scenario("fail", root_causes=ALL_SERVICES, red_herrings=(), paths=()), "is accepted: every service"),
        (scenario("nothing"), "no flag 'nothing'"),
    ],
)
async def test_a_wrong_oracle_is_rejected_with_the_reason(small_system, scenario, problem) -> None:
    proof = await prove(scenario, small_system)
    assert not proof.holds
    assert any(problem in found for found in proof.problems), proof.problems


async def test_declared_residue_is_allowed(small_system) -> None:
    proof = await prove(scenario("stuck", claim("error_rate")), small_system, residue="it is stuck")
    assert proof.holds
    assert proof.residue == "it is stuck"


async def test_two_faults_need_two_causes_and_half_an_answer_is_rejected(small_system) -> None:
    both = scenario("fail", claim("error_rate")).model_copy(
        update={"faults": (Fault(flag="fail", variant="on"), Fault(flag="flood", variant="on", at_s=20))}
    )
    causes = (
        BACK.model_copy(update={"fault": "fail"}),
        ExpectedRootCause(service="front", fault="flood", mechanisms=("traffic",)),
    )
    both = both.model_copy(
        update={
            "expectation": both.expectation.model_copy(update={"root_causes": causes, "red_herrings": ()})
        }
    )
    proof = await prove(both, small_system)
    assert proof.problems == ()
    assert {mutation.name: mutation.reasons for mutation in proof.mutations}["half of the causes"] == (
        "not every culprit is named",
    )


async def test_a_control_must_stay_quiet_under_its_disturbances(small_system) -> None:
    control = Scenario(
        id="control",
        disturbances=(Disturbance(kind="load", at_s=30), Disturbance(kind="gc", service="back")),
        expectation=Expectation(healthy=True),
        timing=TIMING,
    )
    proof = await prove(control, small_system)
    assert proof.holds
    assert proof.mutations[0].reasons == ("a fault was reported where there is none",)
    assert [one.kind for one in small_system.systems[-1].disturbed] == ["gc", "load"]
    herring = control.expectation.model_copy(update={"anomalies": (claim("latency", "changed"),)})
    assert (await prove(control.model_copy(update={"expectation": herring}), small_system)).holds


async def test_a_flapping_fault_is_seen_as_a_whole(small_system) -> None:
    flapping = scenario("fail", claim("error_rate")).model_copy(
        update={"faults": (Fault(flag="fail", variant="on", until_s=10, every_s=30),)}
    )
    assert (await prove(flapping, small_system)).holds


async def test_an_unavailable_store_is_a_problem_of_the_proof(small_system, store) -> None:
    class Closed:
        name, exclusive, seeded = "closed", False, False

        def validate(self, scenario):
            return ()

        def open(self, scenario, session_id):
            return store.telemetry("no such database") and small_system.open(scenario, session_id)

    proof = await prove(scenario("fail"), Closed())
    assert any("cannot be proven" in problem for problem in proof.problems)
