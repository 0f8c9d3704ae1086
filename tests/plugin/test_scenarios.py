"""Markers become scenarios; every mistake in them is reported with its value."""

import pytest

from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.errors import ScenarioRejected
from pytest_otel_diag.model.scenario import Disturbance, Environment, Fault, FaultStep
from pytest_otel_diag.plugin.markers import parse
from pytest_otel_diag.plugin.scenarios import from_markers
from pytest_otel_diag.runs.runner import Runner
from tests.sessions.session_fakes import FakeTarget


def scenario_of(*decorators: pytest.MarkDecorator):
    found, mistakes = parse([decorator.mark for decorator in decorators])
    assert mistakes == []
    return from_markers(found, "test_x", FakeTarget())


def test_a_schedule_is_part_of_the_flag() -> None:
    scenario, mistakes = scenario_of(
        pytest.mark.otel_flag("a", "10%", at_s=5, until_s=65, every_s=90, steps={30: "50%"})
    )
    assert mistakes == []
    assert scenario.faults == (
        Fault(
            flag="a",
            variant="10%",
            at_s=5,
            until_s=65,
            every_s=90,
            steps=(FaultStep(at_s=30, variant="50%"),),
        ),
    )


def test_disturbances_and_environment_surround_the_faults() -> None:
    scenario, mistakes = scenario_of(
        pytest.mark.otel_environment(users=25),  # the closest marker comes first and wins
        pytest.mark.otel_environment(users=5, demo="2.2"),
        pytest.mark.otel_disturb("load", factor=3),
        pytest.mark.otel_disturb("restart", "ad", at_s=10),
        pytest.mark.otel_ungated("rare"),
        pytest.mark.otel_control(),
    )
    assert mistakes == []
    assert scenario.control
    assert scenario.environment == Environment(users=25, demo="2.2")
    assert scenario.disturbances == (
        Disturbance(kind="load", factor=3),
        Disturbance(kind="restart", service="ad", at_s=10),
    )
    assert scenario.ungated == "rare"


@pytest.mark.parametrize(
    ("marks", "sentence"),
    [
        ([pytest.mark.otel_flag("a", until_s=0)], "until_s=0 must lie after at_s=0"),
        ([pytest.mark.otel_flag("a", every_s=5)], "every_s=5 needs an until_s"),
        ([pytest.mark.otel_flag("a", steps={5: "x", 3: "y"})], "rising at_s"),
        ([pytest.mark.otel_flag("a", at_s=-1)], "at_s=-1"),
        ([pytest.mark.otel_control(), pytest.mark.otel_disturb("lod")], "kind='lod'"),
        ([pytest.mark.otel_control(), pytest.mark.otel_disturb("gc")], "'gc' needs a service"),
        ([pytest.mark.otel_control(), pytest.mark.otel_disturb("load", "ad")], "'load' names no service"),
        ([pytest.mark.otel_control(), pytest.mark.otel_environment(users=0)], "users=0"),
        ([pytest.mark.otel_disturb("load")], "otel_disturb without a scenario"),
    ],
)
def test_a_mistake_names_the_value(marks, sentence) -> None:
    _, mistakes = scenario_of(*marks)
    assert len(mistakes) == 1
    assert sentence in mistakes[0]


def test_every_mistake_is_reported() -> None:
    _, mistakes = scenario_of(
        pytest.mark.otel_control(),
        pytest.mark.otel_disturb("gc"),
        pytest.mark.otel_environment(users=0, browser_users=99),
    )
    assert len(mistakes) == 3


def test_a_flag_with_two_schedules_and_a_fault_that_comes_too_late_are_mistakes_at_collection() -> None:
    twice, _ = scenario_of(
        pytest.mark.otel_flag("adFailure", "on"), pytest.mark.otel_flag("adFailure", "on", at_s=9000)
    )
    runner = Runner(Settings(), target=FakeTarget())
    with pytest.raises(ScenarioRejected) as rejected:
        runner.prepare(twice)
    found = rejected.value.mistakes
    assert any("names flag 'adFailure' 2 times; a flag has one variant" in mistake for mistake in found)
    assert any("comes on 9000 s after the first one" in mistake for mistake in found)
    once, _ = scenario_of(pytest.mark.otel_flag("adFailure", "on"))
    assert runner.prepare(once).scenario.faults == once.faults
