"""``otel-diag init`` writes a project in which pytest runs at once."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pytest_otel_diag.cli.app import app
from pytest_otel_diag.operations.new_project import FILES, write_project


def init(folder: Path) -> str:
    done = CliRunner().invoke(app, ["init", str(folder)])
    assert done.exit_code == 0, done.output
    return done.output


def test_pytest_runs_at_once_in_a_new_project(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "my project"
    shown = init(folder)
    assert all(f"wrote   {folder / name}" in shown for name in FILES)
    assert f"cd '{folder}' && pytest" in shown
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_DIAG_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--otel-diag-gate"]
    command += ["--otel-diag-inconclusive=pass", f"--otel-diag-cache={tmp_path / 'cache'}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    assert "analyzer:diagnose on shop" in done.stdout
    (card,) = folder.glob("reports/*/scorecard.md")  # the file that the workflow shows in its summary
    assert "faults detected" in card.read_text()


def test_existing_files_are_reported_and_never_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "analyzer.py"
    mine.write_text("# mine\n")
    shown = init(tmp_path)
    assert f"exists  {mine}, left as it is" in shown
    assert mine.read_text() == "# mine\n"
    again = write_project(tmp_path)
    assert (again.written, set(again.existing)) == ((), set(FILES))
    assert again.missing_sections == {}


def test_the_section_for_an_existing_pyproject_is_shown(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    shown = init(tmp_path)
    assert f"add this to {tmp_path / 'pyproject.toml'}" in shown
    assert 'otel_diag_analyzer = "analyzer:diagnose"' in shown
    assert tomllib.loads((tmp_path / "pyproject.toml").read_text()) == {"project": {"name": "mine"}}


def test_the_workflow_gates_and_keeps_the_report(tmp_path: Path) -> None:
    write_project(tmp_path)
    workflow = yaml.safe_load((tmp_path / ".github/workflows/diagnosis.yml").read_text())
    steps = workflow["jobs"]["diagnosis"]["steps"]
    runs = " ".join(step.get("run", "") for step in steps)
    assert "--otel-diag-gate" in runs
    assert "GITHUB_STEP_SUMMARY" in runs
    (upload,) = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    assert upload["with"]["path"] == "reports/"


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "tests").write_text("a file where a folder has to be")
    done = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert "choose a folder in which you may write" in str(done.exception)


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_template_is_in_the_package_and_ends_with_a_newline(name: str, tmp_path: Path) -> None:
    write_project(tmp_path)
    text = (tmp_path / name).read_text()
    assert text.strip()
    assert text.endswith("\n")
