"""Results that allure-pytest writes for tests with sessions, as the Allure report reads them."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_otel_diag.model.session import Phase
from pytest_otel_diag.plugin.fixtures import properties
from pytest_otel_diag.plugin.integrations.allure import SEVERITIES
from pytest_otel_diag.plugin.integrations.allure_files import (
    CATEGORIES,
    PREFIX,
    Surroundings,
    _escaped,
    write_files,
)
from tests.support.ended import ALARM, CALM, CONTROL, FAULT, MISSED, RIGHT, WRONG, result

SUITE = """
    import allure
    import pytest

    CONTROL = "control-tinyshop-20231114T221320"

    @pytest.mark.otel_flag("incident-back")
    def test_crash_in_fixture(diagnosis):
        '''The analyzer of the run raises.'''

    def test_crash_in_call(diagnose):
        diagnose(["incident-back"]).result()

    def test_right(diagnose):
        known = diagnose(["incident-back"], analyzer="my_analyzers:slower").result().result.scenario
        tags = (("category", "performance"), ("severity", "high"))
        tagged = known.model_copy(update={"tags": tags})
        diagnose(scenario=tagged, analyzer="my_analyzers:slower").result().assert_expected()

    @allure.severity("trivial")
    @allure.feature("mine")
    def test_wrong(diagnose):
        diagnose(["incident-back"], analyzer="my_analyzers:front").result().assert_expected()

    def test_missed(diagnose):
        diagnose(["incident-back"], analyzer="calm:calm").result().assert_detected()

    def test_alarm(diagnose):
        diagnose(scenario=CONTROL, analyzer="my_analyzers:front").result().assert_healthy()

    def test_without_a_session():
        pass
"""
CALM_ANALYZER = """
from pytest_otel_diag.model.diagnosis import Diagnosis

async def calm(investigation):
    return Diagnosis(detected=False)
"""
DYING = """
    def test_dies(diagnose):
        diagnose(["incident-back"], analyzer="my_analyzers:die").result()
"""
NAMED = {"type": "array", "items": {"required": ["name", "value"], "additionalProperties": True}}
STEP = {
    "type": "object",
    "required": ["name", "status", "start", "stop"],
    "properties": {
        "status": {"enum": ["passed", "failed", "broken", "skipped"]},
        "stage": {"enum": ["scheduled", "running", "finished", "pending", "interrupted"]},
        "start": {"type": "integer"},
        "stop": {"type": "integer"},
        "parameters": NAMED,
        "labels": NAMED,
        "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
        "attachments": {"type": "array", "items": {"required": ["name", "source", "type"]}},
        "statusDetails": {"properties": {"message": {"type": "string"}, "trace": {"type": "string"}}},
    },
}
RESULT = {"$defs": {"step": STEP}, "allOf": [STEP, {"required": ["uuid", "labels", "fullName"]}]}
"""The fields of a test's result that Allure 2 reads."""


def results(folder: Path) -> dict[str, dict]:
    """Return the results by the test's name, each held against the schema, its files there."""
    found = {}
    for file in folder.glob("*-result.json"):
        test = json.loads(file.read_text(encoding="utf-8"))
        jsonschema.validate(test, RESULT)
        found[test["name"]] = test
        for step in every_step(test):
            assert step["start"] <= step["stop"]
            for attached in step.get("attachments", []):
                assert (folder / attached["source"]).is_file()
    return found


def every_step(parent: dict) -> list[dict]:
    return [parent, *(step for child in parent.get("steps", []) for step in every_step(child))]


def values(test: dict, kind: str) -> list[str]:
    return [label["value"] for label in test["labels"] if label["name"] == kind]


def category(test: dict) -> list[str]:
    """Return the categories that Allure sorts the test into: status, and the whole message."""
    message = test.get("statusDetails", {}).get("message", "")
    return [
        category["name"]
        for category in CATEGORIES
        if test["status"] in category["matchedStatuses"] and re.fullmatch(category["messageRegex"], message)
    ]


@pytest.fixture(params=["plain", "xdist"])
def folder(request, pytester, diag) -> Path:
    """The results of one run."""
    distributed = request.param == "xdist"
    pytester.makepyfile(SUITE + (DYING if distributed else ""), calm=CALM_ANALYZER)
    workers = ["-n", "2"] if distributed else []
    run = diag("--alluredir=allure", *workers, analyzer="my_analyzers:crash")
    assert run.ret == 1
    assert "INTERNALERROR" not in run.stdout.str() + run.stderr.str()
    tests = results(pytester.path / "allure")
    assert distributed == ("test_dies" in tests)
    return pytester.path / "allure"


def test_results_contain_every_session(folder: Path) -> None:
    tests = results(folder)
    found = {name: (test["status"], category(test)) for name, test in tests.items()}
    expected = {
        "test_crash_in_fixture": ("broken", ["Analyzer error"]),
        "test_crash_in_call": ("broken", ["Analyzer error"]),
        "test_right": ("passed", []),
        "test_wrong": ("failed", ["Wrong root cause"]),
        "test_missed": ("failed", ["Missed fault"]),
        "test_alarm": ("failed", ["False alarm on a control"]),
        "test_without_a_session": ("passed", []),
    }
    if "test_dies" in tests:
        expected["test_dies"] = ("broken", ["Infrastructure error"])
    assert found == expected
    assert "steps" not in tests["test_without_a_session"]
    labels_are_right(tests)
    steps_are_right(tests, folder)
    surroundings_are_right(folder)


def labels_are_right(tests: dict[str, dict]) -> None:
    right = tests["test_right"]
    assert values(right, "epic") == ["Fault diagnosis"]
    assert values(right, "story") == ["incident-back"]
    assert values(right, "feature") == ["network_delay"], "of the first of its two sessions"
    assert values(tests["test_alarm"], "story") == ["control"]
    assert "incident-back" in values(right, "tag")
    assert values(tests["test_wrong"], "severity") == ["trivial"], "the author's own stay"
    assert values(tests["test_wrong"], "feature") == ["mine"]
    shown = {parameter["name"]: parameter for parameter in right["parameters"]}
    assert shown["incident-back"]["value"] == "on"
    assert shown["analyzer"]["value"] == "my_analyzers:slower"
    assert shown["target"]["value"] == "replay"
    assert shown["seed"]["excluded"] is True, "another seed is the same test in the history"
    assert "excluded" not in shown["analyzer"]


def steps_are_right(tests: dict[str, dict], folder: Path) -> None:
    first, second = tests["test_right"]["steps"]
    assert first["name"].startswith("incident-back: detected, root cause ranked 1")
    assert [step["name"] for step in second["steps"]] == [phase.value for phase in Phase]
    starts = [step["start"] for step in second["steps"]]
    assert starts == sorted(starts)
    assert tests["test_right"]["start"] <= first["start"]
    witness = next(step for step in first["steps"] if step["name"] == "witness")
    shown = {parameter["name"]: parameter["value"] for parameter in witness["parameters"]}
    assert shown["served incident-back"] == "on in 3 reads"
    assert re.fullmatch(r"2023-11-14T22:17:\d\d\.\d{3}Z \+ \d+\.\d s", shown["target's clock"])
    assert shown["since start"] == "2:10"
    (crashed,) = tests["test_crash_in_fixture"]["steps"]
    assert crashed["status"] == "broken"
    assert "no idea" in crashed["statusDetails"]["trace"]
    statuses = {step["name"]: step["status"] for step in crashed["steps"]}
    assert (statuses["baseline"], statuses["investigate"], statuses["recover"]) == (
        "passed",
        "broken",
        "skipped",
    )
    assert tests["test_missed"]["steps"][0]["status"] == "failed"
    kinds = {attached["type"]: attached for attached in first["attachments"]}
    assert {"image/svg+xml", "text/csv", "text/plain", "application/json"} <= set(kinds)
    picture = (folder / kinds["image/svg+xml"]["source"]).read_text(encoding="utf-8")
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    diagnosis = json.loads((folder / kinds["application/json"]["source"]).read_text(encoding="utf-8"))
    assert diagnosis["root_causes"][0]["service"] == "back"


def surroundings_are_right(folder: Path) -> None:
    written = (folder / "environment.properties").read_text(encoding="ascii")
    assert "otel_diag.target=replay\n" in written
    assert "my_analyzers\\:slower" in written
    assert json.loads((folder / "categories.json").read_text()) == list(CATEGORIES)
    assert not list(folder.glob("*.tmp"))


def test_under_the_gate_a_wrong_diagnosis_is_a_failure_in_allure(pytester, diag) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.otel_recorded("incidents")
        def test_incident(diagnosis):
            diagnosis.assert_expected()
        """
    )
    own = pytester.mkdir("allure")
    (own / "categories.json").write_text('[{"name": "of the project"}]')
    (own / "environment.properties").write_text("browser=none\notel_diag.target=old\n")
    run = diag("--alluredir=allure", "--otel-diag-gate", "-k", "incident-back", analyzer="my_analyzers:front")
    run.stdout.fnmatch_lines(["*1 missed*"])
    (test,) = results(own).values()
    assert (test["status"], category(test)) == ("failed", ["Wrong root cause"])
    assert {parameter["name"] for parameter in test["parameters"]} >= {"scenario"}
    names = [one["name"] for one in json.loads((own / "categories.json").read_text())]
    assert names[-1] == "of the project" and len(names) == len(CATEGORIES) + 1
    written = (own / "environment.properties").read_text().splitlines()
    assert written[0] == "browser=none"
    assert [line for line in written if "target" in line] == ["otel_diag.target=replay"]


def test_results_that_cannot_be_written_are_reported_and_change_no_outcome(pytester, diag) -> None:
    pytester.makeconftest(
        """
        from pytest_otel_diag.plugin.integrations import allure

        def broken(*_):
            raise RuntimeError("no pictures today")

        whole = allure.attachments

        def pytest_runtest_setup():
            allure.attachments = broken

        def pytest_unconfigure():  # the module outlives a run inside of the test process
            allure.attachments = whole
        """
    )
    pytester.makepyfile(
        test_p="""
        def test_it(diagnose):
            diagnose(["incident-back"]).result()
        """
    )
    (pytester.mkdir("allure") / "categories.json").mkdir()
    run = diag("--alluredir=allure")
    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(
        [
            "Allure results in allure",
            "  without its sessions: test_p.py::test_it (RuntimeError: no pictures today)",
            "  no categories and environment: *categories.json*",
        ]
    )


def test_runs_without_sessions_leave_allure_alone(pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    assert pytester.runpytest_subprocess("--alluredir=allure").ret == 0
    names = [file.name for file in (pytester.path / "allure").iterdir()]
    assert not {"categories.json", "environment.properties"} & set(names)


@pytest.mark.parametrize("there", ["no json", '{"name": "a map"}', '["text"]', '[{"unnamed": 1}]'])
def test_categories_in_an_unknown_form_are_left_alone(tmp_path: Path, there: str) -> None:
    (tmp_path / "categories.json").write_text(there)
    noted = Surroundings()
    noted.add(result(verdict=RIGHT))
    write_files(tmp_path, noted)
    assert (tmp_path / "categories.json").read_text() == there


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    noted = Surroundings()
    for session in (result(verdict=RIGHT), result(CONTROL, CALM), result(CONTROL, ALARM)):
        noted.add(session)
    write_files(tmp_path, noted)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write_files(tmp_path, noted)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_many_values_are_cut_with_their_number() -> None:
    noted = Surroundings()
    for seed in range(9):
        noted.add(result(FAULT, WRONG if seed else MISSED, seed=seed))
    assert noted.properties()["seed"] == "0, 1, 2, 3, 4, 5 and 3 more"


def unescaped(text: str) -> str:
    """Read a value of a properties file as Java does."""
    units = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
    whole = re.sub(r"\\([\\=:#! ])", r"\1", units)
    return whole.encode("utf-16", "surrogatepass").decode("utf-16")


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\\")))
def test_properties_are_read_back_as_they_were(text: str) -> None:
    line = _escaped(text)
    assert line.isascii() and line.isprintable()
    assert unescaped(line) == text


def test_the_page_on_reports_lists_categories_severities_and_properties() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "reports.md").read_text().split())
    names = [category["name"].partition(":")[0] for category in CATEGORIES]
    assert [name for name in names if name[0].lower() + name[1:] not in page] == []
    assert [
        f"{ours} → {theirs}" for ours, theirs in SEVERITIES.items() if f"{ours} → {theirs}" not in page
    ] == []
    names = [name for name, _ in properties(result(verdict=RIGHT, reason="x"))]
    assert [name for name in names if f"`{name.removeprefix('otel_diag.')}`" not in page] == []


def test_category_names_are_unique_and_environment_keys_are_prefixed() -> None:
    names = [category["name"] for category in CATEGORIES]
    assert len(set(names)) == len(names)
    noted = Surroundings()
    noted.add(result(verdict=RIGHT))
    assert PREFIX == "otel_diag." and "pytest-otel-diag" in noted.properties()
