"""``otel-diag scenarios``: check files offline, list what can be run, print the JSON schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag import catalog
from pytest_otel_diag.model.scenario import Scenario
from pytest_otel_diag.scenario_files.lint import lint as lint_file
from pytest_otel_diag.scenario_files.loading import Case, find_files, load_cases
from pytest_otel_diag.scenario_files.schema import json_schema

Echo = Callable[[str], object]

app = typer.Typer(help="Scenarios, of the catalog and in files: check, list, schema.", no_args_is_help=True)


@app.command("lint")
def lint_command(
    paths: Annotated[list[Path], typer.Argument(help="Scenario files, or folders that hold some.")],
) -> None:
    """Check files against format and catalog, without a target; exit code 1 when something is wrong."""
    raise typer.Exit(lint(paths, typer.echo))


@app.command("list")
def list_command(
    paths: Annotated[list[Path] | None, typer.Argument(help="Scenario files or folders to list too.")] = None,
    demo: Annotated[str, typer.Option(help="Release of the demo.")] = catalog.DEFAULT_DEMO,
) -> None:
    """Show every scenario of the catalog, its controls, and those in files."""
    show(paths or [], demo, typer.echo)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON schema of *.scenario.yaml."""
    typer.echo(schema_text(), nl=False)


def lint(paths: Iterable[Path], echo: Echo) -> int:
    """Print every mistake; return 1 when there are some, or nothing to check."""
    files = find_files(paths)
    mistakes = [mistake for file in files for mistake in lint_file(file)]
    for mistake in mistakes:
        echo(mistake)
    echo(f"{len(files)} files, {len(mistakes)} mistakes")
    return 1 if mistakes or not files else 0


def show(paths: Sequence[Path], demo: str, echo: Echo) -> None:
    """Print one line a scenario; raises ScenarioFileError for files with mistakes."""
    rows = [_row(scenario) for scenario in (*catalog.scenarios(demo), *catalog.controls(demo))]
    for file in find_files(paths):
        rows += [_file_row(case) for case in load_cases(file)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        shown = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        echo("  ".join((*shown, row[3])).rstrip())


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
