"""Whole diagnoses of a made-up system with known faults."""

from __future__ import annotations

import pytest

from pytest_otel_diag.model.diagnosis import Diagnosis, Mechanism, Signal
from pytest_otel_diag.ports import Telemetry
from tests.analysis.conftest import Diagnose
from tests.analysis.worlds import INCIDENT, SECOND, Fault, Simulation

FAULTS = {
    "errors begin in a leaf": (Fault(failing={"billing": 0.5}), "billing", {Mechanism.ERROR}),
    "errors begin in a caller": (Fault(failing={"orders": 0.4}), "orders", {Mechanism.ERROR}),
    "a callee cannot be reached": (
        Fault(unreachable=("orders", "billing")),
        "orders",
        {Mechanism.UNREACHABLE},
    ),
    "a leaf works slowly": (Fault(slow={"stock": 40.0}), "stock", {Mechanism.LATENCY}),
    "a caller works slowly": (Fault(slow={"orders": 60.0}), "orders", {Mechanism.LATENCY}),
    "the network is slow": (Fault(delayed={"search": 50.0}), "search", {Mechanism.NETWORK}),
    "cpu is short": (
        Fault(slow={"search": 30.0}, gauge={("search", "process.cpu.utilization"): 4.0}),
        "search",
        {Mechanism.CPU},
    ),
    "memory leaks": (Fault(gauge={("mail", "process.memory.usage"): 3.0}), "mail", {Mechanism.MEMORY}),
    "garbage is collected": (
        Fault(slow={"basket": 25.0}, counter={("basket", "gc.collections"): 6.0}),
        "basket",
        {Mechanism.GC},
    ),
    "messages wait": (Fault(lag_ms=900.0, gauge={("mail", "queue.lag"): 20.0}), "mail", {Mechanism.QUEUE}),
    "a method returns early": (Fault(returns_early={"orders": 0.9}), "orders", {Mechanism.ERROR}),
    "traffic floods in": (Fault(rate=5.0), "web", {Mechanism.TRAFFIC}),
    "a histogram rises": (Fault(histogram={("stock", "pool.wait"): 9.0}), "stock", {Mechanism.QUEUE}),
    "a log line without context appears": (
        Fault(log={"basket": "cannot reach the cache, giving up"}),
        "basket",
        {Mechanism.ERROR},
    ),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_the_culprit_is_first_and_its_mechanism_named(case: str, diagnose: Diagnose) -> None:
    fault, culprit, mechanisms = FAULTS[case]
    found = await diagnose(Simulation(7, fault).run())
    assert found.detected, found.summary
    assert found.root_causes[0].service == culprit, found.summary
    assert found.root_causes[0].mechanism in mechanisms, found.root_causes[0]
    assert found.confidence == found.root_causes[0].confidence > 0.5
    assert any(anomaly.service == culprit for anomaly in found.anomalies)
    assert found.hypotheses[0].status == "kept"
    assert found.hypotheses[0].service == culprit


@pytest.mark.parametrize(
    ("peak_s", "begun_s", "mechanism"),
    [
        (60, 65, Mechanism.MEMORY),
        (60, None, Mechanism.CPU),
        (None, 65, Mechanism.CPU),
        (70, 65, Mechanism.CPU),
    ],
    ids=["peak, then a start", "no start", "no peak", "the new process peaks"],
)
async def test_a_process_that_outgrows_its_memory_is_told_by_what_comes_after(
    peak_s: int | None, begun_s: int | None, mechanism: Mechanism, diagnose: Diagnose
) -> None:
    fault = Fault(slow={"search": 30.0}, gauge={("search", "process.cpu.utilization"): 4.0})
    world = Simulation(7, fault).run()
    if peak_s is not None:
        at = INCIDENT.start_ns + peak_s * SECOND
        world.gauges = [
            (*row[:5], 2.0 * row[5]) if row[:3] == (at, "search", "process.memory.usage") else row
            for row in world.gauges
        ]
    if begun_s is not None:
        world.begun["search"] = INCIDENT.start_ns + begun_s * SECOND
    found = await diagnose(world)
    first = found.root_causes[0]
    assert (first.service, first.mechanism) == ("search", mechanism)
    result = [each.summary for each in first.evidence if "before the process began anew" in each.summary]
    assert len(result) == (mechanism is Mechanism.MEMORY)
    assert all("process.memory.usage" in each for each in result)


@pytest.mark.parametrize("seed", range(3))
async def test_a_quiet_system_yields_no_anomaly(seed: int, diagnose: Diagnose) -> None:
    found = await diagnose(Simulation(seed, Fault()).run())
    assert not found.detected, found.summary
    assert found.anomalies == ()
    assert all(hypothesis.status == "eliminated" for hypothesis in found.hypotheses)


async def test_errors_are_told_by_signal_service_operation_and_direction(diagnose: Diagnose) -> None:
    found = await diagnose(Simulation(3, Fault(failing={"billing": 0.5})).run())
    [rate] = [a for a in found.anomalies if a.service == "billing" and a.signal is Signal.ERROR_RATE]
    assert (rate.operation, rate.direction) == ("billing/handle", "up")
    assert rate.baseline == 0.0
    assert rate.observed is not None
    assert 0.35 < rate.observed < 0.65
    assert rate.p_value is not None
    assert rate.p_value < 0.001
    assert {a.service for a in found.anomalies if a.signal is Signal.ERROR_RATE} >= {
        "billing",
        "orders",
        "web",
    }


async def test_the_callee_that_was_not_reached_is_suspected_next(diagnose: Diagnose) -> None:
    found = await diagnose(Simulation(7, Fault(unreachable=("orders", "billing"))).run())
    assert [cause.service for cause in found.root_causes[:2]] == ["orders", "billing"]
    assert found.root_causes[1].mechanism is Mechanism.UNREACHABLE
    assert found.root_causes[0].operation == "call billing"


async def test_a_callee_that_nobody_reaches_is_down(diagnose: Diagnose) -> None:
    found = await diagnose(Simulation(7, Fault(down="stock")).run())
    assert found.root_causes[0].service == "stock"
    assert found.root_causes[0].mechanism is Mechanism.UNREACHABLE


async def test_the_path_to_the_culprit_is_critical(diagnose: Diagnose) -> None:
    found = await diagnose(Simulation(3, Fault(failing={"billing": 0.5})).run())
    path = found.critical_paths[0]
    assert path.services == ("web", "orders", "billing")
    assert (path.startService, path.endService, path.priority) == ("web", "billing", "critical")
    assert [(edge.source, edge.target) for edge in path.edges] == [("web", "orders"), ("orders", "billing")]
    assert path.metrics.requestCount > 100
    assert path.metrics.errorRate == pytest.approx(0.5, abs=0.15)
    assert 0 < path.metrics.avgLatency <= path.metrics.p99Latency


async def check_query(found: Diagnosis, telemetry: Telemetry) -> None:
    assert found.query is not None
    answer = await telemetry.query(found.query.sql)
    assert found.root_causes[0].service in answer.column("service")
    assert {"incident", "quiet"} >= set(answer.column("period"))


@pytest.mark.parametrize(
    "case",
    ["errors begin in a leaf", "memory leaks", "a histogram rises", "a log line without context appears"],
)
async def test_the_query_runs_as_it_stands_and_names_the_culprit(
    case: str, diagnose: Diagnose, telemetry: Telemetry
) -> None:
    await check_query(await diagnose(Simulation(7, FAULTS[case][0]).run()), telemetry)


async def test_names_with_quotes_sql_and_unicode_survive(diagnose: Diagnose, telemetry: Telemetry) -> None:
    def odd(service: str) -> str:
        return {"billing": "b'; DROP TABLE x; --\\ \"ü\n%(a)s{b:String}"}.get(service, f"сервис {service}")

    found = await diagnose(Simulation(7, Fault(failing={"billing": 0.5})).run(odd))
    assert found.root_causes[0].service == odd("billing")
    await check_query(found, telemetry)


async def test_the_same_telemetry_gives_the_same_diagnosis(diagnose: Diagnose, store, database: str) -> None:
    world = Simulation(5, Fault(slow={"stock": 20.0})).run()
    first = await diagnose(world)
    store.drop_database(database)
    store.create_database(database)
    world.spans.reverse()
    world.logs.reverse()
    world.gauges.reverse()
    second = await diagnose(world)
    assert first.root_causes == second.root_causes
    assert first.anomalies == second.anomalies
