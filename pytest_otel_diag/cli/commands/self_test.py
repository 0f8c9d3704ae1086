"""``otel-diag self-test``: proves the oracle of each scenario before it judges anyone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag import catalog
from pytest_otel_diag.cli.options import Wanted
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.selftest.pool import proofs
from pytest_otel_diag.selftest.subjects import chosen, of_catalog, of_files
from pytest_otel_diag.selftest.table import as_json, as_text, written_into


def command(  # noqa: PLR0913 - parameters of a command are its options
    *,
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Scenario files or folders, instead of the catalog.")
    ] = None,
    scenario: Wanted = None,
    demo: Annotated[str, typer.Option(help="Release of the demo.")] = catalog.DEFAULT_DEMO,
    workers: Annotated[int, typer.Option(min=1, help="Parallel processes.")] = 1,
    seed: Annotated[int, typer.Option(help="Another seed gives other incidents of the same kinds.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print everything that was measured.")] = False,
    write: Annotated[Path | None, typer.Option(help="Markdown page to write the table into.")] = None,
) -> None:
    """Prove every scenario: false when healthy, true when faulted, false when undone, wrong answers refused.

    Exit code 1 when an oracle does not hold.
    """
    known = of_files(paths, demo) if paths else of_catalog(demo)
    subjects = chosen(known, scenario or ())
    done = list(proofs(subjects, Settings(target=f"shop:demo={demo}", seed=seed), workers))
    if json:
        typer.echo(as_json(done))
    else:
        for line in as_text(done):
            typer.echo(line)
    if write is not None:
        write.write_text(written_into(write, done), encoding="utf-8")
    raise typer.Exit(0 if all(proof.holds for proof in done) else 1)
