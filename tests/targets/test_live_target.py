"""The target live against a real flagd and a tiny system that runs, its telemetry on a stand-in server."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_otel_diag.errors import ConfigurationError, FlagError, NotReady, ScenarioError
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause
from pytest_otel_diag.model.flags import FlagChange
from pytest_otel_diag.model.scenario import (
    Disturbance,
    Environment,
    Expectation,
    ExpectedAnomaly,
    ExpectedRootCause,
    Fault,
    FaultStep,
    Scenario,
    Timing,
)
from pytest_otel_diag.model.session import ImpactReason, Status
from pytest_otel_diag.ports import Investigation
from pytest_otel_diag.scoring.judge import judge
from pytest_otel_diag.sessions import EngineSettings, SessionEngine, SessionPlan, as_analyzer
from pytest_otel_diag.targets.live import store as live_store
from pytest_otel_diag.targets.live.target import LiveTarget, access_of, deadline_s
from pytest_otel_diag.targets.live.traffic import LiveTraffic
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.telemetry.placement import ExporterTable
from pytest_otel_diag.testing.target_contract import TargetContract
from tests.support.clickhouse_server import clickhouse_server
from tests.support.frontend_stand_in import frontend
from tests.support.live_demo import LiveDemo, live_demo

SHORT = Timing(
    baseline_s=4.0,
    impact_timeout_s=20.0,
    impact_poll_s=1.0,
    observe_s=3.0,
    recover_timeout_s=15.0,
    analyze_timeout_s=30.0,
)
PAYMENT = Scenario(
    id="payment",
    faults=(Fault(flag="paymentFailure", variant="100%"),),
    expectation=Expectation(
        anomalies=(ExpectedAnomaly(service="payment"),),
        root_causes=(ExpectedRootCause(service="payment"),),
    ),
    timing=SHORT,
)


@pytest.fixture(scope="module")
def server_store() -> Iterator[tuple[Store, str]]:
    with clickhouse_server() as server, Store.open(server.dsn()) as store:
        yield store, server.dsn()


@pytest.fixture(scope="module")
def demo(server_store: tuple[Store, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDemo]:
    with live_demo(tmp_path_factory.mktemp("live"), *server_store) as running:
        yield running


def live(demo: LiveDemo, rest: str = "", *, worker: str = "main", **given: object) -> LiveTarget:
    return LiveTarget.from_settings(rest, settings=demo.settings(**given), worker=worker)


@pytest.fixture
def target(demo: LiveDemo) -> Iterator[LiveTarget]:
    opened = live(demo)
    yield opened
    opened.close()


class TestContract(TargetContract):
    """What every target does, in wall time."""

    @pytest.fixture
    def scenario(self) -> Scenario:
        return PAYMENT


async def blames_payment(investigation: Investigation) -> Diagnosis:
    """Reads what it may see: errors by service."""
    sql = "SELECT ServiceName, countIf(StatusCode = 'Error') AS failed FROM otel_traces GROUP BY ServiceName"
    found = dict((await investigation.telemetry.query(sql)).rows())
    return Diagnosis(
        detected=bool(found["payment"]), root_causes=(RootCause(service="payment", confidence=1.0),)
    )


async def test_a_fault_is_injected_observed_judged_and_undone(target: LiveTarget, demo: LiveDemo) -> None:
    before = demo.document.read_bytes()
    plan = SessionPlan(scenario=PAYMENT, session_id="one", run_id="run")
    settings = EngineSettings(witness_poll_s=0.2)
    result = await SessionEngine(target, as_analyzer(blames_payment), judge, settings=settings).run(plan)
    assert result.status is Status.SCORED, result.reason
    assert result.impact is not None
    assert result.impact.reason is ImpactReason.VISIBLE
    assert result.verdict is not None
    assert result.verdict.detected
    assert result.cleanup is not None
    assert result.cleanup.verified
    assert demo.document.read_bytes() == before
    assert result.provenance["demo"] == "3.0"
    assert result.provenance["database"] == "otel"
    assert float(result.provenance["requests_per_minute"]) > 10
    assert not list((demo.state).glob("**/*.json")), "an entry of the journal stays"


def test_the_description_of_the_target(target: LiveTarget) -> None:
    message = target.describe()
    assert message["demo"] == "3.0"
    assert message["flags"].startswith("file:")
    assert message["store"].startswith("clickhouse://")


def test_scenarios_are_the_catalogs_for_the_existing_flags(target: LiveTarget) -> None:
    known = {one.id: one for one in target.scenarios()}
    assert "productCatalogFailure=on" in known
    assert all(one.environment == Environment() for one in known.values())
    assert target.scenario_for([Fault(flag="paymentServiceFailure", variant="100%")]) is not None
    control = target.scenario_for([])
    assert control is not None
    assert control.control
    assert target.validate(control) == ()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"faults": (Fault(flag="paymentFailur"),)}, "did you mean 'paymentFailure'"),
        ({"faults": (Fault(flag="paymentFailure", variant="on"),)}, "no variant 'on'"),
        (
            {
                "faults": (
                    Fault(flag="paymentFailure", variant="10%", steps=(FaultStep(at_s=5, variant="x"),)),
                )
            },
            "no variant 'x'",
        ),
        ({"environment": Environment(demo="1.12")}, "for the demo 1.12"),
        ({"disturbances": (Disturbance(kind="gc", service="ad"),)}, "cannot produce on demand: gc"),
        (
            {"disturbances": (Disturbance(kind="text", text="submit", service="ad"),)},
            "cannot produce on demand: text",
        ),
        ({"disturbances": (Disturbance(kind="restart", service="ad"),)}, "--otel-diag-restart"),
    ],
)
def test_mistakes_are_found_by_the_real_document(
    target: LiveTarget, changed: dict[str, object], reason: str
) -> None:
    (mistake,) = target.validate(PAYMENT.model_copy(update=changed))
    assert reason in mistake


def test_environments_for_a_simulated_system_are_ignored(target: LiveTarget) -> None:
    wish = PAYMENT.model_copy(update={"environment": Environment(demo="3.0", users=50)})
    assert target.validate(wish) == ()


async def test_a_scenario_with_mistakes_is_not_opened(target: LiveTarget) -> None:
    with pytest.raises(ScenarioError, match="no flag 'nope'"):
        async with target.open(PAYMENT.model_copy(update={"faults": (Fault(flag="nope"),)}), "x"):
            pass


def test_flags_that_cannot_be_read_are_reported_everywhere(demo: LiveDemo, tmp_path: Path) -> None:
    away = live(demo, flags=f"file:{tmp_path / 'gone.json'}")
    assert "gone.json" in away.describe()["demo"]
    assert "gone.json" in away.validate(PAYMENT)[0]
    assert away.scenario_for([Fault(flag="nope")]) is None
    assert away.scenario_for(PAYMENT.faults) is not None
    with pytest.raises(FlagError, match=r"gone\.json"):
        away.scenarios()


async def test_telemetry_that_is_old_keeps_a_session_out(
    demo: LiveDemo, server_store: tuple[Store, str]
) -> None:
    store, dsn = server_store
    store.create_database("stale")
    try:
        with pytest.raises(NotReady, match="no telemetry of the last hour"):
            async with live(demo, "wait_s=0", store=f"{dsn}stale").open(PAYMENT, "x"):
                pass
        await asyncio.to_thread(LiveDemo.serve, _elsewhere(demo, "stale", ahead_s=-100.0), 1, failing=False)
        with pytest.raises(NotReady, match=r"the newest span .* is 10\d s old"):
            async with live(demo, "wait_s=0", store=f"{dsn}stale").open(PAYMENT, "x"):
                pass
        await asyncio.to_thread(LiveDemo.serve, _elsewhere(demo, "stale", ahead_s=20.0), 2, failing=False)
        with pytest.raises(NotReady, match="in the future"):
            async with live(demo, "wait_s=0", store=f"{dsn}stale").open(PAYMENT, "x"):
                pass
    finally:
        store.drop_database("stale")


def _elsewhere(demo: LiveDemo, database: str, *, ahead_s: float) -> LiveDemo:
    return LiveDemo(demo.flagd, demo.document, demo.state, demo.store, demo.dsn, database, ahead_s=ahead_s)


async def test_a_session_waits_for_telemetry_that_comes(
    demo: LiveDemo, server_store: tuple[Store, str]
) -> None:
    store, dsn = server_store
    store.create_database("late")
    late = _elsewhere(demo, "late", ahead_s=0.0)

    async def begin() -> None:
        await asyncio.sleep(1.5)
        await asyncio.to_thread(late.serve, 1, failing=False)

    try:
        beginning = asyncio.create_task(begin())
        async with live(demo, "wait_s=30", store=f"{dsn}late").open(PAYMENT, "x") as session:
            assert session.provenance["database"] == "late"
        await beginning
    finally:
        store.drop_database("late")


async def test_sessions_see_nothing_from_before_them(target: LiveTarget) -> None:
    async with target.open(PAYMENT, "x") as session:
        begun_ns = session.clock.now()
        await session.clock.sleep(1.5)
        sql = "SELECT min(toUnixTimestamp64Nano(toDateTime64(Timestamp, 9))) AS first FROM otel_traces"
        first_ns = (await session.telemetry.query(sql)).column("first")[0]
        assert first_ns > begun_ns - 2_000_000_000
        assert session.normal == {"loadGeneratorVUs": "5", "loadGeneratorTraffic": "on"}
        assert "otel-diag heal" in session.recovery_command


async def test_a_user_who_may_only_read_gets_the_tables_themselves(
    demo: LiveDemo, server_store: tuple[Store, str]
) -> None:
    dsn = server_store[1].replace("default:@", "viewer:secret@")
    target = live(demo, store=f"{dsn}otel")
    async with target.open(PAYMENT, "x") as session:
        assert session.provenance["views"].startswith("none")
        found = await session.telemetry.query("SELECT count() AS spans FROM otel_traces")
        assert found.column("spans")[0] > 0
    target.close()


async def test_a_store_whose_clock_differs_sets_the_time(
    demo: LiveDemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telemetry is stamped by that clock too: here both are 300 s ahead of ours."""
    monkeypatch.setattr(Store, "clock_ns", lambda _: time.time_ns() + 300 * 10**9)
    store, database = demo.store, "ahead"
    store.create_database(database)
    ahead = _elsewhere(demo, database, ahead_s=300.0)
    await asyncio.to_thread(ahead.serve, 1, failing=False)
    try:
        async with live(demo, "wait_s=5", store=f"{demo.dsn}{database}").open(PAYMENT, "x") as session:
            assert float(session.provenance["clock_offset_s"]) == pytest.approx(300.0, abs=1.0)
            assert session.clock.now() > time.time_ns() + 290 * 10**9
    finally:
        store.drop_database(database)


async def test_flags_that_are_not_served_keep_a_session_out(demo: LiveDemo) -> None:
    target = live(demo, flagd="ofrep:http://127.0.0.1:9")
    with pytest.raises(FlagError, match=r"127\.0\.0\.1:9"):
        async with target.open(PAYMENT, "x"):
            pass
    target.close()


async def test_one_session_at_a_time_across_targets(demo: LiveDemo) -> None:
    one, other = live(demo), live(demo, lease_wait_s=0.3)
    async with one.open(PAYMENT, "one"):
        with pytest.raises(FlagError, match="held by"):
            async with other.open(PAYMENT, "other"):
                pass
    async with other.open(PAYMENT, "other"):
        pass
    one.close()
    other.close()


async def test_what_a_dead_run_left_on_is_healed_first(demo: LiveDemo, target: LiveTarget) -> None:
    before = demo.document.read_bytes()
    async with target.open(PAYMENT, "left") as session:
        await session.flags.apply(FlagChange(key="paymentFailure", variant="100%"))
        assert demo.document.read_bytes() != before
    assert demo.document.read_bytes() == before


async def test_restarting_is_a_disturbance_with_a_command(demo: LiveDemo, tmp_path: Path) -> None:
    log = tmp_path / "log"
    target = live(demo, restart=f"sh -c 'echo $0 >> {log}' {{service}}")
    restart = Disturbance(kind="restart", service="ad")
    scenario = PAYMENT.model_copy(update={"disturbances": (restart,)})
    assert target.validate(scenario) == ()
    async with target.open(scenario, "x") as session:
        assert session.disturb is not None
        await session.disturb(restart)
        assert log.read_text() == "ad\n"
        assert session.residue is not None
        assert await session.residue(PAYMENT.faults) == ()
        assert session.restart is not None
        assert await session.restart("cart") == ""
        assert log.read_text() == "ad\ncart\n"
    failing = live(demo, restart="false {service}")
    async with failing.open(scenario, "x") as session:
        assert session.disturb is not None
        with pytest.raises(FlagError, match="was not restarted"):
            await session.disturb(restart)
        assert session.restart is not None and "exit code 1" in await session.restart("cart")
    async with live(demo).open(PAYMENT, "x") as session:
        assert session.restart is not None and "--otel-diag-restart" in await session.restart("cart")
    target.close()
    failing.close()


async def test_traffic_is_driven_at_the_frontend_when_allowed(demo: LiveDemo) -> None:
    with frontend() as stand_in:
        target = live(demo, "rate=20", drive="true", frontend=stand_in.url)
        async with target.open(PAYMENT, "x") as session:
            assert await session.traffic.drive(["payment"], 1) == 1
            assert isinstance(session.traffic, LiveTraffic)
            async with asyncio.timeout(10):
                await session.traffic.settle()
            provenance = session.provenance
        assert provenance["driven"] == "3 x 200"
        target.close()


def test_the_embedded_receiver_is_for_one_process(demo: LiveDemo) -> None:
    with pytest.raises(ConfigurationError, match="cannot run under pytest-xdist"):
        live(demo, store="", worker="gw0")
    with pytest.raises(ConfigurationError, match="without telemetry"):
        live(demo, store="", otlp_receiver="off")
    live(demo, worker="gw0")


def test_the_frontend_is_the_default_for_writing_and_reading_flags(demo: LiveDemo) -> None:
    access = access_of(demo.settings(flags="", flagd="", frontend="http://demo:8080/"))
    assert str(access.control) == "flagd-ui:http://demo:8080/feature"
    assert str(access.served) == "flagd:http://demo:8080/flagservice"


def test_the_guardian_waits_for_longer_than_a_session_takes() -> None:
    assert deadline_s(SHORT, None) > 4 + 20 + 3 + 15 + 30
    assert deadline_s(SHORT, 10.0) < deadline_s(SHORT, None)


def test_the_database_is_the_one_with_the_exporters_tables() -> None:
    def tables(*databases: str) -> list[ExporterTable]:
        return [ExporterTable(name, "otel_traces", "MergeTree") for name in databases]

    chosen = live_store.chosen_database
    assert chosen(tables("a", "default", "otel"), None, "at") == "otel"
    assert chosen(tables("a", "default"), None, "at") == "default"
    assert chosen(tables("mine"), None, "at") == "mine"
    assert chosen(tables("mine", "otel"), "mine", "at") == "mine"
    with pytest.raises(ConfigurationError, match="a, b"):
        chosen(tables("a", "b"), None, "at")
    with pytest.raises(ConfigurationError, match="no database has a table otel_traces"):
        chosen([], None, "at")
    with pytest.raises(ConfigurationError, match="'other' has none"):
        chosen(tables("otel"), "other", "at")
