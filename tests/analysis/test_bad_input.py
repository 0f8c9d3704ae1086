"""Telemetry as broken as it comes: the analyzer answers, and finds what can be found."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from pytest_otel_diag.analyzers.builtin import BuiltinAnalyzer
from pytest_otel_diag.analyzers.builtin.gather import Gatherer
from pytest_otel_diag.analyzers.builtin.slots import plan
from pytest_otel_diag.errors import QueryFailed
from pytest_otel_diag.model.telemetry import Table, TelemetrySchema
from pytest_otel_diag.model.windows import Window
from pytest_otel_diag.ports import Telemetry
from pytest_otel_diag.telemetry import Store
from tests.analysis.conftest import Diagnose, investigation
from tests.analysis.worlds import BASELINE, INCIDENT, MS, SECOND, T0, Fault, Simulation, Span, World

FAILING = Fault(failing={"billing": 0.6})


def shop(fault: Fault = FAILING, **options: object) -> World:
    return Simulation(7, fault, **options).run()  # type: ignore[arg-type]


async def test_no_telemetry_at_all(diagnose: Diagnose) -> None:
    found = await diagnose(World())
    assert not found.detected
    assert found.root_causes == ()
    assert found.query is None
    assert "No telemetry" in found.summary


async def test_no_tables_at_all(store: Store) -> None:
    store.create_database("empty one")
    connection = store.telemetry("empty one")
    try:
        found = await BuiltinAnalyzer().diagnose(investigation(connection))
    finally:
        store.drop_database("empty one")
    assert not found.detected


class Stubborn:
    """Telemetry that refuses statements about some table."""

    def __init__(self, inner: Telemetry, table: str) -> None:
        self.inner = inner
        self.table = table

    async def query(self, sql: str, parameters: object = None, limits: object = None) -> Table:
        if self.table in sql:
            raise QueryFailed("out of order", 42)
        return await self.inner.query(sql, parameters, limits)  # type: ignore[arg-type]

    async def schema(self) -> TelemetrySchema:
        return await self.inner.schema()


async def test_a_signal_that_cannot_be_read_is_told_and_done_without(
    store: Store, database: str, telemetry: Telemetry
) -> None:
    shop().load(store, database)
    for table in ("otel_metrics_sum", "otel_logs"):
        stubborn: Any = Stubborn(telemetry, table)
        found = await BuiltinAnalyzer().diagnose(investigation(stubborn))
        assert found.root_causes[0].service == "billing"
        assert "was not read: out of order" in found.summary
    broken: Any = Stubborn(telemetry, "otel_traces")
    with pytest.raises(QueryFailed):
        await BuiltinAnalyzer().diagnose(investigation(broken))


async def test_empty_windows(diagnose: Diagnose) -> None:
    instant = Window(start_ns=T0, end_ns=T0)
    found = await diagnose(shop(), incident=instant, baseline=instant)
    assert not found.detected


async def test_windows_that_nothing_lies_in(diagnose: Diagnose) -> None:
    later = Window(start_ns=INCIDENT.end_ns + SECOND, end_ns=INCIDENT.end_ns + 60 * SECOND)
    found = await diagnose(shop(), incident=later)
    assert not found.detected


async def test_traces_only(diagnose: Diagnose) -> None:
    world = shop(logs=False)
    world.gauges, world.sums, world.histograms = [], [], []
    found = await diagnose(world)
    assert found.detected
    assert found.root_causes[0].service == "billing"


async def test_metrics_only(diagnose: Diagnose) -> None:
    world = shop(Fault(gauge={("stock", "process.cpu.utilization"): 4.0}))
    world.spans, world.logs = [], []
    found = await diagnose(world)
    assert found.detected
    assert found.root_causes[0].service == "stock"
    assert found.root_causes[0].confidence == pytest.approx(0.5, abs=0.2), "no call graph, no certainty"
    assert found.critical_paths == ()


async def test_quiet_metrics_only(diagnose: Diagnose, telemetry: Telemetry) -> None:
    world = shop(Fault())
    world.spans, world.logs = [], []
    found = await diagnose(world)
    assert not found.detected
    assert found.query is not None
    assert len(await telemetry.query(found.query.sql)) == 2


async def test_logs_only(diagnose: Diagnose) -> None:
    world = shop(Fault(log={"basket": "out of handles"}))
    world.spans, world.gauges, world.sums, world.histograms = [], [], [], []
    world.logs = [(at, "", "", service, severity, body) for at, _, _, service, severity, body in world.logs]
    found = await diagnose(world)
    assert found.root_causes[0].service == "basket"
    assert found.query is not None
    assert "otel_logs" in found.query.sql


async def test_one_service_only(diagnose: Diagnose) -> None:
    world = shop(Fault(slow={"web": 80.0}))
    world.spans = [span for span in world.spans if span.service == "web" and span.kind == "Server"]
    found = await diagnose(world)
    assert found.detected
    assert found.root_causes[0].service == "web"
    assert {path.services for path in found.critical_paths} == {("web",)}


async def test_without_any_baseline_only_the_plain_truth_is_told(diagnose: Diagnose) -> None:
    found = await diagnose(shop(), baseline=None)
    assert not found.detected
    assert "no quiet telemetry" in found.summary


async def test_a_reference_elsewhere_replaces_the_baseline(diagnose: Diagnose) -> None:
    found = await diagnose(shop(), baseline=None, reference=[BASELINE])
    assert found.detected
    assert found.root_causes[0].service == "billing"


async def test_a_reference_that_overlaps_the_incident_is_cut(diagnose: Diagnose) -> None:
    whole = Window(start_ns=BASELINE.start_ns, end_ns=INCIDENT.end_ns)
    found = await diagnose(shop(), reference=[whole, BASELINE])
    assert found.root_causes[0].service == "billing"


async def test_broken_traces(diagnose: Diagnose) -> None:
    """Missing parents, cycles, clocks that disagree, spans without duration, ids used twice."""
    world, dice = shop(), random.Random(1)
    for span in world.spans:
        fate = dice.random()
        if fate < 0.03:
            span.parent = "feedfacefeedface"
        elif fate < 0.06:
            span.parent = span.id
        elif fate < 0.09:
            span.took_ns = 0
        elif fate < 0.12:
            span.start_ns -= 30 * MS
    twice = dice.sample(world.spans, 100)
    world.spans.extend(
        Span(s.trace, s.id, s.parent, s.service, s.name, s.kind, s.start_ns, s.took_ns) for s in twice
    )
    for trace in ("c" * 32, "d" * 32):
        for me, parent in (("1" * 16, "2" * 16), ("2" * 16, "1" * 16)):
            world.spans.append(Span(trace, me, parent, "web", "loop", "Server", INCIDENT.start_ns + 5, MS))
    found = await diagnose(world)
    assert found.root_causes[0].service == "billing"


async def test_metrics_that_are_no_numbers(diagnose: Diagnose) -> None:
    world = shop()
    for at in range(T0, INCIDENT.end_ns, 10 * SECOND):
        for value in (math.nan, math.inf, -math.inf):
            world.gauges.append((at, "stock", f"odd.{value}", "", {}, value))
    found = await diagnose(world)
    assert found.root_causes[0].service == "billing"


async def test_counters_that_start_again(diagnose: Diagnose) -> None:
    world = shop(Fault(counter={("basket", "gc.collections"): 6.0}))
    world.sums = [
        (at, s, m, u, value - 300.0 if at > T0 + 100 * SECOND and value > 300.0 else value)
        for at, s, m, u, value in world.sums
    ]
    found = await diagnose(world)
    assert found.root_causes[0].service == "basket"


async def test_fifty_thousand_operations(diagnose: Diagnose, telemetry: Telemetry) -> None:
    world = shop(logs=False)
    for number in range(50_000):
        at = T0 + number * 6 * MS
        world.spans.append(
            Span(f"{number:032x}", f"{number:016x}", "", "web", f"/item/{number}", "Server", at, MS)
        )
    found = await diagnose(world)
    assert found.root_causes[0].service == "billing"
    gatherer = Gatherer(telemetry, await telemetry.schema(), plan(INCIDENT, BASELINE, ()))
    assert len((await gatherer.gather()).operations) == 20_000, "the busiest are kept"
