"""``otel-diag report``: shows a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.reports.terminal import render_scorecard
from pytest_otel_diag.reports.writers import report_writers
from pytest_otel_diag.runs.directory import read_run


def command(
    run_directory: Annotated[Path, typer.Argument(help="Folder of a run, for example reports/<run-id>.")],
    output: Annotated[str, typer.Option("--format", help="text, markdown, json or html.")] = "text",
) -> None:
    """Print the scorecard of a run, or write a report of it and print the file's path."""
    run = read_run(run_directory)
    if output == "text":
        for warning in run.warnings:
            typer.echo(f"warning: {warning}")
        typer.echo(render_scorecard(run.scorecard, gated=run.gated))
        return
    for writer in report_writers([output]):
        typer.echo(str(writer.write(run, run_directory)))
