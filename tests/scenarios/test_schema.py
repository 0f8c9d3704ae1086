"""The published JSON schema accepts what the loader accepts."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from pytest_otel_diag.cli.commands.scenarios import schema_text
from pytest_otel_diag.model.diagnosis import Mechanism, Signal
from pytest_otel_diag.scenario_files.documents import read_document
from pytest_otel_diag.scenario_files.lint import lint
from pytest_otel_diag.scenario_files.loading import find_files
from pytest_otel_diag.scenario_files.schema import Check
from pytest_otel_diag.scoring.assertions import DiagnosedSession

ROOT = Path(__file__).parents[2]
SHIPPED = find_files([ROOT / "suites"])
SCHEMA = json.loads((ROOT / "docs" / "scenario.schema.json").read_text())


def validate(data) -> list[str]:
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(data)]


def test_the_published_schema_is_up_to_date() -> None:
    assert (ROOT / "docs" / "scenario.schema.json").read_text() == schema_text()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_validates(path: Path) -> None:
    assert validate(read_document(path).data) == []
    assert lint(path, ("shop",)) == []


def test_files_are_shipped_in_every_category_that_has_faults() -> None:
    assert {path.parent.name for path in SHIPPED} == {
        "adversarial",
        "service_failure",
        "performance",
        "system_level",
        "complex",
        "control",
    }


def test_every_assertion_of_a_session_can_be_written() -> None:
    asserting = {name.removeprefix("assert_") for name in dir(DiagnosedSession) if name.startswith("assert_")}
    assert asserting == set(Check.model_fields)


def test_short_forms_numbers_and_contexts_are_accepted() -> None:
    text = """
    schema: 1
    faults: [{flag: f, variant: 5, context: {product_id: a, loyal: true}}]
    environment: {demo: 3.0}
    assert: [detected, {root_cause: a}, {root_cause: {service: a}}, {not_blamed: b}, {path: [a, b]}]
    """
    assert validate(yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{schema: 1, control: true, extra: 1}", "$"),
        ("{schema: 2, control: true}", "$.schema"),
        ("{schema: 1, scenarios: []}", "$.scenarios"),
        ("{schema: 1, control: true, assert: [detect]}", "$.assert[0]"),
        ("{schema: 1, control: true, disturbances: [{kind: lod}]}", "$.disturbances[0].kind"),
        ("{schema: 1, control: true, environment: {users: 0}}", "$.environment.users"),
    ],
)
def test_the_schema_locates_mistakes(text, place) -> None:
    assert validate(yaml.safe_load(text)) == [place]


def test_enumerations_are_those_of_the_model() -> None:
    assert SCHEMA["$defs"]["Signal"]["enum"] == [signal.value for signal in Signal]
    assert SCHEMA["$defs"]["Mechanism"]["enum"] == [mechanism.value for mechanism in Mechanism]
