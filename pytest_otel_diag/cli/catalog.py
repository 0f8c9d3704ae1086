"""``otel-diag catalog``: what is known of flags, and whether a real document is as known."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pytest_otel_diag import catalog as shipped
from pytest_otel_diag.catalog.catalog import Catalog
from pytest_otel_diag.catalog.compare import Comparison, Difference, compare
from pytest_otel_diag.catalog.entries import FlagEntry, Period
from pytest_otel_diag.catalog.page import markdown, told_for
from pytest_otel_diag.catalog.scenarios import scenario, ungated, users
from pytest_otel_diag.errors import FlagError
from pytest_otel_diag.flags import document_text

app = typer.Typer(help="Flags that are known: list them, show one, check a document.", no_args_is_help=True)

_KINDS = {"load": "a change of load, not a failure of a service", "inert": "does nothing as shipped"}

Demo = Annotated[str, typer.Option(help="Release, for example 3.0 or 2.x.")]
Extra = Annotated[
    list[Path] | None, typer.Option("--catalog", help="Catalog file of your own, added to the shipped one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command("list")
def list_(
    demo: Demo = shipped.DEFAULT_DEMO,
    catalog: Extra = None,
    as_json: AsJson = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the flags of all releases for a page.")
    ] = False,
) -> None:
    """Show the flags of a release."""
    known = _catalog(catalog)
    if as_markdown:
        typer.echo(markdown(known), nl=False)
        return
    generation = known.generation(demo)
    rows = [_summary(known, known.flag(key), generation.demo) for key in generation.flags]
    if as_json:
        _print_json({"demo": generation.demo, "system": generation.system, "flags": rows})
        return
    table = _table("flag", "severity", "variant", "root cause", "a session is")
    category = None
    for row in sorted(rows, key=lambda row: str(row["category"])):
        if row["category"] != category:
            category = row["category"]
            table.add_section()
            table.add_row(f"[bold]{category}[/bold]")
        causes = ", ".join(dict.fromkeys(row["root_causes"])) or "none"
        table.add_row(f"  {row['flag']}", row["severity"], row["variant"], causes, row["counts"])
    console = _console()
    console.print(f"{generation.system} {generation.demo}: {len(rows)} flags")
    console.print(table)


@app.command()
def show(
    flag: Annotated[str, typer.Argument(help="A flag, by any of its names.")],
    demo: Annotated[
        str | None, typer.Option(help="Release; else the default one, or the flag's newest.")
    ] = None,
    catalog: Extra = None,
    as_json: AsJson = False,
) -> None:
    """Show everything that is known of one flag."""
    known = _catalog(catalog)
    entry = known.flag(flag)
    there = known.demos(entry)
    chosen = demo or (shipped.DEFAULT_DEMO if shipped.DEFAULT_DEMO in there else told_for(known, entry))
    period = known.period(entry, chosen)
    if as_json:
        told = scenario(known, entry.key, None, chosen)
        _print_json(
            {
                "demo": chosen,
                "demos": there,
                "entry": entry.model_dump(mode="json"),
                "scenario": told.model_dump(mode="json"),
            }
        )
        return
    console = _console()
    console.print(
        f"[bold]{escape(period.name)}[/bold]  {entry.category}, severity {entry.severity}", end="\n\n"
    )
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column()
    above = ""
    for label, text in _facts(known, entry, period, chosen):
        grid.add_row("" if label == above else label, escape(text))
        above = label
    console.print(grid)


@app.command()
def check(
    document: Annotated[Path, typer.Argument(help="A flagd document, for example demo.flagd.json.")],
    demo: Annotated[str | None, typer.Option(help="Release; guessed from the flags when not given.")] = None,
    catalog: Extra = None,
    as_json: AsJson = False,
) -> None:
    """Compare a real flagd document with the catalog; exit code 1 when they differ."""
    try:
        raw = document.read_bytes()
    except OSError as error:
        raise FlagError(f"the document {document} cannot be read: {error}; give a flagd document") from error
    found = compare(_catalog(catalog), document_text.parse(raw, str(document)).flags, demo)
    if as_json:
        _print_json(_comparison(found, document))
    else:
        _print_comparison(found, document)
    raise typer.Exit(0 if found.same else 1)


def _catalog(files: Sequence[Path] | None) -> Catalog:
    known = shipped.load()
    for file in files or ():
        known = known.extended(file)
    return known


def _summary(known: Catalog, entry: FlagEntry, demo: str) -> dict[str, Any]:
    period = known.period(entry, demo)
    variant = known.variant(entry, None, demo)
    expected = known.expectation(entry.key, variant, demo)
    reason = ungated(entry, period, variant)
    return {
        "flag": period.name,
        "category": entry.category,
        "severity": entry.severity,
        "variant": variant,
        "variants": dict(period.variants),
        "default": period.default,
        "root_causes": [cause.service for cause in expected.root_causes],
        "counts": "control" if expected.healthy else "not gated" if reason else "gated",
        "ungated": reason,
    }


def _facts(known: Catalog, entry: FlagEntry, period: Period, demo: str) -> Iterable[tuple[str, str]]:
    yield "does", entry.does
    if entry.kind != "fault":
        yield "kind", _KINDS[entry.kind]
    yield "in detail", f"{entry.behaviour} ({entry.source})"
    for key in ("broken", "inert", "note"):
        if text := getattr(period, key):
            yield f"in {demo}", text
    yield from _spellings(known, entry)
    yield "variants", ", ".join(f"{name} = {json.dumps(value)}" for name, value in period.variants.items())
    yield "as shipped", period.default
    yield "switch by", _switch(period)
    variant = known.variant(entry, None, demo)
    wanted = users(entry, period, variant)
    yield "scenario", f"{period.name}={variant}" + (f", at {wanted} users" if wanted else "")
    for note in entry.variants:
        yield f"at {note.variant}", note.ungated or note.why
    traffic = entry.traffic
    yield "traffic", f"{traffic.requests}; {traffic.per_minute:g} a minute at 5 users ({traffic.source})"
    if traffic.why:
        yield "traffic", traffic.why
    seen = entry.visibility
    yield "shows", f"{seen.shows}; after {seen.seconds:g} s, in {', '.join(seen.signals)} ({seen.source})"
    if entry.cleanup is not None:
        yield "leaves", f"{entry.cleanup.residue} {entry.cleanup.reset} ({entry.cleanup.source})"
    yield from _answer(known, entry, demo)
    yield "diagnosable", f"{'yes' if entry.diagnosable.answer else 'no'}. {entry.diagnosable.why}"


def _spellings(known: Catalog, entry: FlagEntry) -> Iterable[tuple[str, str]]:
    for period in entry.periods:
        demos = [demo for demo in known.demos(entry) if known.period(entry, demo) is period]
        # What is told of a release as a whole cannot be surer than the release itself.
        told = [demo for demo in demos if known.generation(demo).release.source != period.source]
        doubt = f", of {', '.join(told)} {known.generation(told[0]).release.source}" if told else ""
        yield "name", f"{period.name} in {', '.join(demos)} ({period.source}{doubt})"
    if entry.absent:
        yield "absent", entry.absent


def _switch(period: Period) -> str:
    if period.targeting is None:
        return "defaultVariant"
    context = ", ".join(f"{key}={value}" for key, value in period.context.items())
    return f"position 1 of its rule, targeting.if[1]; ask with {context or 'no context'}"


def _answer(known: Catalog, entry: FlagEntry, demo: str) -> Iterable[tuple[str, str]]:
    answer = known.answer(entry, demo)

    def name(service: str) -> str:
        return known.service(service, demo)

    if answer.healthy:
        yield "right answer", "nothing is wrong"
    for anomaly in answer.anomalies:
        place = f"{name(anomaly.service)} {anomaly.operation or ''}".strip()
        yield "expected", f"{place}: {anomaly.signal} {anomaly.direction}. {anomaly.why}"
    for path in answer.paths:
        yield "path", " → ".join(map(name, path))
    for cause in answer.root_causes:
        place = f"{name(cause.service)} {cause.operation or ''}".strip()
        yield "root cause", f"{place}: {' or '.join(cause.mechanisms)}. {cause.why}"
    for herring in answer.red_herrings:
        if herring.service not in known.generation(demo).services:
            continue
        yield "red herring", f"{name(herring.service)}. {herring.why}"


def _comparison(found: Comparison, document: Path) -> dict[str, Any]:
    return {
        "document": str(document),
        "demo": found.demo,
        "guessed": found.guessed,
        "alike": found.alike,
        "same": found.same,
        "on": found.on,
        "differences": [vars(difference) for difference in found.differences],
    }


def _print_comparison(found: Comparison, document: Path) -> None:
    console = _console()
    how = "fits best" if found.guessed else "was asked for"
    alike = f" (as well as {', '.join(found.alike)})" if found.alike else ""
    console.print(escape(f"{document}: demo {found.demo} {how}{alike}"), soft_wrap=True)
    if found.on:
        console.print(f"[yellow]on: {escape(', '.join(found.on))}[/yellow]")
    if found.same:
        console.print("[green]as shipped[/green]")
        return
    table = _table("flag", "", "what differs")
    for item in found.differences:
        table.add_row(*map(escape, (item.flag, item.kind, _told(item))))
    console.print(table)
    console.print(f"{len(found.differences)} differences")


def _told(item: Difference) -> str:
    if item.kind == "missing":
        return "the document lacks it"
    if item.kind == "unknown":
        return f"the catalog has it {item.note}"
    note = f" ({item.note})" if item.note else ""
    return f"{item.expected} in the catalog, {item.found} in the document{note}"


def _console() -> Console:
    # Only a terminal is asked for its width: a log is read anywhere.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 80)


def _table(*columns: str) -> Table:
    # Without a frame: 80 columns are few, and a frame is noise in a log.
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    for position, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=not position)
    return table


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
