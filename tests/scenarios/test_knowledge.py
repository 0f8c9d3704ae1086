"""What the catalog adds to files: answers, times, labels, and checks."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_otel_diag import catalog
from pytest_otel_diag.cli.app import app
from pytest_otel_diag.model.scenario import Expectation, Fault, FaultStep, Scenario, scenario_mistakes
from pytest_otel_diag.scenario_files.knowledge import labels, other_release_only, scenario_of
from pytest_otel_diag.scenario_files.lint import lint
from pytest_otel_diag.scenario_files.loading import load_cases
from pytest_otel_diag.testing import each_variant

RUNNER = CliRunner()

TARGETS = ("live", "replay", "shop")


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "some.scenario.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_fault_gets_the_catalogs_answer_and_the_files_schedule() -> None:
    fault = Fault(flag="cartServiceFailure", variant="50%", at_s=9, steps=(FaultStep(at_s=3, variant="10%"),))
    scenario = scenario_of([fault], "3.0")
    known = catalog.scenario("cartFailure", "50%", "3.0")
    assert scenario.expectation == known.expectation
    assert scenario.timing == known.timing
    (own,) = scenario.faults
    assert (own.flag, own.variant, own.at_s, own.steps) == ("cartFailure", "50%", 9, fault.steps)


def test_the_context_of_a_rule_comes_from_the_catalog() -> None:
    scenario = scenario_of([Fault(flag="productCatalogFailure")], "3.0")
    assert dict(scenario.faults[0].context) == {"product_id": "OLJCESPC7Z"}


def test_a_context_in_the_file_is_kept() -> None:
    own = Fault(flag="productCatalogFailure", context={"product_id": "66VCHSJNUP"})
    assert scenario_of([own], "3.0").faults == (own.model_copy(update={"variant": "on"}),)


def test_files_and_targets_combine_faults_alike() -> None:
    faults = [Fault(flag="paymentServiceFailure", variant="50%"), Fault(flag="failedReadinessProbe", at_s=9)]
    whole = scenario_of(faults, "3.0")
    assert whole == catalog.together(faults, "3.0")
    assert whole.require_impact
    assert {cause.fault for cause in whole.expectation.root_causes} == {"paymentFailure=50%"}
    assert not scenario_of(faults[1:], "3.0").require_impact
    assert scenario_of([], "3.0") is None


def test_several_faults_expect_one_cause_each_and_the_longest_times() -> None:
    names = ("imageSlowLoad", "recommendationCacheFailure")
    scenario = scenario_of([Fault(flag=name) for name in names], "3.0")
    parts = [catalog.scenario(name, None, "3.0") for name in names]
    assert scenario.timing.impact_timeout_s == max(part.timing.impact_timeout_s for part in parts)
    assert scenario.timing.observe_s == max(part.timing.observe_s for part in parts)
    assert (scenario.environment.users, scenario.environment.browser_users) == (25, 1)
    assert len({cause.fault for cause in scenario.expectation.root_causes}) == 2


def test_flags_outside_the_catalog_are_unknown() -> None:
    assert scenario_of([Fault(flag="incident-7")], "3.0") is None
    assert scenario_of([Fault(flag="adFailure", variant="75%")], "3.0") is None
    assert scenario_of([Fault(flag="intlShippingSlowdown")], "2.2") is None


def test_labels_are_flag_category_and_severity_unless_the_file_says_otherwise() -> None:
    assert labels(["paymentServiceFailure"], {}) == ("paymentFailure", "service_failure", "severity_critical")
    assert labels(["paymentFailure"], {"severity": "low", "team": "pay"}) == (
        "paymentFailure",
        "service_failure",
        "severity_low",
        "pay",
    )
    assert labels(["incident-7"], {}) == ("incident-7",)
    assert labels(["incident-7", "adHighCpu"], {})[2:] == ("performance", "severity_medium")


@pytest.mark.parametrize(
    ("fault", "demo", "there"),
    [
        (Fault(flag="intlShippingSlowdown"), "2.2", "3.0, 3.1"),
        (Fault(flag="cartFailure", variant="100%"), "2.2", "3.0, 3.1"),
        (Fault(flag="cartFailure"), "2.2", ""),
        (Fault(flag="cartFailure", variant="no"), "2.2", ""),
        (Fault(flag="nothing"), "2.2", ""),
        (Fault(flag="adFailure"), "9.9", ""),
    ],
)
def test_a_flag_of_another_release_is_not_a_mistake(fault, demo, there) -> None:
    assert other_release_only(fault, demo) == there


def test_lint_checks_files_against_the_catalog(write) -> None:
    path = write(
        """
        schema: 1
        scenarios:
          - faults:
              - { flag: paymentFailur }
              - { flag: cartFailure, variant: on, steps: [{ at_s: 9, variant: 11% }] }
            disturbances: [{ kind: gc, service: add }]
            expect:
              anomalies: [{ service: paymnt }]
              root_causes: [{ service: checkou }]
              paths: [[frontend, carts]]
              red_herrings: [quot]
            assert: [{ not_blamed: emai }, { path: [frontent] }]
            matrix: { users: [5, 10] }
          - control: true
            environment: { demo: "9.9" }
          - faults: [{ flag: incident-7 }]
            targets: [replay]
          - scenario: recorded
        """
    )
    found = [line.removeprefix(f"{path}:") for line in lint(path, TARGETS)]
    for wanted in (
        "5: scenarios.0.faults.0.flag: unknown flag 'paymentFailur' (did you mean 'paymentFailure'?)",
        "6: scenarios.0.faults.1.variant: flag 'cartFailure' of demo 3.0 has no variant 'on'",
        "6: scenarios.0.faults.1.steps.0.variant: flag 'cartFailure' of demo 3.0 has no variant '11%'",
        "7: scenarios.0.disturbances.0.service: demo 3.0 has no service 'add' (did you mean 'ad'?)",
        "9: scenarios.0.expect.anomalies.0.service: demo 3.0 has no service 'paymnt'",
        "10: scenarios.0.expect.root_causes.0.service: demo 3.0 has no service 'checkou'",
        "11: scenarios.0.expect.paths.0: demo 3.0 has no service 'carts'",
        "12: scenarios.0.expect.red_herrings.0: demo 3.0 has no service 'quot'",
        "13: scenarios.0.assert.0.not_blamed: demo 3.0 has no service 'emai' (did you mean 'email'?)",
        "13: scenarios.0.assert.1.path: demo 3.0 has no service 'frontent' (did you mean 'frontend'?)",
        "16: scenarios.1.environment.demo: unknown demo release '9.9'",
    ):
        assert any(line.startswith(wanted) for line in found), (wanted, found)
    assert len(found) == 11


def test_a_misspelt_target_is_a_mistake_and_turns_off_no_other_check(write) -> None:
    path = write("schema: 1\nfaults: [{flag: adFailur}]\ntargets: [shpo]\n")
    target, flag = [line.removeprefix(f"{path}:") for line in lint(path, TARGETS)]
    assert target == "3: targets: no target 'shpo' (did you mean 'shop'?); choose from live, replay, shop"
    assert flag.startswith("2: faults.0.flag: unknown flag 'adFailur'")


def test_lint_reports_files_that_cannot_be_loaded(write) -> None:
    path = write("schema: 1\nfaultz: []\n")
    assert any(
        line.startswith(f"{path}:2: faultz: unknown key (did you mean 'faults'?)")
        for line in lint(path, TARGETS)
    )


def test_each_variant_is_a_flag_and_a_parameter() -> None:
    decorator = each_variant("adFailure", "on")
    assert decorator.name == "parametrize"
    name, (parameter,) = decorator.args
    assert (name, parameter.values) == ("variant", ("on",))
    assert parameter.marks[0].name == "otel_flag"


def test_service_names_of_older_releases_are_known(write) -> None:
    assert lint(write("schema: 1\ncontrol: true\nassert: [{not_blamed: paymentservice}]\n"), TARGETS) == []


def test_the_command_lints_lists_and_prints_the_schema(write, tmp_path) -> None:
    good = write("schema: 1\nfaults: [{flag: adFailure}]\ntags: {severity: low}\n")
    done = RUNNER.invoke(app, ["scenarios", "lint", str(good)])
    assert (done.exit_code, done.output) == (0, "1 file, 0 mistakes\n")
    bad = write("schema: 1\nfaults: [{flag: adFailur}]\n", "bad.scenario.yaml")
    done = RUNNER.invoke(app, ["scenarios", "lint", str(tmp_path)])
    assert done.exit_code == 1
    assert f"{bad}:2: faults.0.flag: unknown flag 'adFailur'" in done.output
    (tmp_path / "empty").mkdir()
    assert RUNNER.invoke(app, ["scenarios", "lint", str(tmp_path / "empty")]).exit_code == 1
    listed = RUNNER.invoke(app, ["scenarios", "list", str(good)]).output
    for wanted in (
        "paymentUnreachable=on",
        "control-quiet",
        f"{good}:1",
        "nothing is wrong",
        "not in the gate",
    ):
        assert wanted in listed
    assert '"$schema"' in RUNNER.invoke(app, ["scenarios", "schema"]).output


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "control: true\nexpect: {healthy: false, root_causes: [{service: ad}]}\n",
            "expects a fault but names none",
        ),
        ("control: true\nexpect: {root_causes: [{service: ad}]}\n", "is a control that expects root_causes"),
        ("faults: [{flag: adFailure}, {flag: adFailure}]\n", "names flag 'adFailure' 2 times"),
        ("external: tc\n", "has an external fault without its truth"),
        ("external: tc\nexpect: {healthy: true}\n", "has an external fault beside flags, or as a control"),
        (
            "faults: [{flag: adFailure}, {flag: cartFailure, at_s: 900}]\ntiming: {observe_s: 60}\n",
            "comes on 900 s after the first one",
        ),
    ],
)
def test_lint_refuses_what_every_target_refuses(write, text: str, mistake: str) -> None:
    (found,) = lint(write(f"schema: 1\n{text}"), TARGETS)
    assert mistake in found


def test_a_fault_that_no_flag_makes_is_a_scenario_with_its_truth(write) -> None:
    path = write("schema: 1\nexternal: tc netem\nexpect: {root_causes: [{service: ad}]}\n")
    assert lint(path, TARGETS) == []
    (case,) = load_cases(path)
    made = case.scenario(Scenario(id="x", expectation=Expectation()))
    assert (made.external, made.control, made.faults) == ("tc netem", False, ())
    assert scenario_mistakes(made) == []


def test_text_is_text_whatever_yaml_takes_it_for(write) -> None:
    text = """
        schema: 1
        external: 1.10
        expect:
          root_causes: [{ service: 007, operation: on }]
          red_herrings: [1e3, 2026-01-01]
          paths: [[no, 0x10]]
        assert: [{ not_blamed: 1.10 }, { root_cause: 007 }]
        tags: { team: 1.10, on_call: yes }
        marks: [12_3]
        """
    (case,) = load_cases(write(text))
    expect = case.entry.expect
    assert case.entry.external == "1.10"
    assert (expect.root_causes[0].service, expect.root_causes[0].operation) == ("007", "on")
    assert (expect.red_herrings, expect.paths) == (("1e3", "2026-01-01"), (("no", "0x10"),))
    assert [check.name for check in case.checks] == ["not_blamed", "root_cause"]
    assert (case.checks[0].not_blamed.service, case.checks[1].root_cause.service) == ("1.10", "007")
    assert case.entry.tags == {"team": "1.10", "on_call": "yes"}
    assert case.entry.marks == ("12_3",)
