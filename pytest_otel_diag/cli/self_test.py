"""``otel-diag self-test``: prove each scenario's oracle before it judges anybody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from pytest_otel_diag import catalog
from pytest_otel_diag.config.settings import Settings
from pytest_otel_diag.selftest.pool import proofs
from pytest_otel_diag.selftest.subjects import chosen, of_catalog, of_files
from pytest_otel_diag.selftest.table import as_json, as_text, written_into

Echo = Callable[[str], object]


@dataclass(frozen=True)
class Request:
    """What to prove, and where to."""

    paths: Sequence[Path] = ()
    wanted: Sequence[str] = ()
    demo: str = catalog.DEFAULT_DEMO
    workers: int = 1
    as_json: bool = False
    page: Path | None = None
    settings: Settings = field(default_factory=Settings)


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Scenario files or folders, instead of the catalog.")
    ] = None,
    scenario: Annotated[
        list[str] | None, typer.Option(help="Only scenarios whose id contains this text (repeatable).")
    ] = None,
    demo: Annotated[str, typer.Option(help="Release of the demo.")] = catalog.DEFAULT_DEMO,
    workers: Annotated[int, typer.Option(min=1, help="Parallel processes.")] = 1,
    seed: Annotated[int, typer.Option(help="Draw other incidents of the same kinds.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print everything that was measured.")] = False,
    write: Annotated[Path | None, typer.Option(help="Page to write the table into.")] = None,
) -> None:
    """Prove every scenario: false when healthy, true when faulted, false when undone, wrong answers refused.

    Exit code 1 when an oracle does not hold.
    """
    settings = Settings(target=f"shop:demo={demo}", seed=seed)
    request = Request(tuple(paths or ()), tuple(scenario or ()), demo, workers, json, write, settings)
    raise typer.Exit(self_test(request, typer.echo))


def self_test(request: Request, echo: Echo) -> int:
    """Prove, print and return 1 when an oracle does not hold; raises ScenarioError for nothing to prove."""
    known = of_files(request.paths, request.demo) if request.paths else of_catalog(request.demo)
    subjects = chosen(known, request.wanted)
    done = list(proofs(subjects, request.settings, request.workers))
    if request.as_json:
        echo(as_json(done))
    else:
        for line in as_text(done):
            echo(line)
    if request.page is not None:
        request.page.write_text(written_into(request.page, done), encoding="utf-8")
    return 0 if all(proof.holds for proof in done) else 1
