"""The question for agents: what it says, what it never says, and texts of users."""

import json
from pathlib import Path

import pytest

from pytest_otel_diag.analyzers.agents.question import load_question, question_text, standard_question
from pytest_otel_diag.errors import ConfigurationError
from pytest_otel_diag.testing.analyzer_contract import BrokenTelemetry
from pytest_otel_diag.tools import TOOLS
from tests.support.investigations import investigation_over

INVESTIGATION = investigation_over(BrokenTelemetry())


def test_the_question_has_windows_the_present_the_tools_and_the_form_of_the_answer():
    text = question_text(INVESTIGATION)

    assert str(INVESTIGATION.incident.start_ns) in text
    assert str(INVESTIGATION.baseline.end_ns) in text
    assert "The present is 2023-11-14T22:15:20.000Z, the end of the incident" in text
    assert all(f"- {tool.name}: " in text for tool in TOOLS)
    assert '"root_causes"' in text


def test_as_json_the_windows_are_data():
    fields = json.loads(question_text(INVESTIGATION, format="json"))

    incident = INVESTIGATION.incident
    assert fields["incident"] == {"start_ns": incident.start_ns, "end_ns": incident.end_ns}
    assert fields["now_ns"] == incident.end_ns
    assert fields["reference"] == []
    assert fields["question"] == question_text(INVESTIGATION)
    assert "root_causes" in fields["answer_schema"]["properties"]
    assert fields["version"] == standard_question().version


def test_a_file_replaces_the_question_and_its_version(tmp_path: Path):
    file = tmp_path / "question.md"
    file.write_text("Incident: $incident. Costs $$1.")

    template = load_question(file)

    assert question_text(INVESTIGATION, template=template).endswith("). Costs $1.")
    assert template.version.endswith("(own)")
    assert template.version[:12] != standard_question().version


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("$incidents", r"\$incidents \(did you mean 'incident'\?\)"),
        ("costs $ 3", r"write \$\$"),
        ("", "0 characters"),
    ],
)
def test_a_question_that_cannot_be_filled_is_refused(tmp_path: Path, text: str, problem: str):
    file = tmp_path / "question.md"
    file.write_text(text)

    with pytest.raises(ConfigurationError, match=problem):
        load_question(file)


def test_a_missing_question_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_question(tmp_path / "none.md")
