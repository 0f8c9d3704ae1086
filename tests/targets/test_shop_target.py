"""The simulated shop as a target."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ConfigurationError, ScenarioError
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.model.scenario import (
    Disturbance,
    Environment,
    Expectation,
    ExpectedRootCause,
    Fault,
    FaultStep,
    Scenario,
    Timing,
)
from pytest_otel_diag.model.windows import NANOS_PER_SECOND, Window
from pytest_otel_diag.ports import TargetSession
from pytest_otel_diag.secret import SecretText
from pytest_otel_diag.shop.variation import Variation
from pytest_otel_diag.targets.shop.options import ShopOptions
from pytest_otel_diag.targets.shop.target import ShopTarget, first_instant, model_hash
from pytest_otel_diag.testing.target_contract import TargetContract

SHORT = "demo=3.0,users=5,seed=1,reference_s=30,settle_s=20"
QUICK = Timing(baseline_s=30.0, impact_timeout_s=60.0, observe_s=20.0, recover_timeout_s=30.0)
COUNTS = "SELECT count() AS n FROM "


def _scenario(*faults: Fault, **fields: object) -> Scenario:
    wanted = {"id": "s", "faults": faults, "expectation": Expectation(healthy=not faults), "timing": QUICK}
    return Scenario.model_validate({**wanted, **fields})


@pytest.fixture
def target(tmp_path: Path) -> Iterator[ShopTarget]:
    made = ShopTarget.from_settings(SHORT, settings=Settings(cache=str(tmp_path)), worker="")
    yield made
    made.close()


@pytest.fixture
def scenario() -> Scenario:
    return _scenario(catalog.fault("paymentFailure", "100%"))


class TestShopTarget(TargetContract):
    """The public contract."""


async def _count(session: TargetSession, table: str = "otel_traces", where: str = "1") -> int:
    table_of = await session.telemetry.query(f"{COUNTS}{table} WHERE {where}")
    return int(table_of.column("n")[0])


@pytest.fixture
async def session(target: ShopTarget, scenario: Scenario) -> AsyncIterator[TargetSession]:
    async with target.open(scenario, "id") as opened:
        yield opened


async def test_a_session_begins_after_its_quiet_reference(session: TargetSession) -> None:
    (quiet,) = session.reference
    assert quiet.duration_s == 30.0
    assert quiet.end_ns == session.clock.now()
    newest = await session.telemetry.latest()
    assert newest is not None
    assert quiet.end_ns - 15 * NANOS_PER_SECOND < newest <= quiet.end_ns
    health = await session.telemetry.service_health(quiet, 30.0)
    assert {"frontend", "frontend-proxy", "product-catalog", "cart"} <= {each.service for each in health}
    edges = await session.telemetry.call_edges(quiet)
    assert ("frontend", "product-catalog") in {(edge.caller, edge.callee) for edge in edges}


async def test_telemetry_appears_as_time_passes_and_never_early(session: TargetSession) -> None:
    before = await _count(session)
    assert await _count(session) == before
    now_ns = session.clock.now()
    await session.clock.sleep(30)
    assert await _count(session) > before
    slack = 10_000_000  # clocks of hosts are a little off
    late = f"toUnixTimestamp64Nano(Timestamp) + Duration > {session.clock.now() + slack}"
    assert await _count(session, where=late) == 0
    assert await _count(session, "otel_logs") > 0
    assert await _count(session, "otel_metrics_sum", f"TimeUnix > fromUnixTimestamp64Nano({now_ns})") > 0


async def test_every_question_is_answered_from_what_is_visible_now(session: TargetSession) -> None:
    begun_ns = session.clock.now()
    await session.clock.sleep(90)
    window = Window(start_ns=begun_ns - 30 * NANOS_PER_SECOND, end_ns=session.clock.now())
    wanted = ["frontend-proxy", "ad", "checkout"]
    operations = await session.telemetry.operation_health(window, 60.0, wanted)
    assert {each.service for each in operations} == set(wanted)
    assert await session.telemetry.metric_levels(window, 60.0, wanted)
    assert await session.telemetry.log_counts(window, 60.0, wanted)
    assert await session.telemetry.log_kinds(window, 60.0, wanted)


async def test_a_fault_shows_where_its_flag_is_asked(session: TargetSession) -> None:
    # streams of flagd end in an error every ten minutes, whatever the flags say
    errors = "ServiceName = 'payment' AND StatusCode = 'Error' AND SpanName NOT LIKE '%EventStream'"
    await session.clock.sleep(60)
    assert await _count(session, where=errors) == 0
    before = await session.flags.document()
    await session.flags.apply(FlagChange(key="paymentFailure", variant="100%"))
    assert await session.traffic.drive(["payment"], 20) >= 20
    await session.clock.sleep(60)
    assert await _count(session, where=errors) >= 20
    await session.flags.restore(before)
    await session.clock.sleep(30)
    restored_ns = session.clock.now()
    await session.clock.sleep(60)
    assert await _count(session, where=f"{errors} AND toUnixTimestamp64Nano(Timestamp) > {restored_ns}") == 0


async def test_driving_unknown_services_makes_no_calls(session: TargetSession) -> None:
    assert await session.traffic.drive(["unknown"], 5) == 0


async def test_a_restart_replaces_instances_and_breaks_nothing(session: TargetSession) -> None:
    assert session.disturb is not None
    await session.clock.sleep(30)
    await session.disturb(Disturbance(kind="restart", service="cart"))
    await session.clock.sleep(90)
    instances = await session.telemetry.query(
        "SELECT uniqExact(ResourceAttributes['service.instance.id']) AS n, "
        "countIf(StatusCode = 'Error') AS bad FROM otel_traces "
        "WHERE ServiceName = 'cart' AND SpanKind = 'Server'"
    )
    assert (instances.column("n")[0], instances.column("bad")[0]) == (2, 0)


async def test_twice_the_load_is_twice_the_requests(session: TargetSession) -> None:
    assert session.disturb is not None
    rate = "ServiceName = 'frontend-proxy' AND SpanKind = 'Server'"
    await session.clock.sleep(60)
    before = await _count(session, where=rate)
    await session.disturb(Disturbance(kind="load", factor=3.0))
    await session.clock.sleep(20)
    between = await _count(session, where=rate)
    await session.clock.sleep(60)
    assert (await _count(session, where=rate) - between) / 60 > 1.5 * before / 110


async def test_a_collection_is_a_pause_and_nothing_more(session: TargetSession) -> None:
    assert session.disturb is not None
    await session.disturb(Disturbance(kind="gc", service="ad"))
    await session.clock.sleep(90)
    full = await session.telemetry.query(
        "SELECT max(Count) AS n FROM otel_metrics_histogram WHERE MetricName = 'jvm.gc.duration' "
        "AND ServiceName = 'ad' AND Attributes['jvm.gc.action'] = 'end of major GC'"
    )
    assert full.column("n")[0] == 1


async def _rows(target: ShopTarget, scenario: Scenario) -> list[tuple[object, ...]]:
    async with target.open(scenario, "id") as opened:
        await opened.clock.sleep(10)
        found = await opened.telemetry.query(
            "SELECT ServiceName, SpanName, TraceId, SpanId, Timestamp, Duration, SpanAttributes "
            "FROM otel_traces ORDER BY Timestamp, SpanId"
        )
        return list(found.rows())


async def test_the_same_seed_is_the_same_session_and_the_scenario_may_choose_another(
    target: ShopTarget,
) -> None:
    first = await _rows(target, _scenario())
    assert first
    assert await _rows(target, _scenario()) == first
    assert await _rows(target, _scenario(environment=Environment(seed=2))) != first


@pytest.fixture
def named(tmp_path: Path) -> Iterator[ShopTarget]:
    """A target whose databases are kept apart from all others in this process."""
    unique = (f"{tmp_path.name}_{number}" for number in itertools.count())
    made = ShopTarget(ShopOptions.parse(SHORT), cache_dir=tmp_path, new_id=lambda: next(unique))
    yield made
    made.close()


async def test_a_redacted_session_shows_no_evaluation_of_a_flag(tmp_path: Path) -> None:
    target = ShopTarget(ShopOptions.parse(SHORT), cache_dir=tmp_path, redact=True)
    try:
        async with target.open(_scenario(), "id") as opened:
            assert opened.redacted and await _count(opened) > 0
            assert await _count(opened, where="ServiceName = 'flagd'") == 0
            assert await _count(opened, where="arrayExists(n -> n ILIKE '%feature_flag%', Events.Name)") == 0
            assert await _count(opened, "otel_traces_slim", "service = 'flagd'") == 0
            assert await _count(opened, "otel_metrics_sum", "MetricName LIKE 'feature_flag%'") == 0
            await opened.clock.sleep(30)
            assert opened.exporter is not None
            (batch, *_) = (await opened.exporter()).batches("otel_traces", ["ServiceName"], opened.reference)
            assert "flagd" not in batch.column("ServiceName").to_pylist()
    finally:
        target.close()


def _left(target: ShopTarget, tmp_path: Path) -> list[str]:
    return [name for name in target._store.store.databases() if tmp_path.name in name]


async def test_sessions_leave_no_database_behind_even_after_errors(
    named: ShopTarget, scenario: Scenario, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with named.open(scenario, "id") as opened:
            await _count(opened)
            assert _left(named, tmp_path) == [f"session_{tmp_path.name}_0"]
            raise ZeroDivisionError
    assert _left(named, tmp_path) == []


async def test_a_session_cancelled_at_any_time_closes(
    named: ShopTarget, scenario: Scenario, tmp_path: Path
) -> None:
    async def forever() -> None:
        async with named.open(scenario, "id") as opened:
            while True:
                await opened.clock.sleep(10)

    for seconds in (0.0, 0.001, 0.01, 0.05, 0.3):
        task = asyncio.create_task(forever())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert _left(named, tmp_path) == []


async def test_provenance_says_which_shop_it_was(session: TargetSession, target: ShopTarget) -> None:
    assert session.provenance["demo"] == "3.0"
    assert session.provenance["seed"] == "1"
    assert session.provenance["model"] == model_hash()
    described = target.describe()
    assert model_hash() in described["version"]
    assert described["reference_s"] == "30"


def test_mistakes_are_named_with_the_nearest_spelling(target: ShopTarget) -> None:
    def mistakes(*faults: Fault, **fields: object) -> str:
        return " ".join(target.validate(_scenario(*faults, **fields)))

    assert "did you mean 'paymentFailure'" in mistakes(Fault(flag="paymentFailur"))
    assert "did you mean '50%'" in mistakes(Fault(flag="paymentFailure", variant="50"))
    truth = Expectation(root_causes=(ExpectedRootCause(service="ad"),))
    assert "run it on a live system" in mistakes(external="a slow disk", expectation=truth)
    ramp = Fault(flag="paymentFailure", variant="10%", steps=(FaultStep(at_s=5, variant="half"),))
    assert "'half'" in mistakes(ramp)
    assert "did you mean 'cart'" in mistakes(disturbances=[Disturbance(kind="restart", service="carts")])
    assert "9.9" in mistakes(environment=Environment(demo="9.9"))
    assert mistakes(Fault(flag="adFailure"), disturbances=[Disturbance(kind="gc", service="ad")]) == ""


async def test_a_wrong_scenario_is_not_opened(target: ShopTarget) -> None:
    with pytest.raises(ScenarioError, match="has no flag 'nothing'"):
        async with target.open(_scenario(Fault(flag="nothing")), "id"):
            pass


async def test_time_does_not_run_back(session: TargetSession) -> None:
    with pytest.raises(ConfigurationError, match="cannot sleep -1"):
        await session.clock.sleep(-1)
    with pytest.raises(ConfigurationError, match="cannot sleep nan"):
        await session.clock.sleep(float("nan"))


def test_the_catalogs_scenarios_are_the_targets(target: ShopTarget) -> None:
    assert target.scenarios() == catalog.scenarios("3.0")
    assert not [sentence for each in target.scenarios() for sentence in target.validate(each)]


def test_what_the_catalog_knows_of_faults_makes_a_scenario(target: ShopTarget) -> None:
    fault = Fault(flag="paymentServiceFailure", variant="50%", at_s=10.0)
    known = target.scenario_for([fault])
    assert known is not None
    assert (known.faults[0].flag, known.faults[0].at_s) == ("paymentFailure", 10.0)
    assert known.expectation == catalog.expectation("paymentFailure", "50%", "3.0")
    both = target.scenario_for([fault, Fault(flag="adFailure")])
    assert both is not None
    assert {cause.service for cause in both.expectation.root_causes} == {"payment", "ad"}
    assert target.validate(both) == ()
    assert target.scenario_for([Fault(flag="nothing")]) is None
    quiet = target.scenario_for([])
    assert quiet is not None
    assert quiet.control
    known = {scenario.timing.baseline_s for scenario in target.scenarios()}
    assert quiet.timing.baseline_s in known, "the baseline's length must not reveal a control"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("user=5", "did you mean 'users'"),
        ("users", "needs a value"),
        ("users=0", "whole number from 1 to 500"),
        ("users=many", "whole number"),
        ("jitter=maybe", "neither true nor false"),
        ("reference_s=-1", "seconds"),
        ("reference_s=long", "seconds"),
        ("demo=7", "7"),
    ],
)
def test_a_spec_that_cannot_be_read_says_why(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ShopTarget.from_settings(spec, settings=Settings(cache=str(tmp_path)), worker="")


def test_a_scenario_overrides_the_spec() -> None:
    options = ShopOptions.parse("shop: users=7 , jitter=yes, browser_users=0, seed=9")
    assert options.variation(Environment()) == Variation("3.0", 7, 0, 9, jitter=True)
    asked = Environment(demo="2.2", users=50, browser_users=2, seed=0, jitter=False)
    assert options.variation(asked) == Variation("2.2", 50, 2, 0, jitter=False)
    assert ShopOptions.parse("").variation(Environment()).seed == 0


def test_simulated_time_begins_at_working_hours() -> None:
    for seed in range(50):
        begins = Window(start_ns=first_instant(seed), end_ns=first_instant(seed))
        hour = begins.start_ns // NANOS_PER_SECOND % 86_400 / 3600
        assert 8 <= hour < 16
    assert len({first_instant(seed) for seed in range(50)}) > 40


async def test_a_session_without_reference_has_none(tmp_path: Path, scenario: Scenario) -> None:
    settings = Settings(store=SecretText("chdb://memory"), cache=str(tmp_path))
    bare = ShopTarget.from_settings("reference_s=0,settle_s=5", settings=settings, worker="")
    async with bare.open(scenario, "id") as opened:
        assert opened.reference == ()
    bare.close()
    bare.close()


@pytest.mark.parametrize("working", [True, False])
async def test_the_collector_of_cycles_is_left_as_it_was(session: TargetSession, working: bool) -> None:
    before = gc.isenabled()
    (gc.enable if working else gc.disable)()
    try:
        await session.clock.sleep(30)
        await session.telemetry.latest()
        assert gc.isenabled() is working
    finally:
        (gc.enable if before else gc.disable)()


def test_an_expected_service_that_the_demo_lacks_is_a_mistake() -> None:
    target = ShopTarget(ShopOptions.parse(SHORT), store_dsn="", cache_dir=Path("unused"))

    def mistakes(*services: str, **fields: object) -> tuple[str, ...]:
        causes = tuple(ExpectedRootCause(service=service) for service in services)
        expected = Expectation(root_causes=causes, **fields)
        return target.validate(_scenario(Fault(flag="paymentFailure", variant="50%"), expectation=expected))

    assert mistakes("paymentservice", "Kafka", red_herrings=("cart-service",)) == ()
    (mistake,) = mistakes("paymnt")
    assert "expects 'paymnt', the demo 3.0 has no such service (did you mean 'payment'?); known" in mistake
    assert len(mistakes("payment", red_herrings=("basket",), paths=(("frontend", "till"),))) == 2
    assert [target.validate(one) for one in target.scenarios() if target.validate(one)] == []
