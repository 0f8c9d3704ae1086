"""What the documentation shows works, and what it names exists."""

import asyncio
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import pytest_otel_diag
from pytest_otel_diag.cli.app import app
from pytest_otel_diag.config.options import OPTIONS
from pytest_otel_diag.model.diagnosis import Diagnosis, Mechanism, Signal
from pytest_otel_diag.model.events import SessionEnded
from pytest_otel_diag.model.session import Status
from pytest_otel_diag.plugin.markers import MARKERS
from pytest_otel_diag.runs.events import EventWriter
from pytest_otel_diag.scoring.assertions import DiagnosedSession
from tests.support import tiny_shop
from tests.support.plugins import NO_HYPOTHESIS

ROOT = Path(__file__).parents[2]
TOP = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docker/README.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[str]:
    return PYTHON.findall((ROOT / page).read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_options_and_markers_that_exist(page: Path) -> None:
    text = page.read_text()
    options = {option.cli for option in OPTIONS}
    used = set(re.findall(r"--otel-diag-[a-z0-9-]*[a-z0-9]", text))
    assert used <= options, used - options
    marks = set(re.findall(r"pytest\.mark\.(otel_\w+)", text))
    assert marks <= set(MARKERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_commands_that_exist(page: Path) -> None:
    groups = {name: getattr(command, "commands", {}) for name, command in get_command(app).commands.items()}
    shown = re.findall(r"(?:`|\$ |^)otel-diag ([a-z][a-z-]+)(?: ([a-z-]+))?", page.read_text(), re.MULTILINE)
    for command, below in shown:
        assert command in groups, command
        assert not groups[command] or not below or below in groups[command], below


@pytest.mark.parametrize("page", ["options.md", "commands.md", "events.md", "agents/tools.md"])
def test_tables_made_from_the_code_are_current(page: str) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    assert script["written"](page) == (ROOT / "docs" / page).read_text(), "write it: python docs/tables.py"


def test_the_page_on_the_api_describes_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    described = re.findall(
        r"^\.\. auto(?:class|data|function):: pytest_otel_diag\.(\w+)$", text, re.MULTILINE
    )
    assert sorted([*described, "__version__"]) == pytest_otel_diag.__all__


def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    folders = ["--doctree-dir", str(tmp_path / "trees"), str(ROOT / "docs"), str(tmp_path / "site")]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").glob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|link rel=\"(?:stylesheet|preload)\")[^>]*(?:src|href)=\"(\S+?)\"",
            page.read_text(encoding="utf-8"),
        )
        assert loaded, page.name
        assert [link for link in loaded if "//" in link] == [], page.name


def test_the_examples_of_readme_and_tutorial_run(pytester: pytest.Pytester) -> None:
    tests, agent = blocks("README.md")
    (grown,) = blocks("docs/tutorial.md")
    pytester.makepyfile(test_readme=tests, test_tutorial=grown, my_agent=agent)
    shown = pytester.runpytest_subprocess(*NO_HYPOTHESIS)
    shown.assert_outcomes(passed=3)
    own = pytester.runpytest_subprocess(
        "--otel-diag-analyzer=my_agent:slowest", "-k", "raise_no_alarm", *NO_HYPOTHESIS
    )
    own.assert_outcomes(failed=1, deselected=2)
    own.stdout.fnmatch_lines(["*test_more_shoppers_raise_no_alarm*"])


def test_the_example_of_the_api_page_is_an_analyzer() -> None:
    (shown,) = blocks("docs/api.md")
    names: dict[str, Any] = {}
    exec(shown, names)
    assert asyncio.run(names["diagnose"](None)).root_causes[0].mechanism is Mechanism.ERROR


def test_the_example_of_the_page_on_events_reads_a_run(tmp_path: Path) -> None:
    (shown,) = blocks("docs/events.md")
    names: dict[str, Any] = {}
    exec(shown, names)
    writer = EventWriter(tmp_path)
    with (tmp_path / "events.jsonl").open("ab") as torn:
        torn.write('{"kind": "session_ended", "outcome": "é'.encode()[:-1] + b"\n")
    at: dict[str, Any] = {"session_id": "a", "at_ns": 1, "wall_ns": 1}
    writer.emit(SessionEnded(**at, scenario_id="pay", status=Status.SCORED, outcome="no alarm", wall_s=1.0))
    writer.close()
    assert names["ended"](tmp_path) == {"pay": "no alarm"}


def test_the_page_on_architecture_names_packages_and_modules_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    package = ROOT / "pytest_otel_diag"
    named = set(re.findall(r"`([a-z_]+/[a-z_]*(?:/|\.py)?|[a-z_]+\.py)`", text))
    parents = [package, package / "sessions", package / "targets", ROOT]
    assert len(named) > 30
    assert [name for name in sorted(named) if not any((parent / name).exists() for parent in parents)] == []
    layers = {path.name for path in package.iterdir() if path.is_dir() and path.name[0] != "_"} - {"suites"}
    assert [name for name in sorted(layers) if f"`{name}/`" not in text] == []


def test_the_example_of_the_page_on_queries_by_hand_reads_a_recording(tmp_path: Path) -> None:
    (shown,) = blocks("docs/sql.md")
    recording = tiny_shop.write(tmp_path / "tiny")
    script = f"{shown}\nprint(failing_operations({str(recording)!r}, 'CSV'))"
    # A process has one embedded engine, and this one may have it open elsewhere.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    services = [line.split(",")[0].strip('"') for line in done.stdout.splitlines() if line]
    assert set(services) == {"front", "middle", "back"}
