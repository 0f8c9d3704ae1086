"""``otel-diag init``: start a project that tests a diagnosis."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag.operations.new_project import write_project


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; created where needed.")] = Path(),
) -> None:
    """Write a small project: a first test, scenario and analyzer, pytest's settings and a CI workflow.

    Files that exist are never overwritten. Run pytest in the folder afterwards.
    """
    project = write_project(folder)
    for name in project.written:
        typer.echo(f"wrote   {project.folder / name}")
    for name in project.existing:
        typer.echo(f"exists  {project.folder / name}, left as it is")
    for name, text in project.missing_sections.items():
        typer.echo(f"\nadd this to {project.folder / name}:\n\n{text}")
    where = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    typer.echo(f"run it: {where}pytest")
