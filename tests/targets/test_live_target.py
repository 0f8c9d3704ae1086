"""The target live against a real flagd and a tiny system that runs, its telemetry on a stand-in server."""

import asyncio
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
from pytest_otel_diag.targets import live_store
from pytest_otel_diag.targets.live import LiveTarget, access_of, deadline_s
from pytest_otel_diag.telemetry import Store
from pytest_otel_diag.testing.clickhouse_server import clickhouse_server
from pytest_otel_diag.testing.target_contract import TargetContract
from tests.support.live_demo import LiveDemo, live_demo

pytestmark = pytest.mark.xdist_group("live_target")

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
    return Diagnosis(detected=bool(found["payment"]), root_causes=(RootCause(service="payment", confidence=1.0),))


async def test_a_fault_is_made_seen_judged_and_taken_back(target: LiveTarget, demo: LiveDemo) -> None:
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
    print([(p.phase, round(p.wall_s,1), p.detail) for p in result.phases])
    assert not list((demo.state).glob("**/*.json")), "an entry of the journal stays"
