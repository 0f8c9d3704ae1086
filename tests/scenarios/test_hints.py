"""Hints of scenario files: how they override the catalog's, and what lint finds in them."""

import pytest

from pytest_otel_diag import catalog
from pytest_otel_diag.catalog.hints import wrong_hints
from pytest_otel_diag.model.scenario import InvestigationStep
from pytest_otel_diag.scenario_files.lint import lint
from pytest_otel_diag.scenario_files.loading import load_cases

TARGETS = ("shop", "live", "replay")


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "case.scenario.yaml"
        path.write_text(f"schema: 1\n{text}")
        return path

    return write


def wrong(*hints, **given):
    steps = [InvestigationStep(hint=hint, signal="traces") for hint in hints]
    return [(number, text.split(";")[0]) for number, text in wrong_hints(steps, **{"flags": (), **given})]


@pytest.mark.parametrize("said", ["paymentFailure", "payment failure", "PAYMENT_FAILURES", "payment-failure"])
def test_a_hint_names_no_flag_in_any_spelling(said):
    assert wrong(f"Is {said} on?", flags=["paymentFailure"]) == [
        (0, "the hint names the flag 'paymentFailure'")
    ]


def test_parts_of_other_words_are_no_names():
    assert wrong("It had failures; carts fail.", flags=["adFailure"], culprits=["ad", "cart"]) == []
    assert wrong("Once on, read on.", variants=["on", "off"]) == []


def test_a_hint_names_no_variant_that_is_recognisable():
    assert wrong("Do 50% of the calls fail?", variants=["50%"]) == [(0, "the hint names the variant '50%'")]
    assert wrong("Do 150% of them?", variants=["50%"]) == []


@pytest.mark.parametrize("said", ["product-catalog", "Product Catalog", "productcatalogservice"])
def test_only_the_last_hint_names_the_culprit(said):
    found = wrong(f"Look at {said}.", f"Look at {said}.", culprits=["product-catalog"])
    assert found == [(0, "the hint names 'product-catalog', the service of the root cause")]


def test_hints_of_a_control_do_not_say_that_something_is_wrong():
    assert wrong("Where is the fault?", control=True) == [(0, "the hint of a control says 'fault'")]
    assert wrong("Which service varies most?", control=True) == []


def test_lint_reports_hints_with_their_lines(write):
    path = write(
        "faults: [{flag: paymentFailure, variant: 50%}]\n"
        "investigation_path:\n"
        "  - {hint: Look at payment., signal: traces, services: [paymnt]}\n"
        "  - {hint: Charge of payment fails 50% of the calls since cartFailure., signal: traces}\n"
    )

    assert [line.removeprefix(f"{path}:").split(";")[0] for line in lint(path, TARGETS)] == [
        "4: investigation_path.0.hint: the hint names 'payment', the service of the root cause",
        "5: investigation_path.1.hint: the hint names the flag 'cartFailure'",
        "5: investigation_path.1.hint: the hint names the variant '50%'",
        "4: investigation_path.0.services: demo 3.0 has no service 'paymnt' (did you mean 'payment'?)",
    ]


def test_a_file_keeps_or_replaces_the_path_of_the_catalog(write):
    base = catalog.scenario("paymentFailure")
    base = base.model_copy(
        update={"investigation_path": (InvestigationStep(hint="Compare.", signal="traces"),)}
    )

    def path_of(rest):
        (case,) = load_cases(write(f"faults: [{{flag: paymentFailure}}]\n{rest}"))
        return [step.hint for step in case.scenario(base).investigation_path]

    assert path_of("") == ["Compare."]
    assert path_of("expect: {red_herrings: [email]}\n") == ["Compare."]
    assert path_of("expect: {root_causes: [{service: checkout}]}\n") == []
    own = "investigation_path: [{hint: Mine., signal: logs}]\n"
    assert path_of(f"expect: {{root_causes: [{{service: checkout}}]}}\n{own}") == ["Mine."]
