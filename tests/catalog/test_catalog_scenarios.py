"""Scenarios of the catalog: suitable times and traffic, and reasons not to count in the gate."""

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.scenarios import AFFECTED_PER_MINUTE, DEFAULT_USERS, affected_per_minute
from pytest_otel_diag.errors import ScenarioError
from pytest_otel_diag.model.scenario import Fault, scenario_mistakes

DEMOS = catalog.load().demos()
CASES = [(demo, scenario) for demo in DEMOS for scenario in catalog.scenarios(demo)]


@pytest.mark.parametrize(("demo", "scenario"), CASES, ids=lambda value: getattr(value, "id", value))
def test_a_scenario_is_the_flag_at_one_variant(demo, scenario):
    assert scenario_mistakes(scenario) == []
    (fault,) = scenario.faults
    assert scenario.id == f"{fault.flag}={fault.variant}"
    tags = dict(scenario.tags)
    entry = catalog.flag(fault.flag, demo)
    assert (tags["flag"], tags["category"], tags["severity"]) == (entry.key, entry.category, entry.severity)
    assert scenario.environment.demo == demo
    assert scenario.timing.baseline_s == 300
    assert scenario.timing.observe_s >= 180
    assert scenario.timing.impact_timeout_s >= 180


def test_every_flag_has_one_scenario():
    assert len({scenario.id for scenario in catalog.scenarios("3.0")}) == 15


def test_users_are_added_until_six_requests_show_a_rare_fault():
    asked = {s.id: s.environment.users for s in catalog.scenarios("3.0")}
    assert asked["paymentUnreachable=on"] is None
    assert asked["adFailure=on"] == 25
    assert asked["intlShippingSlowdown=10sec"] == 25
    assert catalog.scenario("paymentFailure", "10%").environment.users == 50
    assert catalog.scenario("cartFailure", "10%").environment.users == 50
    assert catalog.scenario("cartFailure", "25%").environment.users == 25
    for name, variant in (("paymentFailure", "50%"), ("adFailure", "on"), ("paymentFailure", "75%")):
        entry, period = catalog.flag(name), catalog.load().period(name)
        users = catalog.scenario(name, variant).environment.users or DEFAULT_USERS
        assert affected_per_minute(entry, period, variant) * users / DEFAULT_USERS >= AFFECTED_PER_MINUTE


def test_all_or_nothing_flags_of_old_releases_affect_every_request():
    entry, period = catalog.flag("cartFailure"), catalog.load().period("cartFailure", "2.1")
    assert affected_per_minute(entry, period, "on") == pytest.approx(3.8)
    assert affected_per_minute(entry, period, "off") == 0
    assert catalog.scenario("cartFailure", "off", "2.1").environment.users is None


def test_more_users_shorten_the_wait_and_slow_leaks_lengthen_it():
    assert catalog.scenario("emailMemoryLeak", "100x").timing.impact_timeout_s == 4 * 3300
    assert catalog.scenario("emailMemoryLeak", "1000x").timing.impact_timeout_s == 480
    assert catalog.scenario("recommendationCacheFailure").timing.impact_timeout_s == round(4 * 330 / 5)


def test_images_need_a_browser():
    assert catalog.scenario("imageSlowLoad").environment.browser_users == 1
    assert catalog.scenario("adFailure").environment.browser_users is None


@pytest.mark.parametrize(
    ("name", "variant", "demo", "reason"),
    [
        ("emailMemoryLeak", "1x", "3.0", "nothing visible grows"),
        ("emailMemoryLeak", "10x", "2.1", "nothing visible grows"),
        ("recommendationCacheFailure", None, "2.2", "nothing leaks"),
        ("llmInaccurateResponse", None, "2.2", "Only the text itself shows it"),
        ("loadGeneratorTraffic", None, "3.0", "removes telemetry"),
    ],
)
def test_scenarios_that_cannot_be_judged_are_ungated_with_the_reason(name, variant, demo, reason):
    assert reason in catalog.scenario(name, variant, demo).ungated


def test_most_flags_of_a_release_count():
    counted = [scenario.id for scenario in catalog.scenarios("3.0") if not scenario.ungated]
    assert len(counted) == 14
    assert not catalog.scenario("emailMemoryLeak").ungated


@pytest.mark.parametrize("name", ["failedReadinessProbe", "loadGeneratorVUs"])
def test_harmless_flags_are_controls_that_need_no_impact(name):
    found = catalog.scenario(name)
    assert found.control
    assert not found.require_impact


@pytest.mark.parametrize("demo", ["1.12", "3.0"])
def test_controls_have_no_fault_and_the_times_of_a_fault(demo):
    found = catalog.controls(demo)
    assert len({control.id for control in found}) == 4
    for control in found:
        assert control.control
        assert not control.faults
        assert control.timing.guard_s == 0, "switching a flag takes no time that windows would show"
        assert control.timing.baseline_s == 300
        for disturbance in control.disturbances:
            assert disturbance.service in (None, *catalog.generation(demo).services.values())


def test_combined_faults_get_the_longest_times_and_the_most_users():
    given = (
        Fault(flag="adServiceFailure", at_s=20.0),
        Fault(flag="imageSlowLoad", variant="10sec", context={"who": "me"}),
        Fault(flag="recommendationCacheFailure"),
    )
    parts = [catalog.scenario(fault.flag, fault.variant) for fault in given]
    whole = catalog.together(given)
    assert whole.id == "adFailure=on+imageSlowLoad=10sec+recommendationCacheFailure=on"
    assert [(fault.flag, fault.at_s) for fault in whole.faults] == [
        ("adFailure", 20.0),
        ("imageSlowLoad", 0.0),
        ("recommendationCacheFailure", 0.0),
    ]
    assert whole.faults[0].context == parts[0].faults[0].context
    assert whole.faults[1].context == (("who", "me"),)
    assert (whole.environment.users, whole.environment.browser_users) == (25, 1)
    assert (
        whole.timing.observe_s == max(part.timing.observe_s for part in parts) > whole.timing.baseline_s / 2
    )
    assert whole.timing.impact_timeout_s == max(part.timing.impact_timeout_s for part in parts)
    causes = {cause.service for part in parts for cause in part.expectation.root_causes}
    assert {cause.service for cause in whole.expectation.root_causes} == causes
    assert {cause.fault for cause in whole.expectation.root_causes} == {str(fault) for fault in whole.faults}


def test_a_combination_with_an_ungated_fault_is_ungated():
    uncounted = next(s for demo in DEMOS for s in catalog.scenarios(demo) if s.ungated)
    demo = uncounted.environment.demo
    counted = next(s for s in catalog.scenarios(demo) if not s.ungated and s.require_impact)
    whole = catalog.together((*counted.faults, *uncounted.faults), demo)
    assert whole.ungated == uncounted.ungated
    assert whole.require_impact
    assert catalog.together(uncounted.faults, demo) == uncounted


def test_a_combination_with_an_unknown_flag_is_refused():
    with pytest.raises(ScenarioError, match="nothing"):
        catalog.together([Fault(flag="adFailure"), Fault(flag="nothing")])
