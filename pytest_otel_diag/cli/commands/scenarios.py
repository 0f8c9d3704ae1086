"""``otel-diag scenarios``: checks scenario files offline, lists scenarios, prints the JSON schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag import catalog
from pytest_otel_diag.cli.output import print_table
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.runs.entry_points import known_targets
from pytest_otel_diag.scenario_files.lint import lint as lint_file
from pytest_otel_diag.scenario_files.loading import Case, find_files, load_cases
from pytest_otel_diag.scenario_files.schema import json_schema
from pytest_otel_diag.scoring.text import count

_UNLIMITED = 1000
"""Columns in a log, so that paths and reasons stay on one line."""

app = typer.Typer(help="Scenarios of the catalog and in files: check, list, schema.", no_args_is_help=True)


@app.command()
def lint(
    paths: Annotated[list[Path], typer.Argument(help="Scenario files, or folders that contain some.")],
) -> None:
    """Check files against format and catalog, without a target; exit code 1 for mistakes or no files."""
    files = find_files(paths)
    targets = known_targets()
    mistakes = [mistake for file in files for mistake in lint_file(file, targets)]
    for mistake in mistakes:
        typer.echo(mistake)
    typer.echo(f"{count(len(files), 'file')}, {count(len(mistakes), 'mistake')}")
    raise typer.Exit(1 if mistakes or not files else 0)


@app.command("list")
def list_(
    paths: Annotated[list[Path] | None, typer.Argument(help="Scenario files or folders to list too.")] = None,
    demo: Annotated[str, typer.Option(help="Release of the demo.")] = catalog.DEFAULT_DEMO,
) -> None:
    """Show every scenario of the catalog, its controls, and those in files."""
    rows = [_row(scenario) for scenario in (*catalog.scenarios(demo), *catalog.controls(demo))]
    for file in find_files(paths or ()):
        rows += [_file_row(case) for case in load_cases(file)]
    print_table(rows, ("scenario", "category", "severity", "right answer"), in_logs=_UNLIMITED)


@app.command()
def schema() -> None:
    """Print the JSON schema of *.scenario.yaml."""
    typer.echo(schema_text(), nl=False)


def schema_text() -> str:
    """Return the JSON schema as it is published."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _row(scenario: Scenario) -> tuple[str, str, str, str]:
    tags = dict(scenario.tags)
    causes = dict.fromkeys(cause.service for cause in scenario.expectation.root_causes)
    answer = "nothing is wrong" if scenario.control else f"root cause {' or '.join(causes)}"
    notes = [answer, f"not in the gate: {scenario.ungated}" if scenario.ungated else ""]
    return scenario.id, tags.get("category", ""), tags.get("severity", ""), "; ".join(filter(None, notes))


def _file_row(case: Case) -> tuple[str, str, str, str]:
    tags = case.entry.tags
    return case.id, tags.get("category", ""), tags.get("severity", ""), f"{case.path}:{case.line}"
