"""The public contracts of analyzers and targets, over small implementations; and that they bite."""

from __future__ import annotations

import pytest

from pytest_otel_diag.errors import SchemaError, TelemetryUnavailable
from pytest_otel_diag.model.diagnosis import Diagnosis, DiagnosticQuery, RootCause
from pytest_otel_diag.targets.replay.target import ReplayTarget
from pytest_otel_diag.testing.analyzer_contract import (
    AnalyzerContract,
    BrokenTelemetry,
    StandingClock,
    investigation_of,
)
from pytest_otel_diag.testing.target_contract import TargetContract
from tests.recordings.sample_cases import write_sample_cases
from tests.sessions.session_fakes import FLAGS, FakeTarget, scenario

COUNTS = """
SELECT ServiceName AS service, countIf(StatusCode = 'Error') AS errors
FROM otel_traces GROUP BY service ORDER BY errors DESC, service
"""


class MostErrors:
    """Names the service with the most errors in the incident."""

    async def diagnose(self, investigation):
        health = await investigation.telemetry.service_health(investigation.incident, 60.0)
        errors = {row.service: row.errors for row in health if row.errors}
        await investigation.telemetry.latest()
        return Diagnosis(
            detected=bool(errors),
            root_causes=tuple(RootCause(service=name) for name in sorted(errors, key=errors.__getitem__)),
            query=DiagnosticQuery(sql=COUNTS) if errors else None,
        )


class TestSmall(AnalyzerContract):
    @pytest.fixture
    def analyzer(self):
        return MostErrors


class TestUnsure(AnalyzerContract):
    """Every other answer differs; the rest of the contract is the same and was tested above."""

    deterministic = False
    __test__ = False


async def test_analyzers_that_say_so_may_differ():
    with pytest.raises(pytest.skip.Exception, match="not deterministic"):
        await TestUnsure().test_the_same_question_gets_the_same_answer(MostErrors(), BrokenTelemetry())


async def test_the_contract_lets_telemetry_errors_and_budgets_pass():
    contract = AnalyzerContract()

    async def demanding(investigation):
        raise SchemaError("needs logs")

    async def spendthrift(investigation):
        while True:
            await investigation.telemetry.latest()
            await investigation.telemetry.call_edges(investigation.incident)

    await contract.test_odd_telemetry_is_answered(_adapted(demanding), lambda tables: None, "empty")
    with pytest.raises(TelemetryUnavailable):
        await contract.test_a_small_budget_is_respected(_adapted(spendthrift), BrokenTelemetry())
    await contract.test_a_small_budget_is_respected(_adapted(spendthrift), FakeTarget().telemetry)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    target = ReplayTarget(
        [write_sample_cases(folder / "sample")], store_dsn="chdb://memory", cache_dir=folder / "cache"
    )
    yield target
    target.close()


class TestReplay(TargetContract):
    @pytest.fixture
    def target(self, replayed):
        return replayed

    @pytest.fixture
    def scenario(self, target):
        return target.scenarios()[0]


async def swallows(investigation):
    try:
        await investigation.telemetry.schema()
    except Exception:
        return Diagnosis(detected=False)


async def test_the_contract_finds_an_analyzer_that_swallows_errors():
    with pytest.raises(AssertionError):
        await AnalyzerContract().test_a_broken_store_is_not_mistaken_for_a_healthy_system(_adapted(swallows))


async def invents(investigation):
    return Diagnosis(detected=True, root_causes=(RootCause(service="payment"),))


async def test_the_contract_finds_an_analyzer_that_invents_services():
    with pytest.raises(AssertionError):
        await AnalyzerContract().test_it_names_services_as_telemetry_does(
            _adapted(invents), BrokenTelemetry()
        )


def _adapted(function):
    from_function = type("Adapted", (), {"diagnose": staticmethod(function)})
    return from_function()


async def test_every_question_to_a_broken_store_fails():
    broken = BrokenTelemetry()
    question = investigation_of(broken)
    for ask in (
        lambda: broken.query("SELECT 1"),
        broken.schema,
        broken.latest,
        lambda: broken.service_health(question.incident, 1.0),
        lambda: broken.call_edges(question.incident),
        lambda: broken.operation_health(question.incident, 1.0, ["ad"]),
        lambda: broken.metric_levels(question.incident, 1.0, ["ad"]),
        lambda: broken.log_counts(question.incident, 1.0, ["ad"]),
        lambda: broken.log_kinds(question.incident, 1.0, ["ad"]),
    ):
        with pytest.raises(Exception, match="refuses connections"):
            await ask()
    assert broken.asked == 9
    await StandingClock().sleep(3600)
    assert StandingClock().now() == question.incident.end_ns


class TestExclusive(TargetContract):
    """The fake is exclusive here, and is no store: what asks its telemetry is left to the replay."""

    test_telemetry_can_only_be_read = None

    @pytest.fixture
    def target(self):
        return OneAtATime(exclusive=True)

    @pytest.fixture
    def scenario(self):
        return scenario("paymentFailure=50%")


class OneAtATime(FakeTarget):
    def validate(self, scenario):
        return [f"no flag {fault.flag!r}" for fault in scenario.faults if fault.flag not in FLAGS]
