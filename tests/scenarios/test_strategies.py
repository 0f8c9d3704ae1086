"""Strategies draw scenarios that are valid for their release and can be run."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pytest_otel_diag import catalog, testing
from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.diagnosis import Diagnosis, RootCause
from pytest_otel_diag.model.scenario import Fault, Scenario
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.testing import run_scenario, strategies
from pytest_otel_diag.testing.running import shop

RELEASES = st.sampled_from(("2.0", "2.1", "2.2", "3.0", "3.1"))
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


def valid(scenario: Scenario) -> None:
    assert list(shop().validate(scenario)) == []
    assert Scenario.model_validate(scenario.model_dump()) == scenario


@QUICK
@given(data=st.data(), demo=RELEASES)
def test_drawn_scenarios_fit_the_request(data, demo) -> None:
    scenario = data.draw(
        strategies.scenarios(demo, severity="high", users=(10, 25), scheduled=True, disturbed=True)
    )
    valid(scenario)
    assert scenario.environment.demo == demo
    assert 10 <= scenario.environment.users <= 25
    assert dict(scenario.tags)["severity"] == "high"
    assert scenario.expectation.root_causes


@QUICK
@given(scenario=strategies.scenarios(category="performance"))
def test_the_catalog_chooses_the_number_of_users(scenario) -> None:
    valid(scenario)
    fault = scenario.faults[0]
    known = catalog.scenario(fault.flag, fault.variant, "3.0")
    assert scenario.environment.users == known.environment.users
    assert scenario.expectation == known.expectation
    assert dict(scenario.tags)["category"] == "performance"


@QUICK
@given(data=st.data(), demo=RELEASES)
def test_faults_can_be_diagnosed(data, demo) -> None:
    fault = data.draw(strategies.faults(demo))
    entry = catalog.flag(fault.flag, demo)
    assert entry.kind == "fault"
    assert entry.diagnosable.answer
    assert catalog.scenario(fault.flag, fault.variant, demo).expectation.root_causes


@QUICK
@given(fault=strategies.schedules())
def test_drawn_schedules_are_valid(fault) -> None:
    assert Fault.model_validate(fault.model_dump()) == fault
    assume(fault.steps)
    assert fault.steps[0].variant != fault.variant


@QUICK
@given(variant=strategies.variants("emailMemoryLeak"))
def test_invisible_variants_are_not_drawn(variant) -> None:
    assert variant in ("1000x", "10000x")


@QUICK
@given(scenario=strategies.controls())
def test_controls_expect_nothing(scenario) -> None:
    valid(scenario)
    assert scenario.control


def test_flags_that_a_release_lacks_are_refused() -> None:
    with pytest.raises(ScenarioError, match="no fault of category"):
        strategies.faults("3.0", category="service_failure", severity="low")
    with pytest.raises(ScenarioError, match="did you mean 'paymentFailure'"):
        strategies.variants("paymentFailur")


def test_the_package_offers_its_strategies() -> None:
    assert testing.run_scenario is run_scenario
    with pytest.raises(AttributeError, match="no attribute 'run_everything'"):
        testing.run_everything  # noqa: B018 - asking is the test


async def blames_payment(investigation) -> Diagnosis:
    return Diagnosis(detected=True, root_causes=(RootCause(service="payment"),))


async def test_a_scenario_runs_in_a_plain_function_beside_a_running_loop() -> None:
    base = catalog.scenario("paymentFailure", "100%")
    short = base.timing.model_copy(update={"baseline_s": 60.0, "observe_s": 30.0, "recover_timeout_s": 0.0})
    result = run_scenario(base.model_copy(update={"timing": short}), blames_payment, seed=3)
    assert result.status is Status.SCORED, result.reason
    assert result.verdict.top1
    assert result.analyzer == "blames_payment"
    assert result.seed == 3


def test_a_scenario_may_be_named_by_its_fault_or_id() -> None:
    result = run_scenario("cartFailure=25%", "builtin", target=_Unopenable())
    assert result.scenario.faults[0].variant == "25%"
    assert result.status is Status.ERROR
    assert run_scenario("adFailure=on", "builtin", target=_Unopenable()).scenario.id == "adFailure=on"


class _Unopenable:
    """A shop that cannot be opened."""

    name, exclusive, seeded = "unopenable", False, False
    identity = property(lambda self: self)
    scenarios = staticmethod(lambda: shop().scenarios())
    scenario_for = staticmethod(lambda faults: shop().scenario_for(faults))
    validate = staticmethod(lambda scenario: ())

    def open(self, scenario, session_id):
        raise ScenarioError("unopenable")


def test_unknown_scenarios_and_mistakes_are_refused() -> None:
    with pytest.raises(ScenarioError, match="has no scenario 'noFailure'"):
        run_scenario("noFailure", blames_payment)
    wrong = catalog.scenario("adFailure").model_copy(update={"faults": (Fault(flag="adFailur"),)})
    with pytest.raises(ScenarioError, match="did you mean 'adFailure'"):
        run_scenario(wrong, blames_payment)
