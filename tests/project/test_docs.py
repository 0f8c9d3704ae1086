"""What the documentation shows works, and what it names exists."""

import re
from pathlib import Path

import pytest

from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.model.diagnosis import Diagnosis, Mechanism, Signal
from pytest_otel_diag.plugin.markers import MARKERS
from pytest_otel_diag.scoring.assertions import DiagnosedSession

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[str]:
    return PYTHON.findall((ROOT / page).read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_options_and_markers_that_exist(page: Path) -> None:
    text = page.read_text()
    options = {option.cli for option in OPTIONS}
    used = set(re.findall(r"--otel-diag-[a-z0-9-]*[a-z0-9]", text))
    assert used <= options, used - options
    marks = set(re.findall(r"pytest\.mark\.(otel_\w+)", text))
    assert marks <= set(MARKERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_page_on_tests_lists_every_marker_and_assertion() -> None:
    text = (ROOT / "docs" / "tests.md").read_text()
    assert [name for name in MARKERS if f"`{name}(" not in text] == []
    asserting = [name for name in dir(DiagnosedSession) if name.startswith("assert_")]
    assert [name for name in asserting if f"{name}(" not in text] == []


def test_the_page_on_analyzers_lists_every_mechanism() -> None:
    text = (ROOT / "docs" / "analyzers.md").read_text()
    assert [mechanism.value for mechanism in Mechanism if f"`{mechanism.value}`" not in text] == []


def test_the_answer_shown_is_a_diagnosis_and_every_signal_is_listed() -> None:
    text = (ROOT / "docs" / "analyzers.md").read_text()
    (shown,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert Diagnosis.model_validate_json(shown).root_causes[0].mechanism is Mechanism.ERROR
    assert [signal.value for signal in Signal if f"`{signal.value}`" not in text] == []


def test_the_examples_of_the_readme_run(pytester: pytest.Pytester) -> None:
    tests, agent = blocks("README.md")
    package = pytester.mkpydir("mypkg")
    (package / "agent.py").write_text(agent)
    pytester.makepyfile(tests)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    ours = pytester.runpytest_subprocess()
    ours.assert_outcomes(passed=2)
    own = pytester.runpytest_subprocess("--otel-diag-analyzer=mypkg.agent:slowest", "-k", "false_alarm")
    own.assert_outcomes(failed=1, deselected=1)
    own.stdout.fnmatch_lines(["*test_no_false_alarm*"])
